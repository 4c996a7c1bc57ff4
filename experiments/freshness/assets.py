"""Decay of a frozen model's Recall over days: the benefit of nightly runs."""

from dataclasses import asdict
from datetime import date

import dagster as dg

from assets.code_version import code_version
from assets.support import SETTINGS
from experiments.freshness import READ
from experiments.nightly_artifacts import latest_night
from experiments.table_assets import GROUP, DaysLaunchpad, provenance, written
from resources.stores import Artifacts


@dg.asset(
    group_name=GROUP,
    kinds={"table"},
    code_version=code_version(__name__, "freshness_table"),
    deps=[dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping()) for name in READ],
)
def freshness_table(
    context: dg.AssetExecutionContext, config: DaysLaunchpad, artifacts: Artifacts
) -> dg.MaterializeResult:
    """The generators of all nightly runs, measured on their own day and the seven days after it."""
    from experiments.freshness.decay import NightlyRunFiles, table_of_ages

    store = artifacts.store
    complete = set.intersection(*(set(store.partitions(name)) for name in READ))
    days = config.chosen(sorted(complete))
    nights = {
        date.fromisoformat(day): NightlyRunFiles(
            day=date.fromisoformat(day),
            files={name: store.latest(name, day).path for name in READ},
        )
        for day in days
    }
    base = latest_night(store).base
    budget = (
        f"the first nightly run's generator at most {base.training.max_epochs} epochs from random "
        "weights, later ones from the one before; the last phase on the newest days of each run"
    )
    made = provenance(context.instance, store, days, asdict(base), [base.training.seed], budget)
    table = table_of_ages(nights, base.decoding, base.evaluation, SETTINGS.dataset, made)
    return written([table])
