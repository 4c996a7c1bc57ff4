"""The paper's Table 2 in the simulator: cascade and generators serve the same users for days."""

import shutil
from dataclasses import asdict, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.code_version import code_version
from assets.support import POOL_TRAINER, launchpad, to_core, upstream
from experiments.ab_test.config import IPA, MEASURED, NIGHTLY, VARIANTS, ABTestConfig
from experiments.nightly_artifacts import latest_day, latest_night
from experiments.table_assets import GROUP, provenance, written
from experiments.variants.assets import CODE as VARIANTS_CODE
from experiments.variants.assets import seconds_of
from experiments.variants.stored_results import current_result
from onerec.artifacts import Artifact, ArtifactStore
from onerec.config import BeamConfig, require
from resources.stores import Artifacts, Compute, Source

if TYPE_CHECKING:
    from experiments.ab_test.simulation import ABTest

NAME = "ab_test_table"
CODE = code_version(__name__, "ab_test_table")


class ABTestLaunchpad(launchpad(ABTestConfig())):
    """What is served, to whom, for how long."""


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
    from experiments.ab_test.simulation import run_ab_test
    from experiments.ab_test.table import table_of_ab_test

    require(
        source.dataset == "simulated",
        "dataset",
        source.dataset,
        "an A/B test needs users who answer; set ONEREC_DATASET=simulated",
    )
    store, settings = artifacts.store, to_core(config, ABTestConfig())
    variants = _variants(store, settings)
    test = _test(context, settings, store, source, compute, variants)
    versions = {n: a.version for n, a in {**test.artifacts, **variants}.items()}
    key: dict[str, Any] = {
        "config": {
            "test": asdict(settings),
            "sessions": asdict(test.sessions),
            "decoding": asdict(test.decoding),
        },
        "upstream": versions,
        "code_version": CODE,
    }
    day = test.day.isoformat()
    scratch = store.scratch(NAME, day, key)
    table = table_of_ab_test(
        run_ab_test(test, scratch),
        settings,
        provenance(
            store, [day], key["config"], range(settings.traffic_seeds), _budget(store, settings)
        ),
        repeat_days=test.source.config.repeat_days,
    )
    shutil.rmtree(scratch)
    return written(
        [table], {"nightly run": day, "upstream versions": dg.MetadataValue.json(versions)}
    )


def _budget(store: ArtifactStore, config: ABTestConfig) -> str:
    """What each arm was allowed."""
    aligned = ""
    if IPA in config.checkpoints:
        night = latest_night(store)
        variant = VARIANTS[IPA].variant(night)
        alignment = variant.settings(night.base, seed=0).alignment
        aligned = f"one round of {alignment.method} with {alignment.sample_users} users, "
    return (
        "one training per generator as the nightly run's (the larger one's dropout was chosen by "
        f"validation loss), {aligned}beam {config.beam}; nothing was tuned on it"
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


def _test(
    context: dg.AssetExecutionContext,
    config: ABTestConfig,
    store: ArtifactStore,
    source: Source,
    compute: Compute,
    variants: dict[str, Artifact],
) -> "ABTest":
    from experiments.ab_test.simulation import ABTest
    from onerec.datasets.simulated import SimulatedSource
    from onerec.session_dataset.reader import read_session_config

    app, day = source.open(), latest_day(store, (*NIGHTLY, MEASURED))
    assert isinstance(app, SimulatedSource)
    artifacts = {name: store.latest(name, day) for name in NIGHTLY}
    measured = store.latest(MEASURED, day).manifest["config"]
    return ABTest(
        source=app,
        artifacts=artifacts,
        day=date.fromisoformat(day),
        sessions=read_session_config(artifacts["session_dataset"].path),
        decoding=replace(BeamConfig(**measured["decoding"]), beam=config.beam),
        config=config,
        variants={name: artifact.path for name, artifact in variants.items()},
        trained_seconds={n: seconds_of(context.instance, VARIANTS[n]) for n in variants},
        device=compute.torch_device(),
        on_progress=context.log.info,
    )
