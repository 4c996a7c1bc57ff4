"""Preference alignment, round by round: pairs from the model's own beams, then DPO beside L_NTP.

The rounds of `STAGES.alignment.rounds` are unrolled into the graph. The last one has the plain
names, which everything downstream reads; earlier ones end in `_round_1`, `_round_2`, ...
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg
import pydantic

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
    from onerec.alignment.pairs import PreferencePairs
    from onerec.artifacts import Artifact
    from onerec.tokenizer.semantic_ids import SemanticIds

ROUNDS = STAGES.alignment.rounds
PAIRS_CODE = code_version("alignment", "generation", "model", "reward", "datasets/session_tensors")
DPO_CODE = code_version("alignment", "model", "training", "datasets/session_tensors")


class PairsLaunchpad(launchpad(STAGES.generation)):
    """Beam search for the candidates, and whose sessions are generated."""

    sample_users: int = pydantic.Field(
        default=STAGES.alignment.sample_users,
        description="Users for whom sessions are generated per round",
    )
    seed: int = pydantic.Field(
        default=STAGES.alignment.seed,
        description="Seed of the sample; each round adds its number",
    )


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
        from onerec.alignment.pairs import save_pairs

        values = config.model_dump()
        sample = {"sample_users": values.pop("sample_users"), "seed": values.pop("seed") + number}
        generation, day = GenerationConfig(**values), context.partition_key
        read = {source: artifacts.store.latest(source, day) for source in sources}
        pairs, ids = _generate(context, read, start, generation, sample, compute)
        with artifacts.store.write(
            name,
            day,
            config={"generation": asdict(generation), **sample},
            upstream={source: a.version for source, a in read.items()},
            code_version=PAIRS_CODE,
            seed=sample["seed"],
        ) as draft:
            save_pairs(pairs, ids.item_ids, draft.path)
            draft.row_counts["rows"] = len(pairs)
        return published(draft.artifact, _pairs_metadata(pairs))

    return preference_pairs


def checkpoint_of_round(number: int) -> dg.AssetsDefinition:
    """The asset that trains on a round's pairs."""
    name, start = round_name("dpo_checkpoint", number), round_name("dpo_checkpoint", number - 1)
    pairs_name = round_name("preference_pairs", number)
    sources = (pairs_name, start, "semantic_ids", "session_dataset")

    @dg.asset(
        name=name,
        partitions_def=DAILY,
        backfill_policy=DAY_BY_DAY,
        group_name="alignment",
        kinds={"pytorch"},
        pool=POOL_TRAINER,
        code_version=DPO_CODE,
        deps=[upstream(source) for source in sources],
        description=f"{start} after one round of L_NTP + lambda * L_DPO against itself, frozen.",
    )
    def dpo_checkpoint(
        context: dg.AssetExecutionContext,
        config: AlignmentLaunchpad,
        artifacts: Artifacts,
        compute: Compute,
    ) -> dg.MaterializeResult:
        from onerec.alignment.pairs import load_pairs
        from onerec.alignment.train import fit_dpo
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
            report = fit_dpo(
                model,
                load_pairs(read[pairs_name].path, ids, **shape),
                _good_sessions(read["session_dataset"], "train", ids, shape),
                _good_sessions(read["session_dataset"], "valid", ids, shape),
                ids.codes,
                settings,
                draft.path,
                generation=generation,
                runtime=training_runtime(compute),
                on_epoch=lambda numbers: context.log.info(f"{name}: {numbers}"),
            )
        return published(draft.artifact, _training_metadata(report.steps, report.epochs))

    return dpo_checkpoint


