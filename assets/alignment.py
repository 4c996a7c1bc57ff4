"""Preference alignment, round by round: pairs from the model's own beams, then IPA on them.

The rounds of `STAGES.alignment.rounds` are unrolled into the graph. The last one has the plain
names, which everything downstream reads; earlier ones end in `_round_1`, `_round_2`, ...
"""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import dagster as dg
import pydantic

from assets.alignment_checks import checks_of_checkpoint, checks_of_pairs, shown_before
from assets.support import (
    DAILY,
    DAY_BY_DAY,
    POOL_TRAINER,
    STAGES,
    code_version,
    launchpad,
    published,
    to_core,
    upstream,
)
from assets.training import training_runtime
from onerec.config import AlignmentConfig, GenerationConfig
from resources.stores import Artifacts, Compute

if TYPE_CHECKING:
    from pathlib import Path

    from onerec.alignment.gate import RoundDecision
    from onerec.alignment.preferences import Preferences
    from onerec.artifacts import Artifact
    from onerec.model import OneRec
    from onerec.tokenizer.semantic_ids import SemanticIds

ROUNDS = STAGES.alignment.rounds
PAIRS_CODE = code_version("alignment", "generation", "model", "reward", "datasets/session_tensors")
DPO_CODE = code_version(
    "alignment",
    "evaluation",
    "generation",
    "model",
    "reward",
    "training",
    "datasets/session_tensors",
)


SAMPLED_WITH = (
    "sample_users",
    "seed",
    "method",
    "pairs",
    "group_size",
    "num_rejected",
    "temperature",
)
"""Settings of the alignment stage that say what is compared; the others say how it is learned."""
_FIELDS = launchpad(STAGES.alignment).model_fields
_COMPARED: dict[str, Any] = {n: (_FIELDS[n].annotation, _FIELDS[n]) for n in SAMPLED_WITH}
_PairsBase = pydantic.create_model(
    "PairsLaunchpadBase", __base__=launchpad(STAGES.generation), **_COMPARED
)


class PairsLaunchpad(_PairsBase):
    """Generation of the candidates, whose they are, and what is compared.

    Each round adds its number to `seed`.
    """


class AlignmentLaunchpad(launchpad(STAGES.alignment)):
    """Losses and optimiser of a round. `rounds` and `sample_users` are settled elsewhere."""


def round_name(asset: str, number: int) -> str:
    """Name of an asset in a round; round 0 is where alignment starts."""
    if number == 0:
        return "pretrained_checkpoint"
    return asset if number == ROUNDS else f"{asset}_round_{number}"


def pairs_of_round(number: int) -> dg.AssetsDefinition:
    """The asset that makes a round's pairs."""
    name, start = round_name("preference_pairs", number), round_name("dpo_checkpoint", number - 1)
    sources = (start, "reward_model", "semantic_ids", "session_dataset")

    @dg.asset(
        name=name,
        partitions_def=DAILY,
        backfill_policy=DAY_BY_DAY,
        group_name="alignment",
        kinds={"pytorch", "parquet"},
        pool=POOL_TRAINER,
        code_version=PAIRS_CODE,
        deps=[upstream(source) for source in sources],
        description=f"Best and worst by reward of the sessions that {start} generates for a sample "
        "of training users (OneRec v1, Algorithm 2).",
    )
    def preference_pairs(
        context: dg.AssetExecutionContext,
        config: PairsLaunchpad,
        artifacts: Artifacts,
        compute: Compute,
    ) -> dg.MaterializeResult:
        from onerec.alignment.preferences import save_preferences

        values = config.model_dump()
        compared = {name: values.pop(name) for name in SAMPLED_WITH}
        compared["seed"] += number
        generation, day = GenerationConfig(**values), context.partition_key
        read = {source: artifacts.store.latest(source, day) for source in sources}
        alignment = replace(STAGES.alignment, **compared)
        pairs, ids = _generate(context, read, start, generation, alignment, compute)
        with artifacts.store.write(
            name,
            day,
            config={"generation": asdict(generation), **compared},
            upstream={source: a.version for source, a in read.items()},
            code_version=PAIRS_CODE,
            seed=alignment.seed,
        ) as draft:
            save_preferences(pairs, ids.item_ids, draft.path)
            draft.row_counts["rows"] = len(pairs)
        return published(draft.artifact, _pairs_metadata(pairs))

    return preference_pairs


