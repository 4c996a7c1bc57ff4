"""The Parquet boundary: the window's sessions as (history, exposures, targets), split by day."""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.code_version import code_version
from assets.sessions import SessionLaunchpad
from assets.support import (
    DAILY,
    DAY_BY_DAY,
    POOL_WAREHOUSE,
    STAGES,
    launchpad,
    published,
    upstream,
    window,
)
from onerec.artifacts import write_json
from onerec.config import SessionConfig, WindowConfig
from resources.stores import Artifacts
from resources.warehouse import Warehouse

if TYPE_CHECKING:
    import pyarrow as pa

CODE = code_version(__name__, "session_dataset")
W = STAGES.window.window_days
BATCH_ROWS = 50_000
"""Sessions in memory at a time, and in a row group."""


class SessionDatasetLaunchpad(SessionLaunchpad, launchpad(STAGES.window)):
    """The window, and the settings the sessions were built with."""


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="sessions",
    kinds={"parquet"},
    pool=POOL_WAREHOUSE,
    code_version=CODE,
    deps=[
        upstream(name, first=-W)
        for name in ("sessions", "good_sessions", "session_examples", "rejected_events")
    ],
)
def session_dataset(
    context: dg.AssetExecutionContext,
    config: SessionDatasetLaunchpad,
    warehouse: Warehouse,
    artifacts: Artifacts,
) -> dg.MaterializeResult:
    """Sessions of the window [D - W, D], good or not: train, valid (day D - 1) and test (day D).

    Histories reach back as far as the warehouse does, also before the window.
    """
    from onerec.pictures import funnel, svg_markdown

    sessions, days = split_config(config)
    first, _ = window(context.partition_key, days.window_days)
    day = date.fromisoformat(context.partition_key)
    rows_read: dict[str, str] = {}
    with artifacts.store.write(
        "session_dataset",
        context.partition_key,
        config={"sessions": asdict(sessions), "window": asdict(days)},
        upstream=rows_read,  # filled below: the rows are hashed while they are written
        code_version=CODE,
    ) as draft:
        delivered = sum(warehouse.num_delivered("raw_events", first, day).values())
        with warehouse.session_examples(first, day) as batches:
            stats = write_splits(with_split(batches, day), draft.path)
        rows_read["session_examples"] = stats.pop("rows_hash")
        draft.row_counts.update(stats["sessions"] | {"rows": sum(stats["sessions"].values())})
        steps = {"delivered rows": delivered, **stats["funnel"]}
        write_json(draft.path / "stats.json", {**stats, "funnel": steps})
    picture = funnel(steps, f"Sessions of {first} to {day}")
    return published(
        draft.artifact,
        {"funnel": dg.MetadataValue.md(svg_markdown(picture)), **steps, **stats["per_session"]},
    )


def split_config(config: dg.Config) -> tuple[SessionConfig, WindowConfig]:
    """The two core settings that the launchpad of this asset shows as one."""
    values = config.model_dump()
    days = WindowConfig(window_days=values.pop("window_days"))
    return SessionConfig(**values), days


def with_split(batches: "pa.RecordBatchReader", day: date) -> Iterator["pa.RecordBatch"]:
    """Batches in the columns of `schema.SESSION_DATASET`: test is the day, valid the day before."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from onerec import schema

    for batch in _in_batches_of(BATCH_ROWS, batches):
        dates = batch.column("session_date")
        split = pc.if_else(
            pc.equal(dates, pa.scalar(day)),
            "test",
            pc.if_else(pc.equal(dates, pa.scalar(day - timedelta(days=1))), "valid", "train"),
        )
        table = pa.Table.from_batches([batch]).append_column("split", split)
        yield from (
            table.select(schema.SESSION_DATASET.names).cast(schema.SESSION_DATASET).to_batches()
        )


def write_splits(batches: Iterator["pa.RecordBatch"], directory: Path) -> dict[str, Any]:
    """Write one Parquet shard per split as the batches come, and count them.

    Args:
        batches: `schema.SESSION_DATASET` in its final order.
        directory: Gets `split=<name>/part-00000.parquet`, an empty table where a split is empty.

    Returns:
        JSON-able counts: `sessions` per split, `funnel`, `per_session` means, and `rows_hash`.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from onerec import schema

    counts = dict.fromkeys(schema.SPLITS, 0)
    funnel = {"exposures": 0, "sessions": 0, "good sessions": 0, "target items": 0}
    history_items = 0
    files = {s: directory / f"split={s}" / "part-00000.parquet" for s in schema.SPLITS}
    with ExitStack() as stack:
        writers = {}
        for split, file in files.items():
            file.parent.mkdir(parents=True)
            writers[split] = stack.enter_context(pq.ParquetWriter(file, schema.SESSION_DATASET))
        for batch in batches:
            good = batch.filter(batch.column("is_good"))
            funnel["exposures"] += _total_length(batch.column("item_ids"))
            funnel["sessions"] += batch.num_rows
            funnel["good sessions"] += good.num_rows
            funnel["target items"] += _total_length(good.column("target_item_ids"))
            history_items += _total_length(batch.column("history_item_ids"))
            for split, writer in writers.items():
                rows = batch.filter(pc.equal(batch.column("split"), split))
                counts[split] += rows.num_rows
                if rows.num_rows:
                    writer.write_batch(rows)
    sessions = max(funnel["sessions"], 1)
    return {
        "sessions": counts,
        "funnel": funnel,
        "per_session": {
            "exposures per session": funnel["exposures"] / sessions,
            "history items per session": history_items / sessions,
            "good share": funnel["good sessions"] / sessions,
        },
        "rows_hash": hashlib.sha256(b"".join(map(_file_hash, files.values()))).hexdigest()[:16],
    }


def _total_length(lists: "pa.Array") -> int:
    import pyarrow.compute as pc

    return pc.sum(pc.list_value_length(lists)).as_py() or 0


def _file_hash(file: Path) -> bytes:
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").digest()


def _in_batches_of(rows: int, batches: Iterable["pa.RecordBatch"]) -> Iterator["pa.RecordBatch"]:
    """The same rows in batches of one size: the database's own must not show in the files."""
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(b.num_rows for b in waiting) >= rows:
            table = pa.Table.from_batches(waiting).combine_chunks()
            full = table.num_rows // rows * rows
            yield from table.slice(0, full).to_batches(max_chunksize=rows)
            waiting = table.slice(full).to_batches()
    if waiting:
        yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()