def checks_of_pairs(asset: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    """What must hold before anything trains on the pairs."""
    name = asset.key.to_user_string()

    @dg.multi_asset_check(
        name=f"{name}_checks",
        specs=[
            dg.AssetCheckSpec(
                "chosen_reward_above_rejected",
                asset=asset,
                blocking=True,
                description="There are pairs, and in each the chosen session has more reward.",
            ),
            dg.AssetCheckSpec(
                "legal_pairs",
                asset=asset,
                blocking=True,
                description="Sessions are complete, without repeats, of items seen before day D.",
            ),
        ],
    )
    def checks(
        context: dg.AssetCheckExecutionContext, artifacts: Artifacts
    ) -> Iterator[dg.AssetCheckResult]:
        from onerec.alignment.pairs import illegal_pairs, load_pairs
        from onerec.tokenizer.semantic_ids import load_semantic_ids

        day = context.partition_key
        ids = load_semantic_ids(artifacts.store.latest("semantic_ids", day).path)
        pairs = load_pairs(
            artifacts.store.latest(name, day).path,
            ids,
            history_length=STAGES.sessions.history_length,
            session_items=STAGES.sessions.session_items,
        )
        wrong = int((pairs.chosen_reward <= pairs.rejected_reward).sum())
        yield dg.AssetCheckResult(
            passed=len(pairs) > 0 and wrong == 0,
            check_name="chosen_reward_above_rejected",
            asset_key=asset.key,
            metadata={"pairs": len(pairs), "in the wrong order": wrong},
        )
        illegal = illegal_pairs(pairs, _shown_before(ids, day))
        yield dg.AssetCheckResult(
            passed=illegal == 0,
            check_name="legal_pairs",
            asset_key=asset.key,
            metadata={"illegal pairs": illegal},
        )

    return checks


def checks_of_checkpoint(asset: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    """What a round should have done."""
    name = asset.key.to_user_string()

    @dg.multi_asset_check(
        name=f"{name}_checks",
        specs=[
            dg.AssetCheckSpec(
                "dpo_margin_positive",
                asset=asset,
                description="On pairs held out, the chosen session gained on the rejected one.",
            ),
            dg.AssetCheckSpec(
                "chosen_not_displaced",
                asset=asset,
                description="The chosen sessions did not become less probable: DPO can push both "
                "of a pair down, in favour of sessions nobody scored.",
            ),
        ],
    )
    def checks(
        context: dg.AssetCheckExecutionContext, artifacts: Artifacts
    ) -> Iterator[dg.AssetCheckResult]:
        from onerec.artifacts import read_json

        file = artifacts.store.latest(name, context.partition_key).path / "history.json"
        last = read_json(file)["epochs"][-1]
        yield dg.AssetCheckResult(
            passed=last["margin"] > 0,
            check_name="dpo_margin_positive",
            asset_key=asset.key,
            metadata={"margin": last["margin"], "accuracy": last["accuracy"]},
        )
        yield dg.AssetCheckResult(
            passed=last["chosen_logp_change"] >= 0,
            check_name="chosen_not_displaced",
            asset_key=asset.key,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"change of the chosen log-probability": last["chosen_logp_change"]},
        )

    return checks


def _generate(
    context: dg.AssetExecutionContext,
    read: "dict[str, Artifact]",
    start: str,
    generation: GenerationConfig,
    sample: dict[str, int],
    compute: Compute,
) -> "tuple[PreferencePairs, SemanticIds]":
    from safetensors.torch import load_file

    from onerec.alignment.pairs import make_pairs, sample_contexts
    from onerec.generation import Trie
    from onerec.model import load_model
    from onerec.reward import load_reward
    from onerec.tokenizer.semantic_ids import load_semantic_ids
    from onerec.training import reproducible

    ids = load_semantic_ids(read["semantic_ids"].path)
    model, _ = load_model(read[start].path, expected_generation=ids.generation)
    shape = {"history_length": model.history_length, "session_items": model.session_items}
    sessions = _good_sessions(read["session_dataset"], "train", ids, shape)
    judge = load_reward(read["reward_model"].path)
    allowed = _shown_before(ids, context.partition_key)
    with reproducible(training_runtime(compute)):
        pairs = make_pairs(
            model,
            judge,
            load_file(read["semantic_ids"].path / "vectors.safetensors")["vectors"],
            sample_contexts(sessions, sample["sample_users"], sample["seed"]),
            ids.codes,
            Trie.build(ids.codes, ids.codebook_size, allowed),
            generation=generation,
            reward=judge.config,
            device=_device(compute),
            on_batch=lambda done, total: context.log.info(f"sessions of {done} of {total} users"),
        )
    return pairs, ids


def _good_sessions(data: "Artifact", split: str, ids: "SemanticIds", shape: dict[str, int]) -> Any:
    from onerec.datasets.session_tensors import load_session_tensors

    return load_session_tensors(data.path, split, ids, good_only=True, **shape)


def _shown_before(ids: "SemanticIds", day: str) -> Any:
    """(N,) bool: items that could be shown before the day, the only ones to generate."""
    import numpy as np
    import torch

    return torch.from_numpy(ids.first_seen < np.datetime64(day, "D"))


def _device(compute: Compute) -> str:
    import torch

    return "cuda" if compute.accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def _pairs_metadata(pairs: "PreferencePairs") -> dict[str, Any]:
    from onerec.pictures import histogram, svg_markdown

    rewards = {"best": pairs.chosen_reward.tolist(), "worst": pairs.rejected_reward.tolist()}
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
        "steps": len(steps),
        **{f"held out: {k}": v for k, v in epochs[-1].items() if k != "epoch"},
    }


PAIRS = [pairs_of_round(n) for n in range(1, ROUNDS + 1)]
CHECKPOINTS = [checkpoint_of_round(n) for n in range(1, ROUNDS + 1)]
ROUND_ASSETS = [*PAIRS, *CHECKPOINTS]
ROUND_CHECKS = [*map(checks_of_pairs, PAIRS), *map(checks_of_checkpoint, CHECKPOINTS)]
