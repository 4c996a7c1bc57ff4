"""Variants of the latest nightly run as partitions, and the tables that compare them.

A comparison is a backfill of `pretrained_variant` and `aligned_variant`, followed by its table.
"""

import shutil
import time
from collections import defaultdict
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import dagster as dg

from assets.code_version import code_version
from assets.support import POOL_TRAINER, SETTINGS, published
from experiments.nightly_artifacts import NEEDED, PublishedNightlyRun, latest_night
from experiments.table_assets import GROUP, provenance, recorded_seconds, written
from experiments.variants.grids import ALIGNED, COMPARISONS, NAMES, PRETRAINED, STARTS, Comparison
from experiments.variants.stored_results import VariantPartition, current_result, result_key
from resources.stores import Artifacts, Compute, Source

if TYPE_CHECKING:
    from experiments.variants.comparison import VariantResult
    from experiments.variants.training import VariantRun

CODE = code_version("experiments.variants.evaluation", "evaluate_variant")
"""Code version of training and measuring variants; settings are part of a result's key."""
SEEDS = dg.StaticPartitionsDefinition([str(seed) for seed in range(5)])
PARTITIONS = {
    asset: dg.MultiPartitionsDefinition(
        {"variant": dg.StaticPartitionsDefinition(list(names)), "seed": SEEDS}
    )
    for asset, names in NAMES.items()
}
NIGHT = [dg.AssetDep(name, partition_mapping=dg.LastPartitionMapping()) for name in NEEDED]


def _by_start() -> dg.MultiPartitionMapping:
    """An aligned variant depends on the pretrained one that it starts from, of the same seed."""
    followers = defaultdict(list)
    for name, start in STARTS.items():
        followers[start].append(name)
    by_variant = dg.StaticPartitionMapping(dict(followers))
    return dg.MultiPartitionMapping(
        {
            "variant": dg.DimensionPartitionMapping("variant", by_variant),
            "seed": dg.DimensionPartitionMapping("seed", dg.IdentityPartitionMapping()),
        }
    )


@dg.asset(
    name=PRETRAINED,
    partitions_def=PARTITIONS[PRETRAINED],
    group_name=GROUP,
    kinds={"pytorch"},
    pool=POOL_TRAINER,
    code_version=CODE,
    deps=NIGHT,
)
def pretrained_variant(
    context: dg.AssetExecutionContext, artifacts: Artifacts, compute: Compute
) -> dg.MaterializeResult:
    """The latest nightly run with one thing changed up to pretraining, and its metrics.

    What does not change is reused; seed 0 is the nightly run's own.
    """
    return _materialize(context, artifacts, compute)


@dg.asset(
    name=ALIGNED,
    partitions_def=PARTITIONS[ALIGNED],
    group_name=GROUP,
    kinds={"pytorch"},
    pool=POOL_TRAINER,
    code_version=CODE,
    deps=[*NIGHT, dg.AssetDep(PRETRAINED, partition_mapping=_by_start())],
)
def aligned_variant(
    context: dg.AssetExecutionContext, artifacts: Artifacts, compute: Compute, source: Source
) -> dg.MaterializeResult:
    """A pretrained variant after preference alignment of some kind, and its metrics."""
    return _materialize(context, artifacts, compute, source)


def _materialize(
    context: dg.AssetExecutionContext,
    artifacts: Artifacts,
    compute: Compute,
    source: Source | None = None,
) -> dg.MaterializeResult:
    from experiments.variants.evaluation import evaluate_variant
    from experiments.variants.training import VariantFiles, align_variant, pretrain_variant

    store, night, began = artifacts.store, latest_night(artifacts.store), time.monotonic()
    wanted = partition_of(context.asset_key.to_user_string(), context.partition_key)
    start = wanted.start(night)
    key = result_key(store, night, wanted, CODE)
    run = _run(context, compute, night, wanted)
    if run.variant.true_pairs and source is not None:
        run = replace(run, source=source.open())
    with store.write(wanted.asset, wanted.stored_as, seed=wanted.seed, **key) as draft:
        if start:
            read = VariantFiles.of(night, store.latest(PRETRAINED, start.stored_as).path)
            files = align_variant(run, read, draft.path)
        else:
            scratch = store.scratch(wanted.asset, wanted.stored_as, key)
            files = pretrain_variant(run, draft.path, scratch)
            shutil.rmtree(scratch)
        seconds = time.monotonic() - began + seconds_of(context.instance, start)
        headline = evaluate_variant(run, files, draft.path)
    return published(
        draft.artifact, {"day": night.test_day.isoformat(), "seconds": seconds, **headline}
    )


