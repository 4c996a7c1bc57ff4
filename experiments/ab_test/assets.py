"""The paper's Table 2 in the simulator: cascade and generators serve the same users for days.

`ab_test_table` serves with the models of one nightly run, its larger variants and oracles among
them; `ab_test_retrained_table` with those of every day's nightly run.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.code_version import code_version
from assets.support import POOL_TRAINER, launchpad, to_core, upstream
from experiments.ab_test.config import (
    IPA,
    MEASURED,
    NIGHTLY,
    NIGHTLY_ALIGNED,
    RETRAINED,
    RETRAINED_DAILY,
    SMALL_IPA,
    VARIANTS,
    ABTestConfig,
)
from experiments.nightly_artifacts import latest_day, latest_night
from experiments.table_assets import GROUP, provenance, written
from experiments.variants.assets import CODE as VARIANTS_CODE
from experiments.variants.assets import seconds_of
from experiments.variants.stored_results import current_result
from onerec.artifacts import Artifact, ArtifactStore
from onerec.config import BeamConfig, require
from resources.stores import Artifacts, Compute, Source

if TYPE_CHECKING:
    from experiments.ab_test.nights import ABTest, Night

NAME, NAME_RETRAINED = "ab_test_table", "ab_test_retrained_table"
CODE = code_version(__name__, "_table")
EVERY_NIGHT = (*NIGHTLY, NIGHTLY_ALIGNED, MEASURED)


class ABTestLaunchpad(launchpad(ABTestConfig())):
    """What is served, to whom, for how long."""


class RetrainedLaunchpad(launchpad(RETRAINED_DAILY)):
    """The same, with models retrained every day; fewer days where fewer nightly runs follow one
    another."""


def _served_variants() -> list[dg.AssetDep]:
    keys: dict[str, list[str]] = {}
    for partition in VARIANTS.values():
        keys.setdefault(partition.asset, []).append(partition.dagster_key)
    return [
        dg.AssetDep(asset, partition_mapping=dg.SpecificPartitionsPartitionMapping(some))
        for asset, some in keys.items()
    ]


@dg.asset(
    name=NAME,
    group_name=GROUP,
    kinds={"pytorch", "lightgbm"},
    pool=POOL_TRAINER,
    code_version=CODE,
    deps=[*map(upstream, (*NIGHTLY, MEASURED)), *_served_variants()],
)
def ab_test_table(
    context: dg.AssetExecutionContext,
    config: ABTestLaunchpad,
    artifacts: Artifacts,
    source: Source,
    compute: Compute,
) -> dg.MaterializeResult:
    """Cascade, generators and oracles: same simulated users, visits and random numbers."""
    return _table(context, NAME, to_core(config, ABTestConfig()), artifacts.store, source, compute)


@dg.asset(
    name=NAME_RETRAINED,
    group_name=GROUP,
    kinds={"pytorch", "lightgbm"},
    pool=POOL_TRAINER,
    code_version=CODE,
    deps=[dg.AssetDep(n, partition_mapping=dg.AllPartitionMapping()) for n in EVERY_NIGHT],
)
def ab_test_retrained_table(
    context: dg.AssetExecutionContext,
    config: RetrainedLaunchpad,
    artifacts: Artifacts,
    source: Source,
    compute: Compute,
) -> dg.MaterializeResult:
    """The same test where an arm's models of every day are those of that day's nightly run."""
    settings, store = to_core(config, RETRAINED_DAILY), artifacts.store
    nights = _consecutive_days(store, settings.days)
    if len(nights) < 2:
        raise dg.Failure(
            f"the nightly run of {nights[0]} has none on the day before; make nightly runs of at "
            "least two consecutive days"
        )
    settings = replace(settings, days=len(nights))
    return _table(context, NAME_RETRAINED, settings, store, source, compute)


def _table(
    context: dg.AssetExecutionContext,
    name: str,
    settings: ABTestConfig,
    store: ArtifactStore,
    source: Source,
    compute: Compute,
) -> dg.MaterializeResult:
    """Serve every arm, and write what came out."""
    from experiments.ab_test.simulation import run_ab_test
    from experiments.ab_test.table import table_of_ab_test

    require(
        source.dataset == "simulated",
        "dataset",
        source.dataset,
        "an A/B test needs users who answer; set ONEREC_DATASET=simulated",
    )
    _require_arms_of(name, settings)
    test, versions = _test(context, settings, store, source, compute)
    key: dict[str, Any] = {
        "config": {
            "test": asdict(settings),
            "sessions": asdict(test.sessions),
            "decoding": asdict(test.decoding),
        },
        "upstream": versions,
        "code_version": CODE,
    }
    days = [night.day.isoformat() for night in test.nights]
    scratch = store.scratch(name, days[-1], key)
    seeds = range(settings.traffic_seeds)
    table = table_of_ab_test(
        run_ab_test(test, scratch),
        settings,
        provenance(context.instance, store, days, key["config"], seeds, _budget(store, settings)),
        repeat_days=test.source.config.repeat_days,
    )
    shutil.rmtree(scratch)
    return written(
        [table],
        {"nightly run": ", ".join(days), "upstream versions": dg.MetadataValue.json(versions)},
    )


def _require_arms_of(name: str, settings: ABTestConfig) -> None:
    """Arms decide which of the two tables is written."""
    ending = f"that ends in {RETRAINED!r}"
    if name == NAME_RETRAINED:
        remedy = f"name an arm {ending}, too, or materialise {NAME}, whose table this would replace"
    else:
        remedy = f"name no arm {ending}, or materialise {NAME_RETRAINED}, whose table it would be"
    require(settings.has_retrained_arms == (name == NAME_RETRAINED), "arms", settings.arms, remedy)


def _consecutive_days(store: ArtifactStore, most: int) -> list[str]:
    """Days of the last nightly runs that follow one another without a gap, in order."""
    last = date.fromisoformat(latest_day(store, EVERY_NIGHT))
    there = set.intersection(*(set(store.partitions(name)) for name in EVERY_NIGHT))
    days: list[str] = []
    while len(days) < most and (day := (last - timedelta(days=len(days))).isoformat()) in there:
        days.append(day)
    return days[::-1]


def _budget(store: ArtifactStore, config: ABTestConfig) -> str:
    """What each arm was allowed."""
    end = f"beam {config.beam}; nothing was tuned on it"
    if config.has_retrained_arms:
        return f"one training and alignment a nightly run, as it makes them, {end}"
    aligned = ""
    if IPA in config.checkpoints:
        night = latest_night(store)
        variant = VARIANTS[IPA].variant(night)
        alignment = variant.settings(night.base, seed=0).alignment
        aligned = f"one round of {alignment.method} with {alignment.sample_users} users, "
    return (
        "one training per generator as the nightly run's (the larger one's dropout was chosen by "
        f"validation loss), {aligned}{end}"
    )


def _variants(store: ArtifactStore, config: ABTestConfig) -> dict[str, Artifact]:
    """The checkpoints that are variants of the latest nightly run."""
    wanted = {name: VARIANTS[name] for name in config.checkpoints if name in VARIANTS}
    night = latest_night(store) if wanted else None
    found = {}
    for name, partition in wanted.items():
        assert night is not None
        result = current_result(store, night, partition, VARIANTS_CODE)
        if result is None:
            raise dg.Failure(
                f"arm {name}: {partition.asset} has no current result; materialise its partition "
                f"{partition.dagster_key} first"
            )
        found[name] = result
    return found


def _nights(
    store: ArtifactStore, config: ABTestConfig, variants: dict[str, Artifact]
) -> "list[Night]":
    """The latest nightly run, or the last ones, one for each day served."""
    from experiments.ab_test.nights import Night

    names = (*NIGHTLY, NIGHTLY_ALIGNED) if SMALL_IPA in config.checkpoints else NIGHTLY
    days: Sequence[str] = [latest_day(store, (*names, MEASURED))]
    if config.has_retrained_arms:
        days = _consecutive_days(store, config.nights)
    return [
        Night(
            day=date.fromisoformat(day),
            artifacts={name: store.latest(name, day) for name in names},
            variants={name: artifact.path for name, artifact in variants.items()},
        )
        for day in days
    ]


def _test(
    context: dg.AssetExecutionContext,
    config: ABTestConfig,
    store: ArtifactStore,
    source: Source,
    compute: Compute,
) -> "tuple[ABTest, dict[str, str]]":
    """The test, and the version of everything that it reads."""
    from experiments.ab_test.nights import ABTest
    from onerec.datasets.simulated import SimulatedSource
    from onerec.session_dataset.reader import read_session_config

    app, variants = source.open(), _variants(store, config)
    assert isinstance(app, SimulatedSource)
    nights = _nights(store, config, variants)
    first = nights[0]
    measured = store.latest(MEASURED, first.day.isoformat()).manifest["config"]
    test = ABTest(
        source=app,
        nights=nights,
        sessions=read_session_config(first.path("session_dataset")),
        decoding=replace(BeamConfig(**measured["decoding"]), beam=config.beam),
        config=config,
        trained_seconds={n: seconds_of(context.instance, VARIANTS[n]) for n in variants},
        device=compute.torch_device(),
        on_progress=context.log.info,
    )
    nightly = {
        f"{n} {night.day}": a.version for night in nights for n, a in night.artifacts.items()
    }
    return test, {**nightly, **{n: a.version for n, a in variants.items()}}
