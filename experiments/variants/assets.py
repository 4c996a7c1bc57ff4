"""Experiments: variants of a published night, each a partition, and the tables that pool them.

A comparison is a backfill: over the methods of `alignment_grid` and its seeds, or over the variants
of `ablation_grid`. No part of the nightly run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from assets.code_version import code_version
from assets.support import POOL_TRAINER, SETTINGS, STAGES, published
from experiments.asset_support import GROUP, written
from experiments.nightly_artifacts import (
    NEEDED,
    chosen_day,
    night_artifacts,
    published_night,
    upstream_of,
)
from experiments.variants import grids as lists
from onerec.artifacts import Artifact, ArtifactStore
from onerec.config import CHALLENGER, PRETRAINED, PipelineConfig
from resources.stores import Artifacts, Compute

if TYPE_CHECKING:
    from experiments.reporting.result_tables import Provenance
    from experiments.variants.comparison import Result
    from experiments.variants.steps import Variant

SEEDS = dg.StaticPartitionsDefinition([str(seed) for seed in range(5)])
CODE = code_version(__name__, "grid_of")
Variants = Callable[[PipelineConfig, int], "dict[str, Variant]"]
GRIDS: dict[str, tuple[str, Variants]] = {
    "alignment_grid": ("method", lists.alignment_variants),
    "ablation_grid": ("variant", lists.ablation_variants),
}
"""Asset -> its dimension beside the seed, and its variants by name."""


class GridLaunchpad(dg.Config):
    """Which night is varied."""

    day: str = Field(
        default="", description="Day of the night; empty: the latest with every artifact published"
    )


class TableLaunchpad(GridLaunchpad):
    """Which night's results are pooled, and what the table is called."""

    name: str = Field(default="", description="File name; empty: the asset's kind and the data set")


def partition_of(variant: str, seed: int) -> str:
    """Name of a result in the artifact store."""
    return f"{variant}-{seed}"


def result_key(store: ArtifactStore, day: str, variant: "Variant") -> dict[str, Any]:
    """Everything a result depends on: a result with this key need not be made again."""
    return {
        "config": asdict(variant),
        "upstream": upstream_of(night_artifacts(store, day)),
        "code_version": CODE,
    }


def is_current(store: ArtifactStore, asset: str, variant: "Variant", day: str) -> bool:
    """Whether a result is published with the same inputs, settings and code."""
    partition = partition_of(variant.name, variant.seed)
    return store.made_with(asset, partition, result_key(store, day, variant)) is not None


def grid_of(name: str) -> dg.AssetsDefinition:
    """The asset whose partitions are variants and seeds."""
    dimension, variants_of = GRIDS[name]
    names = dg.StaticPartitionsDefinition(list(variants_of(STAGES, 0)))

    @dg.asset(
        name=name,
        partitions_def=dg.MultiPartitionsDefinition({dimension: names, "seed": SEEDS}),
        group_name=GROUP,
        kinds={"pytorch", "parquet"},
        pool=POOL_TRAINER,
        code_version=CODE,
        deps=[dg.AssetDep(n, partition_mapping=dg.LastPartitionMapping()) for n in NEEDED],
        description=f"A {dimension} with a seed, on a published night: what it changes is made "
        "again, the rest reused, and the result measured on the night's cases by its "
        "reward_models. Seed "
        "0 is the night's own.",
    )
    def grid(
        context: dg.AssetExecutionContext,
        config: GridLaunchpad,
        artifacts: Artifacts,
        compute: Compute,
    ) -> dg.MaterializeResult:
        from experiments.variants.train_variant import Workbench, run_variant

        store = artifacts.store
        day = chosen_day(store, config.day)
        chosen = context.partition_key.keys_by_dimension  # pyright: ignore
        night = published_night(store, day)
        variant = variants_of(night.base, int(chosen["seed"]))[chosen[dimension]]
        key = result_key(store, day, variant)
        shared = {"upstream": key["upstream"], "code_version": CODE}
        bench = Workbench(
            night,
            store.scratch(GROUP, day, shared),
            runtime=compute.runtime().on_one_device(),
            device=compute.torch_device(),
            on_progress=context.log.info,
        )
        partition = partition_of(variant.name, variant.seed)
        with store.write(name, partition, seed=variant.seed, **key) as draft:
            report = run_variant(bench, variant, draft.path)
            draft.row_counts["rows"] = len(bench.data.user_ids)
        measured = store.latest("offline_metrics", day)
        shown = {
            "day": day,
            "seconds": report.seconds,
            "made again from": report.earliest or "nothing: all of it was published",
            **report.headline,
            **_beside_the_night(draft.artifact, measured, variant.name),
        }
        return published(draft.artifact, shown)

    return grid


