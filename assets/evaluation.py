"""Baselines, offline metrics with intervals, and the promotion decision."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pydantic

from assets.code_version import code_version
from assets.support import (
    CORRECTABLE,
    DAILY,
    DAY_BY_DAY,
    PIPELINE,
    POOL_TRAINER,
    all_but,
    launchpad,
    published,
    table_of,
    to_core,
    upstream,
)
from onerec.artifacts import Artifact, ArtifactStore
from onerec.config import (
    BASELINES,
    CHALLENGER,
    CHALLENGER_SERVES,
    PRETRAINED,
    SERVED,
    BeamConfig,
    EvaluationConfig,
    RewardConfig,
)
from resources.stores import Artifacts, Compute

if TYPE_CHECKING:
    from onerec.evaluation.data import EvaluationData
    from onerec.evaluation.metric_table import MetricTable
    from onerec.evaluation.promotion import Decision
    from onerec.evaluation.systems import NightlyGenerators

EVALUATED_WITH = (
    "session_dataset",
    "semantic_ids",
    "baselines",
    "evaluator_model",
    "reward_model",
)
CHECKPOINTS = {PRETRAINED: "pretrained_checkpoint", CHALLENGER: "dpo_checkpoint"}
"""Name in metrics -> asset."""
BEATS_SIMPLE = "beats_best_simple_system"
DECIDED_FROM = (
    "offline_metrics", CHECKPOINTS[CHALLENGER], "semantic_ids", "reward_model", "baselines",
)  # fmt: skip
"""What the champion is decided from and made of."""
BASELINE_SETTINGS = (
    "baselines", "baseline_epochs", "baseline_width", "baseline_trials", "baseline_last_phase",
    "neighbours", "seed",
)  # fmt: skip
"""Settings of the evaluation stage that decide what the baselines are."""
LAST_PHASE_SETTINGS = ("fresh_days", "fresh_epochs", "fresh_learning_rate")
METRIC_SETTINGS = ("baselines", "cutoffs", "bootstrap_samples", "confidence", "max_cases", "seed")
"""Settings of the evaluation stage that decide what is measured of them and of the generators."""
SKIPPED = "metrics were skipped: nobody watched a candidate on the test day"
BASELINES_CODE = code_version(__name__, "baselines")
METRICS_CODE = code_version(__name__, "offline_metrics")
CHAMPION_CODE = code_version(__name__, "champion")


class LastPhase(launchpad(PIPELINE.training, *LAST_PHASE_SETTINGS)):
    """The last phase of a generator's training, which sequence baselines share."""


class BaselinesLaunchpad(launchpad(PIPELINE.evaluation, *BASELINE_SETTINGS)):
    """Which baselines, and how they are fitted."""

    training: LastPhase = LastPhase()


class EvaluationDecoding(launchpad(PIPELINE.decoding, *all_but(PIPELINE.decoding, "candidates"))):
    """How generators are decoded; the champion serves in the same way."""


class MetricsLaunchpad(launchpad(PIPELINE.evaluation, *METRIC_SETTINGS)):
    """Which systems, on which cases, with which intervals."""

    decoding: EvaluationDecoding = EvaluationDecoding()


class DecidedByHand(dg.Config):
    """Set by a run of `decide_champion`: an operator decides instead of the rule."""

    serve: str = pydantic.Field(
        default="",
        description="'challenger', or the day whose champion serves again; empty: the rule decides",
    )
    reason: str = pydantic.Field(default="", description="Why")