def _run(
    context: dg.AssetExecutionContext,
    compute: Compute,
    night: PublishedNightlyRun,
    wanted: VariantPartition,
) -> "VariantRun":
    from experiments.variants.training import VariantRun

    variant = wanted.variant(night)
    return VariantRun(
        night=night,
        variant=variant,
        settings=variant.settings(night.base, wanted.seed),
        runtime=compute.runtime().on_one_device(),
        device=compute.torch_device(),
        on_progress=context.log.info,
    )


def partition_of(asset: str, key: str | dg.MultiPartitionKey) -> VariantPartition:
    """A partition by its key in Dagster."""
    assert isinstance(key, dg.MultiPartitionKey)
    chosen = key.keys_by_dimension
    return VariantPartition(asset, chosen["variant"], int(chosen["seed"]))


def seconds_of(instance: dg.DagsterInstance, partition: VariantPartition | None) -> float:
    """Seconds that a result took, including the variant it starts from; 0 where unknown."""
    if partition is None:
        return 0.0
    return recorded_seconds(instance, partition.asset, partition.dagster_key) or 0.0


def comparison_table(name: str, compared: Comparison) -> dg.AssetsDefinition:
    """The asset that pools the results of a comparison."""

    @dg.asset(
        name=f"{name}_table",
        group_name=GROUP,
        kinds={"table"},
        code_version=code_version(__name__, "comparison_table"),
        deps=[PRETRAINED, ALIGNED],
        description=f"{', '.join(compared.systems)}: seeds pooled, intervals over users and seeds.",
    )
    def table(context: dg.AssetExecutionContext, artifacts: Artifacts) -> dg.MaterializeResult:
        from experiments.variants.comparison import comparison

        night = latest_night(artifacts.store)
        results = results_of(context.instance, artifacts, night, compared)
        if compared.reference not in {result.variant for result in results}:
            asset, variant = compared.systems[compared.reference]
            raise dg.Failure(
                f"{asset} has no result of {variant} of the latest nightly run with this code; "
                "materialise its partitions first"
            )
        base = night.base
        made = provenance(
            context.instance,
            artifacts.store,
            [night.test_day.isoformat()],
            asdict(base),
            sorted({result.seed for result in results}),
            f"pretraining at most {base.training.max_epochs} epochs, alignment "
            f"{base.alignment.epochs} epoch(s) over {base.alignment.sample_users} users' sessions "
            "unless the name says otherwise; settings by name, none searched in this run",
        )
        file = compared.file.format(SETTINGS.dataset)
        return written(
            [comparison(results, compared.reference, file, night.test_day, made, base.evaluation)]
        )

    return table


def results_of(
    instance: dg.DagsterInstance,
    artifacts: Artifacts,
    night: PublishedNightlyRun,
    compared: Comparison,
) -> "list[VariantResult]":
    """The current results of a comparison's systems; those that are missing are left out."""
    from experiments.variants.comparison import VariantResult

    found = []
    for label, (asset, name) in compared.systems.items():
        for seed in map(int, SEEDS.get_partition_keys()):
            partition = VariantPartition(asset, name, seed)
            result = current_result(artifacts.store, night, partition, CODE)
            if result:
                seconds = seconds_of(instance, partition)
                found.append(
                    VariantResult(variant=label, seed=seed, directory=result.path, seconds=seconds)
                )
    return found


TABLES = [comparison_table(name, compared) for name, compared in COMPARISONS.items()]
