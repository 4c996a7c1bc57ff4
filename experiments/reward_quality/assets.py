"""The tables of the reward model: against base rates and boosting, and without its attention."""

import dagster as dg
from pydantic import Field

from assets.code_version import code_version
from assets.support import POOL_TRAINER, SETTINGS, upstream
from experiments.nightly_artifacts import latest_day
from experiments.table_assets import GROUP, written
from onerec.config import RewardConfig
from resources.stores import Artifacts, Compute

READ = ("session_dataset", "semantic_ids", "reward_model")
"""Of the reward model only the settings are read."""
CODE = code_version(__name__, "reward_table")


class RewardTable(dg.Config):
    """How often each scorer is trained."""

    seeds: int = Field(default=3, ge=1, description="Trainings of each neural scorer")


@dg.asset(
    group_name=GROUP,
    kinds={"pytorch", "lightgbm"},
    pool=POOL_TRAINER,
    code_version=CODE,
    deps=[upstream(name) for name in READ],
)
def reward_table(
    context: dg.AssetExecutionContext, config: RewardTable, artifacts: Artifacts, compute: Compute
) -> dg.MaterializeResult:
    """AUC, order, log-loss and calibration of the reward model on a day it has not seen, beside
    what it must beat."""
    from experiments.reward_quality.quality import reward_quality
    from experiments.reward_quality.scorers import load_blocks
    from onerec.report.pictures import scatter, svg_markdown

    day = latest_day(artifacts.store, READ)
    read = {name: artifacts.store.latest(name, day) for name in READ}
    paths = read["session_dataset"].path, read["semantic_ids"].path
    settings = RewardConfig(**read["reward_model"].manifest["config"])
    made = reward_quality(
        load_blocks(*paths, settings),
        settings,
        SETTINGS.dataset,
        f"{SETTINGS.dataset} {day}, {read['session_dataset'].version}",
        seeds=config.seeds,
        on_progress=context.log.info,
    )
    shown: dict[str, dg.MetadataValue] = {}
    for tower, points in made.curves.items():
        svg = scatter(points, f"Calibration of {tower}", "predicted", "observed", diagonal=True)
        shown[f"calibration of {tower}"] = dg.MetadataValue.md(svg_markdown(svg))
    versions = dg.MetadataValue.json({n: a.version for n, a in read.items()})
    return written(made.tables, {"day": day, "upstream versions": versions, **shown})