class PromotionLaunchpad(launchpad(PIPELINE.evaluation, "recall_tolerance")):
    """The promotion rule."""

    by_hand: DecidedByHand = DecidedByHand()


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="evaluation",
    kinds={"scipy", "parquet"},
    pool=POOL_TRAINER,
    code_version=BASELINES_CODE,
    deps=[CORRECTABLE, upstream("session_dataset"), upstream("semantic_ids")],
)
def baselines(
    context: dg.AssetExecutionContext,
    config: BaselinesLaunchpad,
    artifacts: Artifacts,
    compute: Compute,
) -> dg.MaterializeResult:
    """Popularity, item-KNN and what else the settings name, fitted on the window [D - W, D - 1];
    nothing of day D."""
    from onerec.evaluation.baselines import BaselineInputs, fit_baselines, fit_learned
    from onerec.pictures import histogram, svg_markdown
    from onerec.session_dataset.interactions import load_interactions
    from onerec.session_dataset.reader import read_session_config
    from onerec.tokenizer.tokenized_catalogue import load_tokenized

    day, settings = context.partition_key, to_core(config, PIPELINE.evaluation)
    phase = to_core(config.training, PIPELINE.training)
    read = {n: artifacts.store.latest(n, day) for n in ("session_dataset", "semantic_ids")}
    tokenized, test_day = load_tokenized(read["semantic_ids"].path), date.fromisoformat(day)
    inputs = BaselineInputs(
        session_dataset=read["session_dataset"].path,
        semantic_ids=tokenized.ids,
        candidates=tokenized.ids.candidates(test_day),
        test_day=test_day,
        history_length=read_session_config(read["session_dataset"].path).history_length,
        vectors=tokenized.vectors,
        last_phase=phase if settings.baseline_last_phase else None,
        runtime=compute.runtime(),
    )
    window = load_interactions(inputs.session_dataset, inputs.semantic_ids, test_day=test_day)
    counted = fit_baselines(window, inputs.candidates, neighbours=settings.neighbours)
    seconds: dict[str, float] = {}
    learned = fit_learned(
        inputs,
        settings,
        on_progress=context.log.info,
        on_fitted=lambda name, spent: seconds.update({f"seconds of {name}": spent}),
    )
    fitted = replace(counted, learned=learned)
    with artifacts.store.write(
        "baselines",
        day,
        config={name: getattr(settings, name) for name in BASELINE_SETTINGS}
        | {"training": {name: getattr(phase, name) for name in LAST_PHASE_SETTINGS}},
        upstream={name: a.version for name, a in read.items()},
        code_version=BASELINES_CODE,
    ) as draft:
        fitted.save(draft.path)
        draft.row_counts["rows"] = int(fitted.candidates.sum())
    shown = histogram(
        fitted.exposures.tolist(), "How often an item was shown", "exposures", "items"
    )
    picture = dg.MetadataValue.md(svg_markdown(shown))
    facts = {"exposures per item": picture, **fitted.facts(), **seconds}
    return published(draft.artifact, facts)


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="evaluation",
    kinds={"pytorch", "parquet"},
    code_version=METRICS_CODE,
    deps=[
        CORRECTABLE,
        *(upstream(name) for name in (*EVALUATED_WITH, *CHECKPOINTS.values())),
        # The champion before is read, too. Dagster knows no dependency that comes back to an asset
        # by way of another one; but that champion was decided from the metrics of its own day.
        upstream("offline_metrics", first=-1, last=-1),
    ],
)
def offline_metrics(
    context: dg.AssetExecutionContext,
    config: MetricsLaunchpad,
    artifacts: Artifacts,
    compute: Compute,
) -> dg.MaterializeResult:
    """Every system on the cases of day D, the champion before among them, with intervals."""
    from onerec.evaluation.champion import previous_champion
    from onerec.evaluation.measure import evaluate, reward_aucs, summarise
    from onerec.evaluation.metric_table import MetricTable, write_case_metrics
    from onerec.evaluation.protocol import EvaluationProtocol
    from onerec.evaluation.systems import nightly_systems
    from onerec.session_dataset.repeats import with_seen_items

    day, store = context.partition_key, artifacts.store
    settings = to_core(config, PIPELINE.evaluation)
    read = {n: store.latest(n, day) for n in (*EVALUATED_WITH, *CHECKPOINTS.values())}
    incumbent = previous_champion(store, day)
    if incumbent is not None:
        read["champion"] = incumbent
    data = _evaluation_data(day, read, settings)
    decoding = to_core(config.decoding, PIPELINE.decoding)
    decoding = with_seen_items(decoding, read["session_dataset"].path)
    results, metrics = {}, MetricTable(tuple(reward_aucs(read["reward_model"].path)))
    if len(data.user_ids):
        device = compute.torch_device()
        systems = nightly_systems(data, _generators(read), decoding, device=device)
        results = evaluate(data, systems, on_progress=context.log.info)
        metrics = MetricTable((*summarise(data, results).rows, *metrics.rows))
    with store.write(
        "offline_metrics",
        day,
        config=asdict(settings) | {"decoding": asdict(decoding)},
        upstream={name: artifact.version for name, artifact in read.items()},
        code_version=METRICS_CODE,
        seed=settings.seed,
    ) as draft:
        metrics.save(draft.path)
        EvaluationProtocol.of(data).save(draft.path)
        by_user = {name: result.values for name, result in results.items()}
        draft.row_counts["case values"] = write_case_metrics(draft.path, data.user_ids, by_user)
        draft.row_counts["rows"] = len(metrics.rows)
    if not results:
        return published(draft.artifact, {"metrics": SKIPPED, "users": 0})
    return published(draft.artifact, _shown(metrics, day) | _plotted(metrics, len(data.user_ids)))


