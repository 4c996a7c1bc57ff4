"""Baselines: popularity, item-KNN and what else the settings name, fitted on the window."""

import shutil
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.code_version import code_version
from assets.nights_before import NightsBefore, as_metadata, nights_before, on_nights_before
from assets.support import (
    CORRECTABLE,
    DAILY,
    DAY_BY_DAY,
    PIPELINE,
    POOL_TRAINER,
    launchpad,
    published,
    to_core,
    upstream,
)
from assets.training_process import run_training
from onerec.artifacts import Artifact
from resources.stores import Artifacts, Compute

if TYPE_CHECKING:
    from onerec.evaluation.baselines import FittedBaselines
    from onerec.evaluation.baselines.job import BaselinesJob

FITTED_WITH = (
    "baselines", "baseline_epochs", "baseline_width", "baseline_trials", "baseline_last_phase",
    "baseline_recency", "neighbours", "seed",
)  # fmt: skip
"""Settings of the evaluation stage that decide what the baselines are."""
LAST_PHASE_SETTINGS = (
    "fresh_days", "fresh_epochs", "fresh_learning_rate", "recency_days", "recency_weight_days",
)  # fmt: skip
CODE = code_version(__name__, "baselines")


class LastPhase(launchpad(PIPELINE.training, *LAST_PHASE_SETTINGS)):
    """How a generator learns and counts the newest days, which sequence baselines share."""


class BaselinesLaunchpad(launchpad(PIPELINE.evaluation, *FITTED_WITH)):
    """Which baselines, and how they are fitted."""

    training: LastPhase = LastPhase()


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="evaluation",
    kinds={"scipy", "parquet"},
    pool=POOL_TRAINER,
    code_version=CODE,
    deps=[
        CORRECTABLE,
        upstream("session_dataset"),
        upstream("semantic_ids"),
        # the night before measures for this one, even where no other day counts
        *on_nights_before("baselines", max(2, PIPELINE.training.recency_weight_days)),
    ],
)
def baselines(
    context: dg.AssetExecutionContext,
    config: BaselinesLaunchpad,
    artifacts: Artifacts,
    compute: Compute,
) -> dg.MaterializeResult:
    """Popularity, item-KNN and what else the settings name, fitted on [D - W, D - 1] alone."""
    from onerec.evaluation.baselines import load_baselines
    from onerec.evaluation.baselines.job import BaselinesJob

    day, store = context.partition_key, artifacts.store
    settings = to_core(config, PIPELINE.evaluation)
    phase = to_core(config.training, PIPELINE.training)
    read = {n: store.latest(n, day) for n in ("session_dataset", "semantic_ids")}
    job = BaselinesJob(
        session_dataset=read["session_dataset"].path,
        semantic_ids=read["semantic_ids"].path,
        test_day=date.fromisoformat(day),
        evaluation=settings,
        training=phase,
        runtime=compute.runtime(),
    )
    key: dict[str, Any] = {
        "config": {name: getattr(settings, name) for name in FITTED_WITH}
        | {"training": {name: getattr(phase, name) for name in LAST_PHASE_SETTINGS}},
        "upstream": {name: a.version for name, a in read.items()},
        "code_version": CODE,
    }
    alike = {name: value for name, value in key["config"].items() if name != "baselines"}
    days, beside = phase.recency_weight_days, ("session_dataset",)
    before = nights_before(context, store, "baselines", alike, max(2, days), beside=beside)
    key["upstream"] |= before.upstream
    counted = before if days > 1 else NightsBefore([])
    job = replace(job, earlier=counted.measured)
    if served := _served(before, job):
        context.log.info(f"recency priors of sequence baselines are chosen by those of {served}")
        job = replace(job, night_before=served.path)
    scratch = store.scratch("baselines", day, key)
    with store.write("baselines", day, **key) as draft:
        clocked = run_training(context, job, out_dir=draft.path, scratch=scratch)
        fitted = load_baselines(draft.path)
        draft.row_counts["rows"] = int(fitted.candidates.sum())
        draft.metadata |= as_metadata(fitted.recency_ndcg)
    shutil.rmtree(scratch)
    return published(draft.artifact, {**_shown(fitted, counted), **clocked})


def _shown(fitted: "FittedBaselines", counted: NightsBefore) -> dict[str, Any]:
    """What was fitted, and a picture of how often items are shown."""
    from onerec.report.pictures import histogram, svg_markdown

    shown = histogram(fitted.exposures.tolist(), "How often items are shown", "exposures", "items")
    return {
        "exposures per item": dg.MetadataValue.md(svg_markdown(shown)),
        "earlier days that chose recency priors": len(counted.artifacts),
        **fitted.facts(),
    }


def _served(before: NightsBefore, job: "BaselinesJob") -> Artifact | None:
    """The baselines that could serve on the validation day, if they were fitted to the same kind of
    data."""
    from onerec.evaluation.baselines.job import is_comparable
    from onerec.session_dataset.newest_watches import split_day

    valid_day = split_day(job.session_dataset, "valid")
    served = [a for a in before.artifacts if valid_day and a.partition == valid_day.isoformat()]
    return next((a for a in served if is_comparable(a.path, job)), None)
