"""The paper's Table 2 in the simulator: cascade and generators serve the same users for days."""

import shutil
from dataclasses import asdict, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.code_version import code_version
from assets.support import POOL_TRAINER, launchpad, to_core, upstream
from experiments.ab_test.config import ALIGNED_ARM, MEASURED, NIGHTLY, VARIANTS, ABTestConfig
from experiments.nightly_artifacts import latest_day, latest_night
from experiments.table_assets import GROUP, provenance, written
from experiments.variants.assets import CODE as VARIANTS_CODE
from experiments.variants.assets import seconds_of
from experiments.variants.stored_results import VariantPartition, current_result
from onerec.artifacts import Artifact, ArtifactStore
from onerec.config import BeamConfig, require
from resources.stores import Artifacts, Compute, Source

if TYPE_CHECKING:
    from experiments.ab_test.simulation import ABTest

NAME = "ab_test_table"
CODE = code_version(__name__, "ab_test_table")


class ABTestLaunchpad(launchpad(ABTestConfig())):
    """What is served, to whom, for how long."""


def _serves(partition: VariantPartition) -> dg.AssetDep:
    one = dg.SpecificPartitionsPartitionMapping([partition.dagster_key])
    return dg.AssetDep(partition.asset, partition_mapping=one)


@dg.asset(
    name=NAME,
    group_name=GROUP,
    kinds={"pytorch", "lightgbm"},
    pool=POOL_TRAINER,
    code_version=CODE,
    deps=[*map(upstream, (*NIGHTLY, MEASURED)), *map(_serves, VARIANTS.values())],
)
def ab_test_table(
    context: dg.AssetExecutionContext,
    config: ABTestLaunchpad,
    artifacts: Artifacts,
    source: Source,
    compute: Compute,
) -> dg.MaterializeResult:
    """Cascade, OneRec small, larger, larger + IPA: same simulated users, visits, random numbers."""
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
    if ALIGNED_ARM in config.names:
        night = latest_night(store)
        variant = VARIANTS[ALIGNED_ARM].variant(night)
        alignment = variant.settings(night.base, seed=0).alignment
        aligned = f"one round of {alignment.method} with {alignment.sample_users} users, "
    return (
        "one training per generator as the nightly run's (the larger one's dropout was chosen by "
        f"validation loss), {aligned}beam {config.beam}; nothing was tuned on it"
    )


def _variants(store: ArtifactStore, config: ABTestConfig) -> dict[str, Artifact]:
    """The arms that variants of the latest nightly run serve."""
    wanted = {arm: partition for arm, partition in VARIANTS.items() if arm in config.names}
    night = latest_night(store) if wanted else None
    found = {}
    for arm, partition in wanted.items():
        assert night is not None
        result = current_result(store, night, partition, VARIANTS_CODE)
        if result is None:
            raise dg.Failure(
                f"arm {arm}: {partition.asset} has no current result; materialise its partition "
                f"{partition.dagster_key} first"
            )
        found[arm] = result
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
        variants={arm: artifact.path for arm, artifact in variants.items()},
        trained_seconds={arm: seconds_of(context.instance, VARIANTS[arm]) for arm in variants},
        device=compute.torch_device(),
        on_progress=context.log.info,
    )
