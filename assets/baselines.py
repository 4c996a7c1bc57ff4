"""Baselines: popularity, item-KNN and what else the settings name, fitted on the window."""

from dataclasses import replace
from datetime import date

import dagster as dg

from assets.code_version import code_version
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
from resources.stores import Artifacts, Compute

FITTED_WITH = (
    "baselines", "baseline_epochs", "baseline_width", "baseline_trials", "baseline_last_phase",
    "baseline_recency", "neighbours", "seed",
)  # fmt: skip
"""Settings of the evaluation stage that decide what the baselines are."""
LAST_PHASE_SETTINGS = ("fresh_days", "fresh_epochs", "fresh_learning_rate", "recency_days")
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
    deps=[CORRECTABLE, upstream("session_dataset"), upstream("semantic_ids")],
)
def baselines(
    context: dg.AssetExecutionContext,
    config: BaselinesLaunchpad,
    artifacts: Artifacts,
    compute: Compute,
) -> dg.MaterializeResult:
    """Popularity, item-KNN and what else the settings name, fitted on [D - W, D - 1] alone."""
    from onerec.evaluation.baselines import (
        BaselineInputs,
        fit_baselines,
        fit_item_knn_prior,
        fit_learned,
    )
    from onerec.report.pictures import histogram, svg_markdown
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
        recency_days=phase.recency_days if settings.baseline_recency else None,
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
    fitted = replace(
        counted,
        learned=learned,
        newest_watches=inputs.newest_watches,
        item_knn_prior=fit_item_knn_prior(inputs, settings),
    )
    with artifacts.store.write(
        "baselines",
        day,
        config={name: getattr(settings, name) for name in FITTED_WITH}
        | {"training": {name: getattr(phase, name) for name in LAST_PHASE_SETTINGS}},
        upstream={name: a.version for name, a in read.items()},
        code_version=CODE,
    ) as draft:
        fitted.save(draft.path)
        draft.row_counts["rows"] = int(fitted.candidates.sum())
    shown = histogram(fitted.exposures.tolist(), "How often items are shown", "exposures", "items")
    picture = dg.MetadataValue.md(svg_markdown(shown))
    return published(draft.artifact, {"exposures per item": picture, **fitted.facts(), **seconds})