def _generators(read: dict[str, Artifact]) -> "NightlyGenerators":
    from onerec.evaluation.systems import NightlyGenerators

    return NightlyGenerators(
        pretrained=read[CHECKPOINTS[PRETRAINED]].path,
        challenger=read[CHECKPOINTS[CHALLENGER]].path,
        champion=read["champion"].path if "champion" in read else None,
    )


def _shown(metrics: "MetricTable", day: str) -> dict[str, dg.MetadataValue]:
    """The table and the pictures of the metrics."""
    from onerec.pictures import svg_markdown
    from onerec.report import HEADLINES, headline_rows, systems
    from onerec.report_pictures import metric_pictures

    columns = ["system", *HEADLINES.values()]
    rows = [dict(zip(columns, row, strict=True)) for row in headline_rows(metrics)]
    pictures = metric_pictures(metrics, systems(metrics), day)
    return {
        "metrics": table_of(rows),
        **{name: dg.MetadataValue.md(svg_markdown(svg)) for name, svg in pictures.items()},
    }


def _plotted(metrics: "MetricTable", users: int) -> dict[str, float]:
    """Numbers that Dagster plots over partitions."""
    wanted = [
        (system, metric)
        for system in (*CHECKPOINTS, *SERVED)
        for metric in ("recall@10", "ndcg@10", "evaluator_reward")
    ]
    wanted += [(name, "recall@10") for name in BASELINES if name != "popularity_recent"]
    found = {f"{s}_{m}": metrics.find(s, m).mean for s, m in wanted}
    found["legal_share"] = metrics.lowest("legal_share")
    return {name: value for name, value in found.items() if value == value} | {"users": users}


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "every_id_is_legal",
            asset=offline_metrics,
            blocking=True,
            description="Every generated item is a candidate with tokens of its own.",
        ),
        dg.AssetCheckSpec(
            "sessions_are_repeat_free",
            asset=offline_metrics,
            blocking=True,
            description="No generated session repeats an item.",
        ),
        dg.AssetCheckSpec(
            BEATS_SIMPLE,
            asset=offline_metrics,
            description="The challenger's Recall@10 is above that of the best simple system: the "
            "95 % CI excludes 0. Otherwise it is refused.",
        ),
    ]
)
def offline_metrics_checks(
    context: dg.AssetCheckExecutionContext, artifacts: Artifacts
) -> Iterator[dg.AssetCheckResult]:
    """What a generator must never do, and what it should do."""
    from onerec.evaluation.champion import filters_seen
    from onerec.evaluation.metric_table import MetricTable

    measured = artifacts.store.latest("offline_metrics", context.partition_key)
    yield from check_metrics(MetricTable.load(measured.path), filter_seen=filters_seen(measured))


