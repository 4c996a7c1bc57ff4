"""Every system of several nightly runs, pooled: a backfill over days is a walk-forward."""

from collections.abc import Sequence
from dataclasses import asdict

import dagster as dg
from pydantic import Field

from assets.code_version import code_version
from assets.support import SETTINGS
from experiments.nightly_artifacts import latest_night
from experiments.table_assets import (
    GROUP,
    DaysLaunchpad,
    provenance,
    recorded_seconds,
    written,
)
from onerec.config import SIMPLE_SYSTEMS
from resources.stores import Artifacts


class WalkForwardLaunchpad(DaysLaunchpad):
    """Which nightly runs, of which seeds."""

    other_seeds: list[str] = Field(
        default=[],
        description="Artifact stores with the same nightly runs by other seeds, which are pooled",
    )


@dg.asset(
    group_name=GROUP,
    kinds={"table"},
    code_version=code_version(__name__, "walk_forward_table"),
    deps=[dg.AssetDep("offline_metrics", partition_mapping=dg.AllPartitionMapping())],
)
def walk_forward_table(
    context: dg.AssetExecutionContext, config: WalkForwardLaunchpad, artifacts: Artifacts
) -> dg.MaterializeResult:
    """Every system on every measured day, users pooled, against each baseline; and the rewards."""
    from experiments.walk_forward.tables import walk_forward_tables
    from onerec.artifacts import ArtifactStore

    store = artifacts.store
    days = config.chosen(store.partitions("offline_metrics"))
    stores = [store, *map(ArtifactStore, config.other_seeds)]
    base, *others = (latest_night(of_seed).base for of_seed in stores)
    seeds = [settings.training.seed for settings in (base, *others)]
    learned = base.evaluation
    of_sequences = (
        f"sequence baselines the best of {learned.baseline_trials} setting(s), each at most "
        f"{learned.baseline_epochs} epochs of width {learned.baseline_width} with early stopping, "
        f"by the day before{', then the newest days' if learned.baseline_last_phase else ''}; "
    )
    budget = (
        f"{of_sequences if {*learned.systems} - {*SIMPLE_SYSTEMS, 'cascade'} else ''}"
        f"item-KNN with {learned.neighbours} neighbours; generator one setting, "
        f"at most {base.training.max_epochs} epochs a nightly run, chosen on the day before"
    )
    tables = walk_forward_tables(
        {day: [s.latest("offline_metrics", day).path for s in stores] for day in days},
        SETTINGS.dataset,
        provenance(context.instance, store, days, asdict(base), seeds, budget),
        learned,
        {} if others else _seconds(context.instance, days, learned.systems),
    )
    return written(tables)


def _seconds(
    instance: dg.DagsterInstance, days: Sequence[str], baselines: Sequence[str]
) -> dict[str, float]:
    """Seconds of each system on all days, where every day's run has recorded them."""
    recorded_as = {name: ("baselines", f"seconds of {name}") for name in baselines}
    recorded_as |= {"pretrained": ("pretrained_checkpoint", "seconds")}
    spent = {}
    for system, (asset, name) in recorded_as.items():
        known = [recorded_seconds(instance, asset, day, name) for day in days]
        numbers = [seconds for seconds in known if seconds is not None]
        if days and len(numbers) == len(days):
            spent[system] = sum(numbers)
    return spent
