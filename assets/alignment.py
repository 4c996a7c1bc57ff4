"""Preference alignment, round by round: pairs from the model's own beams, then IPA on them.

The rounds of `PIPELINE.alignment.rounds` are unrolled into the graph. The last one has the plain
names, which everything downstream reads; earlier ones end in `_round_1`, `_round_2`, ...
"""

import shutil
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.alignment_checks import checks_of_checkpoint, checks_of_pairs
from assets.code_version import code_version
from assets.support import (
    CORRECTABLE,
    DAILY,
    DAY_BY_DAY,
    PIPELINE,
    POOL_TRAINER,
    all_but,
    launchpad,
    listed,
    published,
    to_core,
    upstream,
)
from assets.training_process import run_training
from resources.stores import Artifacts, Compute

if TYPE_CHECKING:
    from onerec.alignment.job import AlignmentJob
    from onerec.alignment.preferences import Preferences
    from onerec.alignment.round_gate import RoundDecision
    from onerec.alignment.round_inputs import RoundInputs
    from onerec.alignment.train import AlignmentReport
    from onerec.artifacts import Artifact

READ_BY_A_ROUND = ("semantic_ids", "session_dataset", "evaluator_model", "reward_model")
"""What a round's training reads beside its pairs and its start."""
ROUNDS = PIPELINE.alignment.rounds
PAIRS_CODE = code_version(__name__, "pairs_of_round")
DPO_CODE = code_version(__name__, "checkpoint_of_round")

SAMPLED_WITH = (
    "sample_users",
    "seed",
    "method",
    "pairs",
    "group_size",
    "num_rejected",
    "temperature",
)
"""Settings of the alignment stage that say what is compared."""
LEARNED_WITH = all_but(
    PIPELINE.alignment,
    "rounds", "sample_users", "pairs", "group_size", "num_rejected", "temperature",
    "reward_weight_days",
)  # fmt: skip
"""Those that say how it is learned; `method` must be the same in both."""
DEPENDED_ON = all_but(PIPELINE.alignment, "reward_weight_days")
"""Those that a checkpoint depends on."""


class CandidateDecoding(launchpad(PIPELINE.decoding, "candidates", "batch_size", "filter_seen")):
    """Generation of the sessions that are compared."""


class PairsLaunchpad(launchpad(PIPELINE.alignment, *SAMPLED_WITH)):
    """Whose sessions are compared, and which. Each round adds its number to `seed`."""

    decoding: CandidateDecoding = CandidateDecoding()


class GateDecoding(launchpad(PIPELINE.decoding, "beam", "batch_size", "filter_seen")):
    """Beam search on the validation day."""


class GateIntervals(launchpad(PIPELINE.evaluation, "bootstrap_samples", "confidence", "seed")):
    """Intervals of the gates."""


class AlignmentLaunchpad(launchpad(PIPELINE.alignment, *LEARNED_WITH)):
    """Losses and optimiser of a round, and the gates that it must pass."""

    decoding: GateDecoding = GateDecoding()
    evaluation: GateIntervals = GateIntervals()


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
        deps=[CORRECTABLE, *map(upstream, sources)],
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
        from onerec.alignment.rounds import round_preferences, with_sample
        from onerec.session_dataset.repeats import with_seen_items

        day = context.partition_key
        read = {source: artifacts.store.latest(source, day) for source in sources}
        decoding = with_seen_items(
            to_core(config.decoding, PIPELINE.decoding), read["session_dataset"].path
        )
        alignment = with_sample(to_core(config, PIPELINE.alignment), number)
        compared = {name: getattr(alignment, name) for name in SAMPLED_WITH}
        inputs = _round_inputs(read, start, day)
        key = {
            "config": {"decoding": asdict(decoding), **compared},
            "upstream": {source: a.version for source, a in read.items()},
            "code_version": PAIRS_CODE,
            "seed": alignment.seed,
        }
        with compute.shard_pool(artifacts.store, name, day, key, context.log.info) as pool:
            pairs = round_preferences(
                inputs,
                decoding,
                alignment,
                runtime=compute.runtime().on_one_device(),
                pool=pool,
            )
        with artifacts.store.write(name, day, **key) as draft:
            save_preferences(pairs, inputs.ids.item_ids, draft.path)
            draft.row_counts["rows"] = len(pairs)
        return published(draft.artifact, _pairs_metadata(pairs))

    return preference_pairs


