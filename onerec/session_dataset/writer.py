"""Writes a session dataset: Parquet, one directory per split."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from onerec.schema import SESSION_DATASET, SPLITS
from onerec.session_dataset.splits import split_of

BATCH_ROWS = 50_000
"""Sessions in memory at a time, and in a row group."""


@dataclass(frozen=True)
class WrittenSessions:
    """What `write_session_dataset` wrote.

    Attributes:
        sessions: Per split.
        funnel: `exposures`, `sessions`, `good sessions` and their `target items`.
        history_items: Of all sessions.
    """

    sessions: dict[str, int]
    funnel: dict[str, int]
    history_items: int

    def per_session(self) -> dict[str, float]:
        """Means over the sessions."""
        sessions = max(self.funnel["sessions"], 1)
        return {
            "exposures per session": self.funnel["exposures"] / sessions,
            "history items per session": self.history_items / sessions,
            "good share": self.funnel["good sessions"] / sessions,
        }


def write_session_dataset(
    batches: Iterable[pa.RecordBatch], test_day: date, directory: Path, *, valid_day: date | None
) -> WrittenSessions:
    """Split sessions by day and write them, in batches that do not show in the files.

    Args:
        batches: `schema.SESSION_DATASET` without `split`, in the order of the files.
        test_day: The partition.
        valid_day: The last day before it that has sessions.
        directory: Gets `split=<name>/part-00000.parquet`, an empty table where a split is empty.
    """
    history_items = 0
    sessions: dict[str, int] = dict.fromkeys(SPLITS, 0)
    steps = ("exposures", "sessions", "good sessions", "target items")
    funnel: dict[str, int] = dict.fromkeys(steps, 0)
    files = {split: split_file(directory, split) for split in SPLITS}
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(pq.ParquetWriter(file, SESSION_DATASET))
            for split, file in files.items()
        }
        for batch in _in_batches_of(BATCH_ROWS, batches):
            split = split_of(batch.column("session_date"), test_day, valid_day)
            table = pa.Table.from_batches([batch]).append_column("split", split)
            table = table.select(SESSION_DATASET.names).cast(SESSION_DATASET)
            good = table.filter(table.column("is_good"))
            funnel["exposures"] += _total_length(table.column("item_ids"))
            funnel["sessions"] += table.num_rows
            funnel["good sessions"] += good.num_rows
            funnel["target items"] += _total_length(good.column("target_item_ids"))
            history_items += _total_length(table.column("history_item_ids"))
            for name, writer in writers.items():
                rows = table.filter(pc.equal(table.column("split"), name))
                sessions[name] += rows.num_rows
                if rows.num_rows:
                    writer.write_table(rows)
    return WrittenSessions(
        sessions=sessions,
        funnel=funnel,
        history_items=history_items,
    )


def write_split(sessions: pa.Table, split: str, directory: Path) -> None:
    """Write one split, `schema.SESSION_DATASET`, as a file of its own."""
    pq.write_table(sessions.cast(SESSION_DATASET), split_file(directory, split))


def split_file(directory: Path, split: str) -> Path:
    """The file of a split; its directory is made."""
    file = directory / f"split={split}" / "part-00000.parquet"
    file.parent.mkdir(parents=True)
    return file


def _total_length(lists: pa.ChunkedArray) -> int:
    return pc.sum(pc.list_value_length(lists)).as_py() or 0


def _in_batches_of(rows: int, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of one size: the database's own must not show in the files."""
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
