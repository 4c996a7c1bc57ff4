"""One vector per item: text, co-watching, attributes and supplied vectors."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from typing import Any

import dagster as dg

from assets.code_version import code_version
from assets.support import (
    CORRECTABLE,
    DAILY,
    DAY_BY_DAY,
    PIPELINE,
    POOL_WAREHOUSE,
    launchpad,
    published,
    to_core,
    upstream,
)
from resources.stores import Artifacts, Compute, Source
from resources.warehouse import Warehouse

CODE = code_version(__name__, "item_embeddings")
MIN_SHARE_WITH_FEATURES = 0.5
"""Below this, most IDs would be arbitrary: a wrong column mapping, not a cold catalogue."""


class EmbeddingLaunchpad(launchpad(PIPELINE.embeddings)):
    """Settings of the embeddings."""


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="items",
    kinds={"pytorch"},
    pool=POOL_WAREHOUSE,
    code_version=CODE,
    deps=[CORRECTABLE, upstream("stg_items"), upstream("session_dataset")],
)
def item_embeddings(
    context: dg.AssetExecutionContext,
    config: EmbeddingLaunchpad,
    warehouse: Warehouse,
    artifacts: Artifacts,
    source: Source,
    compute: Compute,
) -> dg.MaterializeResult:
    """A unit vector per item first seen up to day D, learned from the days before D."""
    from onerec.embeddings.item_embeddings import embed_items
    from onerec.embeddings.supplied_vectors import usable_vectors

    core, day = to_core(config, PIPELINE.embeddings), date.fromisoformat(context.partition_key)
    catalogue = warehouse.catalogue(day)
    supplied, unused = source.open().item_vectors(), {}
    if supplied is not None:
        supplied, unused = usable_vectors(supplied)
    if unused:
        context.log.warning("supplied vectors that are not used: %s", unused)
    sessions = artifacts.store.latest("session_dataset", context.partition_key)
    read = {"catalogue": rows_hash(catalogue), "session_dataset": sessions.version}
    if supplied is not None:
        read["item_vectors"] = rows_hash(supplied)
    key = {"config": asdict(core), "upstream": read, "code_version": CODE}
    name, report = "item_embeddings", context.log.info
    with (
        artifacts.store.write(name, context.partition_key, **key) as draft,
        compute.shard_pool(artifacts.store, name, context.partition_key, key, report) as pool,
    ):
        embeddings = embed_items(
            catalogue,
            sessions.path,
            supplied,
            core,
            before=day,
            pool=pool,
            on_progress=report,
        )
        embeddings.save(draft.path)
        flags = {**embeddings.flags, "has_nothing": embeddings.has_nothing}
        draft.row_counts["rows"] = len(embeddings.item_ids)
        draft.metadata |= {name: int(flag.sum()) for name, flag in flags.items()}
    shares = {f"share that {n.replace('_', ' ')}": float(f.mean()) for n, f in flags.items()}
    rows = {f"supplied vectors not used: {reason}": n for reason, n in unused.items()}
    return published(draft.artifact, {"width": embeddings.vectors.shape[1], **shares, **rows})


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "vectors_are_unit_length",
            asset="item_embeddings",
            blocking=True,
            description="Every item has a finite vector of norm 1.",
        ),
        dg.AssetCheckSpec(
            "most_items_have_features",
            asset="item_embeddings",
            description="Items without text, attributes, co-watching or a supplied vector get an "
            "arbitrary one, and so an arbitrary ID.",
        ),
    ]
)
def item_embeddings_checks(
    context: dg.AssetCheckExecutionContext, artifacts: Artifacts
) -> Iterator[dg.AssetCheckResult]:
    """Properties of the vectors that the tokenizer relies on."""
    import numpy as np

    from onerec.embeddings.item_embeddings import load_item_embeddings

    path = artifacts.store.latest("item_embeddings", context.partition_key).path
    embeddings = load_item_embeddings(path)
    off = np.abs(np.linalg.norm(embeddings.vectors, axis=1) - 1)
    share = float(1 - embeddings.has_nothing.mean())
    worst = float(off.max())
    yield dg.AssetCheckResult(
        check_name="vectors_are_unit_length",
        asset_key="item_embeddings",
        passed=bool(worst < 1e-4),  # NaN compares false
        metadata={"largest deviation": worst},
    )
    yield dg.AssetCheckResult(
        check_name="most_items_have_features",
        asset_key="item_embeddings",
        passed=share >= MIN_SHARE_WITH_FEATURES,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"share": share, "smallest share allowed": MIN_SHARE_WITH_FEATURES},
    )


def rows_hash(table: Any) -> str:
    """Hash of an Arrow table's rows, in their order."""
    import hashlib

    import pyarrow as pa

    sink = pa.BufferOutputStream()
    combined = table.replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(sink, combined.schema) as writer:
        writer.write_table(combined)
    return hashlib.sha256(sink.getvalue()).hexdigest()[:16]