def checkpoint_of_round(number: int) -> dg.AssetsDefinition:
    """The asset that trains on a round's pairs."""
    name, start = round_name("dpo_checkpoint", number), round_name("dpo_checkpoint", number - 1)
    pairs_name = round_name("preference_pairs", number)
    sources = (pairs_name, start, *READ_BY_A_ROUND)

    @dg.asset(
        name=name,
        partitions_def=DAILY,
        backfill_policy=DAY_BY_DAY,
        group_name="alignment",
        kinds={"pytorch"},
        pool=POOL_TRAINER,
        code_version=DPO_CODE,
        deps=[CORRECTABLE, *map(upstream, sources)],
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
        from onerec.alignment.job import AlignmentJob
        from onerec.alignment.train import read_alignment_report

        day, settings = context.partition_key, to_core(config, PIPELINE.alignment)
        gate = config.model_dump(include={"decoding", "evaluation"})
        read = {source: artifacts.store.latest(source, day) for source in sources}
        key: dict[str, Any] = {
            "config": {n: getattr(settings, n) for n in DEPENDED_ON} | {"gate": gate},
            "upstream": {source: a.version for source, a in read.items()},
            "code_version": DPO_CODE,
        }
        scratch = artifacts.store.scratch(name, day, key)
        with artifacts.store.write(name, day, seed=settings.seed, **key) as draft:
            job = AlignmentJob(
                inputs=_round_inputs(read, start, day),
                preferences=read[pairs_name].path,
                alignment=settings,
                runtime=compute.runtime(),
            )
            run_training(context, job, out_dir=draft.path, scratch=scratch)
            report = read_alignment_report(draft.path, job.inputs.ids.tokenizer_version)
            decision = _check(job, report, read["evaluator_model"].path, draft.path, config)
            _set_reward_weight(job, draft.path, config)
        shutil.rmtree(scratch)
        _log(context, decision, start)
        learned = _training_metadata(report.steps, report.epochs)
        shown = _round_metadata(decision, draft.artifact.path)
        return published(draft.artifact, {**shown, **learned})

    return dpo_checkpoint


def _check(
    job: "AlignmentJob",
    report: "AlignmentReport",
    evaluator: Path,
    out_dir: Path,
    config: AlignmentLaunchpad,
) -> "RoundDecision":
    """Decide on the validation day whether a round is published, or its start instead."""
    from onerec.alignment.round_gate import apply_decision
    from onerec.alignment.rounds import check_round, load_round_preferences

    decision = check_round(
        job.inputs,
        load_round_preferences(job.inputs, job.preferences),
        evaluator,
        report.model,
        alignment=job.alignment,
        decoding=to_core(config.decoding, PIPELINE.decoding),
        evaluation=to_core(config.evaluation, PIPELINE.evaluation),
        runtime=job.runtime.on_one_device(),
    )
    apply_decision(decision, start=job.inputs.start, out_dir=out_dir)
    return decision


def _set_reward_weight(job: "AlignmentJob", checkpoint: Path, config: AlignmentLaunchpad) -> None:
    """Choose how much the reward counts in the lists of a round, until test days choose it."""
    from onerec.alignment.round_gate import REWARD_WEIGHT
    from onerec.alignment.rounds import set_reward_weight
    from onerec.artifacts import write_json
    from onerec.session_dataset.repeats import with_seen_items

    decoding = to_core(config.decoding, PIPELINE.decoding)
    measured = set_reward_weight(
        job.inputs,
        checkpoint,
        alignment=job.alignment,
        decoding=with_seen_items(decoding, job.inputs.session_dataset),
        runtime=job.runtime.on_one_device(),
    )
    write_json(checkpoint / REWARD_WEIGHT, measured.as_json()["ndcg"])


def _log(context: dg.AssetExecutionContext, decision: "RoundDecision", start: str) -> None:
    for finding in decision.findings:
        context.log.info(finding)
    for reason in decision.reasons:
        context.log.warning(f"round refused, {start} is kept: {reason}")


def _round_inputs(read: "dict[str, Artifact]", start: str, day: str) -> "RoundInputs":
    from onerec.alignment.round_inputs import RoundInputs

    return RoundInputs(
        session_dataset=read["session_dataset"].path,
        semantic_ids=read["semantic_ids"].path,
        start=read[start].path,
        reward_model=read["reward_model"].path,
        test_day=date.fromisoformat(day),
    )


def _round_metadata(decision: "RoundDecision", checkpoint: Path) -> dict[str, Any]:
    from onerec.alignment.round_gate import REWARD_WEIGHT
    from onerec.artifacts import read_json

    tried = dg.MetadataValue.json(read_json(checkpoint / REWARD_WEIGHT))
    return {
        "published": decision.published,
        "reasons": listed(decision.reasons),
        "findings": listed(decision.findings),
        **{f"validation day: {name}": value for name, value in decision.numbers.items()},
        "validation day: NDCG@10 by weight of the reward": tried,
    }


def _pairs_metadata(pairs: "Preferences") -> dict[str, Any]:
    from onerec.report.pictures import histogram, svg_markdown

    best, worst = (pairs.rewards.amax(1), pairs.rewards.amin(1)) if len(pairs) else ([], [])
    rewards = {"best": list(map(float, best)), "worst": list(map(float, worst))}
    picture = histogram(rewards, "Reward of the best and the worst session", "reward", "users")
    numbers = {k: v for k, v in pairs.stats.items() if isinstance(v, int | float)}
    return {"rewards": dg.MetadataValue.md(svg_markdown(picture)), **numbers}


def _training_metadata(
    steps: list[dict[str, float]], epochs: list[dict[str, float]]
) -> dict[str, Any]:
    from onerec.report.pictures import line_chart, svg_markdown

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