def checkpoint_of_round(number: int) -> dg.AssetsDefinition:
    """The asset that trains on a round's pairs."""
    name, start = round_name("dpo_checkpoint", number), round_name("dpo_checkpoint", number - 1)
    pairs_name = round_name("preference_pairs", number)
    judged_with = ("evaluator_model", "reward_model")
    sources = (pairs_name, start, "semantic_ids", "session_dataset", *judged_with)

    @dg.asset(
        name=name,
        partitions_def=DAILY,
        backfill_policy=DAY_BY_DAY,
        group_name="alignment",
        kinds={"pytorch"},
        pool=POOL_TRAINER,
        code_version=DPO_CODE,
        deps=[upstream(source) for source in sources],
        description=f"{start} after one round of L_NTP + lambda * a preference loss (IPA's by "
        "default) against itself, frozen; or that checkpoint itself, when the round does not pass "
        "its gate on the validation day.",
    )
    def dpo_checkpoint(
        context: dg.AssetExecutionContext,
        config: AlignmentLaunchpad,
        artifacts: Artifacts,
        compute: Compute,
    ) -> dg.MaterializeResult:
        from onerec.alignment.preferences import load_preferences
        from onerec.alignment.train import fit_alignment
        from onerec.model import load_model
        from onerec.tokenizer.semantic_ids import load_semantic_ids

        day, settings = context.partition_key, to_core(config, AlignmentConfig)
        read = {source: artifacts.store.latest(source, day) for source in sources}
        ids = load_semantic_ids(read["semantic_ids"].path)
        model, generation = load_model(read[start].path, expected_generation=ids.generation)
        shape = {"history_length": model.history_length, "session_items": model.session_items}
        with artifacts.store.write(
            name,
            day,
            config=asdict(settings),
            upstream={source: a.version for source, a in read.items()},
            code_version=DPO_CODE,
            seed=settings.seed,
        ) as draft:
            report = fit_alignment(
                model,
                load_preferences(read[pairs_name].path, ids, **shape),
                _good_sessions(read["session_dataset"], "train", ids, shape),
                _good_sessions(read["session_dataset"], "valid", ids, shape),
                ids.codes,
                settings,
                draft.path,
                generation=generation,
                runtime=training_runtime(compute, one_device=True),
                on_epoch=lambda numbers: context.log.info(f"{name}: {numbers}"),
            )
            decision = _gate(
                context, read, start, draft.path, (model, report.model), ids, settings, compute
            )
        learned = _training_metadata(report.steps, report.epochs)
        return published(draft.artifact, {**_round_metadata(decision), **learned})

    return dpo_checkpoint


def _generate(
    context: dg.AssetExecutionContext,
    read: "dict[str, Artifact]",
    start: str,
    generation: GenerationConfig,
    alignment: AlignmentConfig,
    compute: Compute,
) -> "tuple[Preferences, SemanticIds]":
    from safetensors.torch import load_file

    from onerec.alignment.candidates import sample_contexts
    from onerec.alignment.feedback import feedback_pairs
    from onerec.alignment.preferences import make_preferences
    from onerec.datasets.session_tensors import load_reward_blocks
    from onerec.generation import Trie
    from onerec.model import load_model
    from onerec.reward import load_ensemble
    from onerec.tokenizer.semantic_ids import load_semantic_ids
    from onerec.training import reproducible

    ids = load_semantic_ids(read["semantic_ids"].path)
    model, _ = load_model(read[start].path, expected_generation=ids.generation)
    length, items = model.history_length, model.session_items
    data, judges = read["session_dataset"].path, load_ensemble(read["reward_model"].path)
    allowed, reward = shown_before(ids, context.partition_key), judges[0].config
    options = {"generation": generation, "reward": reward, "device": _device(compute)}
    with reproducible(training_runtime(compute, one_device=True)):
        if alignment.pairs == "feedback":
            blocks = load_reward_blocks(
                data, "train", ids, history_length=length, block_items=items
            )
            sample = {"num_users": alignment.sample_users, "seed": alignment.seed}
            return feedback_pairs(model, blocks, ids.codes, allowed, **sample, **options), ids
        shape = {"history_length": length, "session_items": items}
        sessions = _good_sessions(read["session_dataset"], "train", ids, shape)
        made = make_preferences(
            model,
            judges,
            load_file(read["semantic_ids"].path / "vectors.safetensors")["vectors"],
            sample_contexts(sessions, alignment.sample_users, alignment.seed),
            ids.codes,
            Trie.build(ids.codes, ids.codebook_size, allowed),
            alignment=alignment,
            on_batch=lambda done, total: context.log.info(f"sessions of {done} of {total} users"),
            **options,
        )
    return made, ids