alignment_grid = grid_of("alignment_grid")
ablation_grid = grid_of("ablation_grid")


@dg.asset(
    group_name=GROUP,
    kinds={"markdown"},
    code_version=code_version(__name__, "alignment_table"),
    deps=[alignment_grid],
)
def alignment_table(
    context: dg.AssetExecutionContext, config: TableLaunchpad, artifacts: Artifacts
) -> dg.MaterializeResult:
    """Alignment methods against the pretrained model: seeds pooled, intervals over users and
    seeds."""
    return _compared(
        context,
        config,
        artifacts.store,
        "alignment_grid",
        {config.name or f"alignment_{SETTINGS.dataset}": (lists.alignment_variants, "pretrained")},
    )


@dg.asset(
    group_name=GROUP,
    kinds={"markdown"},
    code_version=code_version(__name__, "ablation_table"),
    deps=[ablation_grid],
)
def ablation_table(
    context: dg.AssetExecutionContext, config: TableLaunchpad, artifacts: Artifacts
) -> dg.MaterializeResult:
    """Ablations of pretraining against the default, and of alignment against the default's IPA."""
    name = config.name or f"ablation_{SETTINGS.dataset}"
    return _compared(
        context,
        config,
        artifacts.store,
        "ablation_grid",
        {
            f"{name}_training": (lists.training_ablations, lists.DEFAULT),
            f"{name}_alignment": (lists.alignment_ablations, lists.ALIGNED_DEFAULT),
        },
    )


class WalkForwardLaunchpad(dg.Config):
    """Which nights are pooled."""

    first_day: str = Field(default="", description="Empty: from the first that was measured")
    last_day: str = Field(default="", description="Empty: to the last that was measured")
    name: str = Field(default="", description="File name; empty: walk_forward_<data set>")


@dg.asset(
    group_name=GROUP,
    kinds={"markdown"},
    code_version=code_version(__name__, "walk_forward_table"),
    deps=[dg.AssetDep("offline_metrics", partition_mapping=dg.AllPartitionMapping())],
)
def walk_forward_table(
    context: dg.AssetExecutionContext, config: WalkForwardLaunchpad, artifacts: Artifacts
) -> dg.MaterializeResult:
    """Every system on every measured day, users pooled, against each baseline; and the rewards."""
    from experiments.walk_forward.tables import walk_forward_tables

    store = artifacts.store
    days = [
        day
        for day in store.partitions("offline_metrics")
        if config.first_day <= day <= (config.last_day or day)
    ]
    nights = {day: store.latest("offline_metrics", day).path for day in days}
    base = published_night(store, days[-1]).base if days else STAGES
    learned = base.evaluation
    budget = (
        f"sequence baselines the best of {learned.baseline_trials} setting(s), each at most "
        f"{learned.baseline_epochs} epochs of width {learned.baseline_width} with early stopping, "
        f"by the day before; item-KNN with {learned.neighbours} neighbours; generator one setting, "
        f"at most {base.training.max_epochs} epochs a night, chosen on the day before"
    )
    tables = walk_forward_tables(
        nights,
        name=config.name or f"walk_forward_{SETTINGS.dataset}",
        title=f"Walk-forward on {SETTINGS.dataset}",
        provenance=_provenance(store, days, base, [base.training.seed], budget),
        evaluation=learned,
        seconds=_seconds_spent(context.instance, days, learned.systems),
    )
    return written(tables)


