"""Amazon Beauty: a partition per system, and the table of all."""

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg

from assets.code_version import code_version
from assets.support import POOL_TRAINER, published
from experiments.amazon_beauty import PARTITIONS, SEEDS
from experiments.table_assets import GROUP, written
from resources.settings import CHECKOUT
from resources.stores import Artifacts, Compute

SYSTEM = "amazon_beauty_system"
DATA_VARIABLE = "ONEREC_AMAZON_BEAUTY"
CODE = code_version(__name__, "amazon_beauty_system")


def data_directory() -> Path:
    """Where the data is: by `ONEREC_AMAZON_BEAUTY`, or beside the checkout."""
    beside = CHECKOUT.parent / "shared" / "data" / "amazon_beauty"
    return Path(os.environ.get(DATA_VARIABLE) or beside).expanduser()


@dg.asset(
    name=SYSTEM,
    partitions_def=dg.StaticPartitionsDefinition(list(PARTITIONS)),
    group_name=GROUP,
    kinds={"pytorch"},
    code_version=CODE,
    pool=POOL_TRAINER,
)
def amazon_beauty_system(
    context: dg.AssetExecutionContext, artifacts: Artifacts, compute: Compute
) -> dg.MaterializeResult:
    """One system with one seed, trained and measured; 25 to 45 minutes of a core if learned, the
    published settings of SASRec hours without a GPU.

    Killed and run again, it is resumed after its last whole epoch.
    """
    from experiments.amazon_beauty.reviews import read_amazon
    from experiments.amazon_beauty.systems import BUDGETS, SYSTEMS
    from experiments.amazon_beauty.training import SystemRun, save_results
    from onerec.evaluation.metric_table import Metric

    store, partition = artifacts.store, context.partition_key
    name, seed = partition.rsplit("-", 1)
    try:
        reviews = read_amazon(data_directory())
    except ValueError as error:
        raise dg.Failure(str(error)) from error
    budget = BUDGETS[name]
    key: dict[str, Any] = {
        "config": {"budget": asdict(budget) if budget else None},
        "upstream": {"amazon_beauty": reviews.sha256},
        "code_version": CODE,
    }
    scratch = store.scratch(SYSTEM, partition, key)
    run = SystemRun(reviews, scratch, int(seed), context.log.info, compute.runtime())
    with store.write(SYSTEM, partition, seed=run.seed, **key) as draft:
        results = SYSTEMS[name](run, budget)
        save_results(draft.path, results)
    shutil.rmtree(scratch)
    shown = {
        f"recall@10 of {row}": float(r.values[Metric("recall@10")].mean())
        for row, r in results.items()
    }
    return published(draft.artifact, shown)


@dg.asset(
    group_name=GROUP,
    kinds={"table"},
    code_version=code_version(__name__, "amazon_beauty_table"),
    deps=[SYSTEM],
)
def amazon_beauty_table(artifacts: Artifacts) -> dg.MaterializeResult:
    """Counting baselines, SASRec by three losses, TIGER and OneRec by TIGER's protocol, with and
    without a filter of seen items; published figures beside them."""
    from experiments.amazon_beauty.table import table_of_amazon_beauty
    from experiments.amazon_beauty.training import BeautyResult, load_results

    store = artifacts.store
    read = {key: store.latest(SYSTEM, key) for key in PARTITIONS}
    hashes = {artifact.manifest["upstream"]["amazon_beauty"] for artifact in read.values()}
    if len(hashes) > 1:
        raise dg.Failure(
            f"systems were measured on different data: {sorted(hashes)}; backfill {SYSTEM}"
        )
    measured: dict[str, list[BeautyResult]] = {}
    for artifact in read.values():
        for row, result in load_results(artifact.path).items():
            measured.setdefault(row, []).append(result)
    return written([table_of_amazon_beauty(measured, hashes.pop(), SEEDS)])