def check_metrics(
    metrics: "MetricTable", *, filter_seen: bool = True
) -> Iterator[dg.AssetCheckResult]:
    """The checks, as a function of the metrics."""
    from onerec.evaluation.champion import best_simple_system
    from onerec.evaluation.measure import nothing_measured

    if nothing_measured(metrics):
        for name in ("every_id_is_legal", "sessions_are_repeat_free", BEATS_SIMPLE):
            yield dg.AssetCheckResult(
                passed=True, check_name=name, asset_key="offline_metrics", description=SKIPPED
            )
        return
    for name, metric in (
        ("every_id_is_legal", "legal_share"),
        ("sessions_are_repeat_free", "repeat_free_share"),
    ):
        share = metrics.lowest(metric)
        yield dg.AssetCheckResult(
            passed=share == 1,
            check_name=name,
            asset_key="offline_metrics",
            metadata={"share": share},
        )
    simple = best_simple_system(metrics, filter_seen=filter_seen)
    gain = metrics.find(CHALLENGER, "recall@10", reference=simple)
    yield dg.AssetCheckResult(
        passed=gain.low > 0,
        check_name=BEATS_SIMPLE,
        asset_key="offline_metrics",
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Recall@10 minus {simple}'s: {gain.text(signed=True)}",
        metadata={
            "Recall@10": metrics.find(CHALLENGER, "recall@10").mean,
            "best simple system": simple,
            "its Recall@10": metrics.find(simple, "recall@10").mean,
            "lower confidence bound of the difference": gain.low,
        },
    )


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="evaluation",
    kinds={"pytorch"},
    code_version=CHAMPION_CODE,
    deps=[
        CORRECTABLE,
        *(upstream(name) for name in DECIDED_FROM),
        upstream("champion", first=-1, last=-1),
    ],
)
def champion(
    context: dg.AssetExecutionContext, config: PromotionLaunchpad, artifacts: Artifacts
) -> dg.MaterializeResult:
    """What serves: the challenger if every gate passes, else the champion before it, else the
    night's best simple system.

    Decided from the table of `offline_metrics` alone; a refused challenger is a success of the
    run. `champion.json` holds the decision with its numbers; beside it lies the champion's complete
    bundle for `onerec.serving.load_bundle`.
    """
    from onerec.evaluation.champion import (
        check_incumbent,
        describe,
        previous_champion,
        reward_chooses,
    )
    from onerec.evaluation.measure import nothing_measured
    from onerec.evaluation.metric_table import MetricTable
    from onerec.evaluation.promotion import unmeasured

    day, settings = context.partition_key, to_core(config, PIPELINE.evaluation)
    store = artifacts.store
    read = {name: store.latest(name, day) for name in DECIDED_FROM}
    incumbent = previous_champion(store, day)
    metrics, tolerance = MetricTable.load(read["offline_metrics"].path), settings.recall_tolerance
    check_incumbent(read["offline_metrics"], incumbent)
    if nothing_measured(metrics):
        decision = unmeasured(has_incumbent=incumbent is not None)
    else:
        decision = _decide(metrics, read, tolerance)
    description = describe(decision, read[CHECKPOINTS[CHALLENGER]], incumbent, read["baselines"])
    description["reward_chooses"] = reward_chooses(metrics, tolerance=tolerance)
    description, kept = _overruled(store, config.by_hand, description, incumbent)
    versions = {name: artifact.version for name, artifact in read.items()}
    if incumbent is not None:
        versions["champion"] = incumbent.version
    with store.write(
        "champion", day, config=asdict(settings), upstream=versions, code_version=CHAMPION_CODE
    ) as draft:
        _write_champion(draft.path, description, read, kept)
    return published(draft.artifact, _decision_metadata(description))


def _decide(metrics: "MetricTable", read: dict[str, Artifact], tolerance: float) -> "Decision":
    from onerec.evaluation.champion import (
        counted_signals,
        evidence_of,
        filters_seen,
        weak_towers,
    )
    from onerec.evaluation.promotion import decide

    rewards = (read["reward_model"].path, _reward_config(read))
    evidence = evidence_of(
        metrics,
        tolerance=tolerance,
        weak_towers=weak_towers(*rewards),
        signals=counted_signals(*rewards),
        filter_seen=filters_seen(read["offline_metrics"]),
    )
    return decide(evidence)


