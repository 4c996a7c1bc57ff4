"""Offline metrics: every system on the cases of day D, with intervals."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.code_version import code_version
from assets.nights_before import NightsBefore, as_metadata, nights_before, on_nights_before
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
from onerec.artifacts import Artifact, ArtifactStore
from onerec.config import (
    ALIGNED,
    BASELINES,
    PRETRAINED,
    SERVED,
    AlignmentConfig,
    BeamConfig,
    EvaluationConfig,
    RewardConfig,
)
from resources.stores import Artifacts, Compute

if TYPE_CHECKING:
    from onerec.artifacts import Draft
    from onerec.evaluation.data import EvaluationData
    from onerec.evaluation.measure import SystemResult
    from onerec.evaluation.metric_table import MetricTable
    from onerec.evaluation.ndcg_by_weight import NdcgByWeight
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
ALIGNED_WITH = (CHECKPOINTS[ALIGNED], "reward_model", "pretrained_checkpoint", "session_dataset")
"""What has to have had the same settings where earlier test days choose the weight of the reward.
"""
BEATS_SIMPLE = "beats_best_simple_system"
METRIC_SETTINGS = ("baselines", "cutoffs", "bootstrap_samples", "confidence", "max_cases", "seed")
"""Settings of the evaluation stage that decide what is measured of them and of the generators."""
REWARD_WEIGHT_SETTINGS = ("reward_weights", "reward_weight_days", "reward_ndcg_tolerance")
"""Settings of the alignment stage that choose the weight of the reward in served lists."""
SKIPPED = "metrics were skipped: nobody watched a candidate on the test day"
CODE = code_version(__name__, "offline_metrics")


class EvaluationDecoding(launchpad(PIPELINE.decoding, *all_but(PIPELINE.decoding, "candidates"))):
    """How generators are decoded; the champion serves in the same way."""


class ServedReward(launchpad(PIPELINE.alignment, *REWARD_WEIGHT_SETTINGS)):
    """How the weight of the reward in served lists is chosen."""


class MetricsLaunchpad(launchpad(PIPELINE.evaluation, *METRIC_SETTINGS)):
    """Which systems, on which cases, with which intervals."""

    decoding: EvaluationDecoding = EvaluationDecoding()
    alignment: ServedReward = ServedReward()


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="evaluation",
    kinds={"pytorch", "parquet"},
    code_version=CODE,
    deps=[
        CORRECTABLE,
        *(upstream(name) for name in (*EVALUATED_WITH, *CHECKPOINTS.values())),
        # Their test days choose the weight of the reward. The champion before is read, too. Dagster
        # knows no dependency that comes back to an asset by way of another one; but that champion
        # was decided from the metrics of its own day.
        *on_nights_before("offline_metrics", 1 + PIPELINE.alignment.reward_weight_days),
    ],
)
def offline_metrics(
    context: dg.AssetExecutionContext,
    config: MetricsLaunchpad,
    artifacts: Artifacts,
    compute: Compute,
) -> dg.MaterializeResult:
    """Every system on the cases of day D, the champion before among them, with intervals."""
    from onerec.evaluation.measure import evaluate
    from onerec.evaluation.ndcg_by_weight import NOT_MEASURED
    from onerec.evaluation.reward_weight import measured_on_test_day, weight_of_test_days
    from onerec.evaluation.sharded_ranking import ranked_by_shards
    from onerec.session_dataset.repeats import with_seen_items

    day, store = context.partition_key, artifacts.store
    settings = to_core(config, PIPELINE.evaluation)
    read = _read(store, day)
    sessions = read["session_dataset"].path
    decoding = with_seen_items(to_core(config.decoding, PIPELINE.decoding), sessions)
    alignment = to_core(config.alignment, PIPELINE.alignment)
    before = test_days_before(context, store, alignment, decoding)
    key = {
        "config": _measured_with(settings, decoding, alignment),
        "upstream": {name: artifact.version for name, artifact in read.items()} | before.upstream,
        "code_version": CODE,
        "seed": settings.seed,
    }
    own = _own_reward_weight(read[CHECKPOINTS[ALIGNED]])
    weight = weight_of_test_days(before.measured.get("reward", ()), alignment, without=own)
    evaluation = nightly_evaluation(day, read, settings, decoding, compute.torch_device(), weight)
    data, results, by_weight = evaluation.data(), {}, NOT_MEASURED
    if len(data.user_ids):
        systems = evaluation.systems(data)
        context.log.info("measures NDCG@10 of lists by weight of the reward")
        by_weight = measured_on_test_day(data, systems[ALIGNED], decoding, alignment)
        with compute.shard_pool(store, "offline_metrics", day, key, context.log.info) as pool:
            ranked = ranked_by_shards(evaluation, data, systems, pool)
        results = evaluate(data, systems, ranked=ranked, on_progress=context.log.info)
    with store.write("offline_metrics", day, **key) as draft:
        metrics = _write(draft, evaluation, data, results)
        draft.metadata |= {"reward_weight": weight, **as_metadata({"reward": by_weight})}
    if not results:
        return published(draft.artifact, {"metrics": SKIPPED, "users": 0})
    shown = _shown(metrics, day, evaluation.generators.aligned)
    shown |= _shown_weight(weight, by_weight, before)
    return published(draft.artifact, shown | _plotted(metrics, len(data.user_ids)))


def _read(store: ArtifactStore, day: str) -> dict[str, Artifact]:
    """What is read of the nightly run, and the champion before where there is one."""
    from onerec.promotion.champion import previous_champion

    read = {n: store.latest(n, day) for n in (*EVALUATED_WITH, *CHECKPOINTS.values())}
    incumbent = previous_champion(store, day)
    return read if incumbent is None else {**read, "champion": incumbent}


def test_days_before(
    context: dg.AssetExecutionContext,
    store: ArtifactStore,
    alignment: AlignmentConfig,
    decoding: BeamConfig,
) -> NightsBefore:
    """The nightly runs whose test days choose the weight of the reward."""
    found = nights_before(
        context,
        store,
        "offline_metrics",
        {"decoding": asdict(decoding)},
        alignment.reward_weight_days + 1,  # D's own is one of them
        beside=ALIGNED_WITH,
        apart_from=(*REWARD_WEIGHT_SETTINGS, "gate"),
    )
    tried = set(alignment.tried_reward_weights)
    measured = zip(found.artifacts, found.measured.get("reward", ()), strict=True)
    counted = [artifact for artifact, ndcg in measured if ndcg.ndcg.keys() == tried]
    if not counted:
        context.log.info("no test day before chooses the weight of the reward")
    return NightsBefore(counted)


def _measured_with(
    settings: EvaluationConfig, decoding: BeamConfig, alignment: AlignmentConfig
) -> dict[str, Any]:
    """Settings of the manifest, by stage but for those of the evaluation."""
    chosen_by = {name: getattr(alignment, name) for name in REWARD_WEIGHT_SETTINGS}
    return {**asdict(settings), "decoding": asdict(decoding), "alignment": chosen_by}


def evaluation_settings(metrics: Artifact) -> EvaluationConfig:
    """The settings of the evaluation stage that metrics were made with."""
    made_with, own = metrics.manifest["config"], all_but(PIPELINE.evaluation)
    return EvaluationConfig(**{name: made_with[name] for name in own if name in made_with})


def measured_reward_weight(metrics: Artifact, aligned: Artifact) -> float:
    """The weight of the reward in the lists that metrics measured."""
    measured = metrics.manifest["metadata"].get("reward_weight")  # an earlier version has none
    return _own_reward_weight(aligned) if measured is None else measured


def _own_reward_weight(aligned: Artifact) -> float:
    """The weight that the validation day of an aligned checkpoint chose."""
    from onerec.model import read_config

    return read_config(aligned.path).get("reward_weight", 0.0)


def _write(
    draft: "Draft",
    evaluation: "NightlyEvaluation",
    data: "EvaluationData",
    results: "Mapping[str, SystemResult]",
) -> "MetricTable":
    """Write the table, the protocol and the values of every case; the table."""
    from onerec.evaluation.measure import reward_aucs, summarise
    from onerec.evaluation.metric_table import MetricTable, write_case_metrics
    from onerec.evaluation.protocol import EvaluationProtocol

    rows = summarise(data, results).rows if results else ()
    metrics = MetricTable((*rows, *reward_aucs(evaluation.files.reward_model)))
    metrics.save(draft.path)
    EvaluationProtocol.of(data, filter_seen=evaluation.decoding.filter_seen).save(draft.path)
    by_user = {name: result.values for name, result in results.items()}
    draft.row_counts["case values"] = write_case_metrics(draft.path, data.user_ids, by_user)
    draft.row_counts["rows"] = len(metrics.rows)
    return metrics


def _shown_weight(weight: float, measured: "NdcgByWeight", before: NightsBefore) -> dict[str, Any]:
    """How much the reward counts in served lists, and what this test day tells the next runs."""
    ndcg = {str(tried): value for tried, value in measured.ndcg.items()}
    return {
        "weight of the reward": weight,
        "earlier test days that chose it": len(before.artifacts),
        "NDCG@10 by weight of the reward, for the next nightly runs": dg.MetadataValue.json(ndcg),
    }


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
    reward_weight: float,
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
        reward_weight=reward_weight,
        device=device,
    )