def _gate(
    context: dg.AssetExecutionContext,
    read: "dict[str, Artifact]",
    start: str,
    out_dir: "Path",
    models: "tuple[OneRec, OneRec]",
    ids: "SemanticIds",
    settings: AlignmentConfig,
    compute: Compute,
) -> "RoundDecision":
    """Measure the round and its start; a refused round leaves the start's weights in `out_dir`."""
    from safetensors.torch import load_file

    from onerec.alignment.gate import gate_round
    from onerec.generation import Trie
    from onerec.reward import check_judge, load_reward
    from onerec.training import reproducible

    check_judge(read["evaluator_model"].path, read["reward_model"].path)
    judge, model = load_reward(read["evaluator_model"].path), models[0]
    shape = {"history_length": model.history_length, "session_items": model.session_items}
    allowed = shown_before(ids, context.partition_key)
    with reproducible(training_runtime(compute, one_device=True)):
        decision = gate_round(
            *models,
            judge,
            load_file(read["semantic_ids"].path / "vectors.safetensors")["vectors"],
            _good_sessions(read["session_dataset"], "valid", ids, shape),
            ids.codes,
            Trie.build(ids.codes, ids.codebook_size, allowed),
            start_files=read[start].path,
            out_dir=out_dir,
            alignment=settings,
            generation=STAGES.generation,
            evaluation=STAGES.evaluation,
            reward=judge.config,
            device=_device(compute),
        )
    for reason in decision.reasons:
        context.log.warning(f"round refused, {start} stands: {reason}")
    return decision


def _round_metadata(decision: "RoundDecision") -> dict[str, Any]:
    reasons = "\n".join(f"- {reason}" for reason in decision.reasons) or "none"
    return {
        "published": decision.published,
        "reasons": dg.MetadataValue.md(reasons),
        **{f"validation day: {name}": value for name, value in decision.numbers.items()},
    }


def _good_sessions(data: "Artifact", split: str, ids: "SemanticIds", shape: dict[str, int]) -> Any:
    from onerec.datasets.session_tensors import load_session_tensors

    return load_session_tensors(data.path, split, ids, good_only=True, **shape)


def _device(compute: Compute) -> str:
    import torch

    return "cuda" if compute.accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def _pairs_metadata(pairs: "Preferences") -> dict[str, Any]:
    from onerec.pictures import histogram, svg_markdown

    best, worst = (pairs.rewards.amax(1), pairs.rewards.amin(1)) if len(pairs) else ([], [])
    rewards = {"best": list(map(float, best)), "worst": list(map(float, worst))}
    picture = histogram(rewards, "Reward of the best and the worst session", "reward", "users")
    numbers = {k: v for k, v in pairs.stats.items() if isinstance(v, int | float)}
    return {"rewards": dg.MetadataValue.md(svg_markdown(picture)), **numbers}


def _training_metadata(
    steps: list[dict[str, float]], epochs: list[dict[str, float]]
) -> dict[str, Any]:
    from onerec.pictures import line_chart, svg_markdown

    def chart(title: str, y_label: str, *names: str) -> dg.MetadataValue:
        series = {name.replace("_", " "): [s[name] for s in steps] for name in names}
        return dg.MetadataValue.md(svg_markdown(line_chart(series, title, "step", y_label)))

    return {
        "losses": chart("Losses", "nats", "ntp_loss", "preference_loss"),
        "log-probabilities": chart("Of a pair's sessions", "nats", "chosen_logp", "rejected_logp"),
        "margins": chart("Margin and accuracy", "", "margin", "accuracy"),
        "reward spread": chart("Within a pair or group", "", "reward_spread", "zero_spread_share"),
        "steps": len(steps),
        **{f"held out: {k}": v for k, v in epochs[-1].items() if k != "epoch"},
    }


PAIRS = [pairs_of_round(n) for n in range(1, ROUNDS + 1)]
CHECKPOINTS = [checkpoint_of_round(n) for n in range(1, ROUNDS + 1)]
ROUND_ASSETS = [*PAIRS, *CHECKPOINTS]
ROUND_CHECKS = [*map(checks_of_pairs, PAIRS), *map(checks_of_checkpoint, CHECKPOINTS)]