def _overruled(
    store: ArtifactStore,
    by_hand: DecidedByHand,
    description: dict[str, Any],
    incumbent: Artifact | None,
) -> tuple[dict[str, Any], Artifact | None]:
    """The decision after what an operator asked for, and the earlier champion that may stay."""
    from onerec.evaluation.champion import decided_by_hand, pinned_champion

    if by_hand.serve == CHALLENGER_SERVES:
        return decided_by_hand(description, earlier=None, reason=by_hand.reason), incumbent
    if by_hand.serve:
        earlier = store.latest("champion", by_hand.serve)
        return decided_by_hand(description, earlier=earlier, reason=by_hand.reason), earlier
    pinned = pinned_champion(store)
    if pinned is not None:
        reason = f"pinned: {pinned[1]}"
        return decided_by_hand(description, earlier=pinned[0], reason=reason), pinned[0]
    return description, incumbent


def _write_champion(
    directory: Path,
    description: dict[str, Any],
    read: dict[str, Artifact],
    kept: Artifact | None,
) -> None:
    """The decision, and the bundle of what it leaves as champion."""
    from onerec.evaluation.champion import keep_bundle, write_decision
    from onerec.model.checkpoint import read_config
    from onerec.recommender import write_bundle
    from onerec.simple_recommender import write_simple_bundle

    challenger = read[CHECKPOINTS[CHALLENGER]].path
    decoding = BeamConfig(**read["offline_metrics"].manifest["config"]["decoding"])
    if description["serves"] == CHALLENGER_SERVES:
        write_bundle(
            directory,
            checkpoint=challenger,
            semantic_ids=read["semantic_ids"].path,
            reward=read["reward_model"].path if description["reward_chooses"] else None,
            config=decoding,
        )
    elif kept is not None and description["serves"] in ("incumbent", "earlier champion"):
        keep_bundle(directory, kept)
    else:
        write_simple_bundle(
            directory,
            system=description["simple_system"],
            baselines=read["baselines"].path,
            semantic_ids=read["semantic_ids"].path,
            history_length=read_config(challenger)["history_length"],
            config=decoding,
        )
    write_decision(directory, description)


def _decision_metadata(description: dict[str, Any]) -> dict[str, Any]:
    chosen_by = "reward" if description["reward_chooses"] else "probability"
    return {
        "promoted": description["promoted"],
        "serves": description["serves"],
        "decided by": description.get("by_hand", "the promotion rule"),
        "best simple system": description["simple_system"],
        "challenger's lists are chosen by": chosen_by,
        "reasons": dg.MetadataValue.json(description["reasons"]),
        "warnings": dg.MetadataValue.json(description["warnings"]),
        "gates": dg.MetadataValue.json(description["gates"]),
        "numbers": dg.MetadataValue.json(description["numbers"]),
        "champion": dg.MetadataValue.json(description["model"]),
    }


def _evaluation_data(
    day: str, read: dict[str, Artifact], settings: EvaluationConfig
) -> "EvaluationData":
    from onerec.evaluation.data import EvaluationFiles, load_evaluation_data

    files = EvaluationFiles(
        session_dataset=read["session_dataset"].path,
        semantic_ids=read["semantic_ids"].path,
        baselines=read["baselines"].path,
        checkpoint=read[CHECKPOINTS[CHALLENGER]].path,
        evaluator=read["evaluator_model"].path,
        reward_model=read["reward_model"].path,
    )
    return load_evaluation_data(files, date.fromisoformat(day), settings, _reward_config(read))


def _reward_config(read: dict[str, Artifact]) -> RewardConfig:
    """What the night's reward model was trained with, the weights of the scalar reward too."""
    return RewardConfig(**read["reward_model"].manifest["config"])