def _compared(
    context: dg.AssetExecutionContext,
    config: TableLaunchpad,
    store: ArtifactStore,
    grid: str,
    wanted: Mapping[str, tuple[Variants, str]],
) -> dg.MaterializeResult:
    """Tables from a grid's results of one night; variants without a result are left out."""
    from experiments.variants.comparison import comparison

    day = chosen_day(store, config.day)
    base = published_night(store, day).base
    results = results_of(context.instance, store, grid, day, base)
    budget = (
        f"pretraining at most {base.training.max_epochs} epochs, alignment {base.alignment.epochs} "
        f"epoch(s) over {base.alignment.sample_users} users' sessions unless the name says "
        "otherwise; settings by name, none searched in this run"
    )
    tables = []
    for name, (variants_of, reference) in wanted.items():
        mine = [r for v in variants_of(base, 0) for r in results if r.variant == v]
        if reference not in {result.variant for result in mine}:
            context.log.warning(f"{name}: left out, {grid} has no {reference} of {day}")
            continue
        kind = name.replace("_", " ").capitalize()
        seeds = sorted({result.seed for result in mine})
        tables.append(
            comparison(
                mine,
                reference,
                name=name,
                title=kind,
                text=f"The night of {day} with one thing changed at a time, on the same cases and "
                f"by the same reward_models; differences are to {reference}, paired by user and "
                f"seed. "
                "Brackets resample users and seeds.",
                provenance=_provenance(store, [day], base, seeds, budget),
                evaluation=base.evaluation,
            )
        )
    if not tables:
        references = ", ".join(reference for _, reference in wanted.values())
        raise dg.Failure(
            f"{grid} has no result of {day} with the present code and artifacts; materialise its "
            f"partitions first, {references} among them"
        )
    return written(tables)


def results_of(
    instance: dg.DagsterInstance, store: ArtifactStore, grid: str, day: str, base: PipelineConfig
) -> "list[Result]":
    """What a grid holds of a night, made by the present code from its present artifacts."""
    from experiments.variants.comparison import Result

    dimension, variants_of = GRIDS[grid]
    found = []
    for seed in map(int, SEEDS.get_partition_keys()):
        for name, variant in variants_of(base, seed).items():
            if is_current(store, grid, variant, day):
                path = store.latest(grid, partition_of(name, seed)).path
                key = dg.MultiPartitionKey({dimension: name, "seed": str(seed)})
                seconds = recorded(instance, grid, key, "seconds")
                found.append(Result(variant=name, seed=seed, directory=path, seconds=seconds))
    return found


def recorded(instance: dg.DagsterInstance, asset: str, partition: str, name: str) -> float | None:
    """A number in the metadata of a partition's last materialization, if it has one."""
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[partition])
    records = instance.fetch_materializations(wanted, limit=1).records
    event = records[0].asset_materialization if records else None
    value = event.metadata[name].value if event and name in event.metadata else None
    return float(value) if isinstance(value, int | float) else None


def _seconds_spent(
    instance: dg.DagsterInstance, days: list[str], baselines: Sequence[str]
) -> dict[str, float]:
    """What making a system took on all days together, where every day's run has said so."""
    recorded_as = {name: ("baselines", f"seconds of {name}") for name in baselines}
    recorded_as |= {"pretrained": ("pretrained_checkpoint", "seconds")}
    spent = {}
    for system, (asset, name) in recorded_as.items():
        known = [recorded(instance, asset, day, name) for day in days]
        numbers = [seconds for seconds in known if seconds is not None]
        if days and len(numbers) == len(days):
            spent[system] = sum(numbers)
    return spent


def _provenance(
    store: ArtifactStore, days: list[str], base: PipelineConfig, seeds: list[int], budget: str
) -> "Provenance":
    import hashlib
    import json

    from experiments.reporting import Provenance, current_commit

    hashes = [store.latest("session_dataset", day).content_hash for day in days]
    settings = hashlib.sha256(json.dumps(asdict(base), sort_keys=True).encode()).hexdigest()
    return Provenance(
        data=f"{SETTINGS.dataset} {'+'.join(hashes)}",
        config=f"`{settings[:10]}` ({SETTINGS.preset} preset with the data set's settings)",
        seeds=seeds,
        budget=budget,
        commit=current_commit(),
    )


def _beside_the_night(result: Artifact, measured: Artifact, name: str) -> dict[str, Any]:
    """A picture of a result beside the night's own generators."""
    from experiments.variants.comparison import SYSTEM
    from onerec.evaluation.metric_table import MetricTable
    from onerec.pictures import bar_chart, svg_markdown

    mine, theirs = MetricTable.load(result.path), MetricTable.load(measured.path)
    pictures = {}
    for metric in ("recall@10", "evaluator_reward"):
        bars = {f"night: {s}": theirs.find(s, metric) for s in (PRETRAINED, CHALLENGER)}
        bars[name] = mine.find(SYSTEM, metric)
        picture = bar_chart(bars, f"{metric} of {name}", metric)
        pictures[metric + " beside the night"] = dg.MetadataValue.md(svg_markdown(picture))
    return pictures
