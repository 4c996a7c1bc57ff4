"""Offline metrics: every system on the cases of day D, with intervals."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.code_version import code_version
from assets.support import (
    CORRECTABLE,
    DAILY,
    DAY_BY_DAY,
    PIPELINE,
    all_but,
    launchpad,
    published,
    table_of,
    to_core,
    upstream,
)
from onerec.artifacts import Artifact
from onerec.config import (
    ALIGNED,
    BASELINES,
    PRETRAINED,
    SERVED,
    BeamConfig,
    EvaluationConfig,
    RewardConfig,
)
from resources.stores import Artifacts, Compute

if TYPE_CHECKING:
    from onerec.evaluation.metric_table import MetricTable
    from onerec.evaluation.sharded_ranking import NightlyEvaluation

EVALUATED_WITH = (
    "session_dataset",
    "semantic_ids",
    "baselines",
    "evaluator_model",
    "reward_model",
)
CHECKPOINTS = {PRETRAINED: "pretrained_checkpoint", ALIGNED: "dpo_checkpoint"}
"""Name in metrics -> asset."""
BEATS_SIMPLE = "beats_best_simple_system"
METRIC_SETTINGS = ("baselines", "cutoffs", "bootstrap_samples", "confidence", "max_cases", "seed")
"""Settings of the evaluation stage that decide what is measured of them and of the generators."""
SKIPPED = "metrics were skipped: nobody watched a candidate on the test day"
CODE = code_version(__name__, "offline_metrics")


class EvaluationDecoding(launchpad(PIPELINE.decoding, *all_but(PIPELINE.decoding, "candidates"))):
    """How generators are decoded; the champion serves in the same way."""


class MetricsLaunchpad(launchpad(PIPELINE.evaluation, *METRIC_SETTINGS)):
    """Which systems, on which cases, with which intervals."""

    decoding: EvaluationDecoding = EvaluationDecoding()


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="evaluation",
    kinds={"pytorch", "parquet"},
    code_version=CODE,
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
    from onerec.evaluation.measure import evaluate, reward_aucs, summarise
    from onerec.evaluation.metric_table import MetricTable, write_case_metrics
    from onerec.evaluation.protocol import EvaluationProtocol
    from onerec.evaluation.sharded_ranking import ranked_by_shards
    from onerec.promotion.champion import previous_champion
    from onerec.session_dataset.repeats import with_seen_items

    day, store = context.partition_key, artifacts.store
    settings = to_core(config, PIPELINE.evaluation)
    read = {n: store.latest(n, day) for n in (*EVALUATED_WITH, *CHECKPOINTS.values())}
    incumbent = previous_champion(store, day)
    read |= {} if incumbent is None else {"champion": incumbent}
    decoding = to_core(config.decoding, PIPELINE.decoding)
    decoding = with_seen_items(decoding, read["session_dataset"].path)
    key = {
        "config": asdict(settings) | {"decoding": asdict(decoding)},
        "upstream": {name: artifact.version for name, artifact in read.items()},
        "code_version": CODE,
        "seed": settings.seed,
    }
    evaluation = nightly_evaluation(day, read, settings, decoding, compute.torch_device())
    data = evaluation.data()
    results, metrics = {}, MetricTable(tuple(reward_aucs(read["reward_model"].path)))
    if len(data.user_ids):
        systems = evaluation.systems(data)
        with compute.shard_pool(store, "offline_metrics", day, key, context.log.info) as pool:
            ranked = ranked_by_shards(evaluation, data, systems, pool)
        results = evaluate(data, systems, ranked=ranked, on_progress=context.log.info)
        metrics = MetricTable((*summarise(data, results).rows, *metrics.rows))
    with store.write("offline_metrics", day, **key) as draft:
        metrics.save(draft.path)
        EvaluationProtocol.of(data, filter_seen=decoding.filter_seen).save(draft.path)
        by_user = {name: result.values for name, result in results.items()}
        draft.row_counts["case values"] = write_case_metrics(draft.path, data.user_ids, by_user)
        draft.row_counts["rows"] = len(metrics.rows)
    if not results:
        return published(draft.artifact, {"metrics": SKIPPED, "users": 0})
    shown = _shown(metrics, day, read[CHECKPOINTS[ALIGNED]].path)
    return published(draft.artifact, shown | _plotted(metrics, len(data.user_ids)))


def _shown(metrics: "MetricTable", day: str, aligned: Path) -> dict[str, Any]:
    """The table and the pictures of the metrics; the aligned model only if it is another one."""
    from onerec.alignment.round_gate import refusal
    from onerec.report.nightly import HEADLINES, headline_rows, systems, without_aligned
    from onerec.report.nightly_pictures import metric_pictures
    from onerec.report.pictures import svg_markdown

    refused = refusal(aligned)
    metrics = without_aligned(metrics) if refused else metrics
    columns = ["system", *HEADLINES.values()]
    rows = [dict(zip(columns, row, strict=True)) for row in headline_rows(metrics)]
    pictures = metric_pictures(metrics, systems(metrics), day)
    return {
        "metrics": table_of(rows),
        **({"alignment round refused": refused} if refused else {}),
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
    """Generated sessions are legal and free of repeats; the challenger beats the simple systems."""
    from onerec.evaluation.metric_table import MetricTable
    from onerec.promotion.champion import filters_seen

    measured = artifacts.store.latest("offline_metrics", context.partition_key)
    yield from check_metrics(MetricTable.load(measured.path), filter_seen=filters_seen(measured))


def check_metrics(
    metrics: "MetricTable", *, filter_seen: bool = True
) -> Iterator[dg.AssetCheckResult]:
    """The checks, as a function of the metrics."""
    from onerec.evaluation.measure import nothing_measured
    from onerec.promotion.champion import best_simple_system, challenger_of

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
    challenger = challenger_of(metrics, PIPELINE.evaluation)
    gain = metrics.find(challenger.system, "recall@10", reference=simple)
    yield dg.AssetCheckResult(
        passed=gain.low > 0,
        check_name=BEATS_SIMPLE,
        asset_key="offline_metrics",
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Recall@10 of {challenger.system} minus {simple}'s: {gain.text(signed=True)}",
        metadata={
            "challenger": challenger.reason,
            "Recall@10": metrics.find(challenger.system, "recall@10").mean,
            "best simple system": simple,
            "its Recall@10": metrics.find(simple, "recall@10").mean,
            "lower confidence bound of the difference": gain.low,
        },
    )


def nightly_evaluation(
    day: str,
    read: dict[str, Artifact],
    settings: EvaluationConfig,
    decoding: BeamConfig,
    device: str,
) -> "NightlyEvaluation":
    """The cases of day D and the systems of a nightly run, from its artifacts; the champion before
    is one of them where it is read."""
    from onerec.evaluation.data import EvaluationFiles
    from onerec.evaluation.sharded_ranking import NightlyEvaluation
    from onerec.evaluation.systems import NightlyGenerators

    return NightlyEvaluation(
        files=EvaluationFiles(
            session_dataset=read["session_dataset"].path,
            semantic_ids=read["semantic_ids"].path,
            baselines=read["baselines"].path,
            checkpoint=read[CHECKPOINTS[ALIGNED]].path,
            evaluator=read["evaluator_model"].path,
            reward_model=read["reward_model"].path,
        ),
        generators=NightlyGenerators(
            pretrained=read[CHECKPOINTS[PRETRAINED]].path,
            aligned=read[CHECKPOINTS[ALIGNED]].path,
            champion=read["champion"].path if "champion" in read else None,
        ),
        test_day=date.fromisoformat(day),
        config=settings,
        reward=RewardConfig(**read["reward_model"].manifest["config"]),
        decoding=decoding,
        device=device,
    )
