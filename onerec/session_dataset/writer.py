"""Writes a session dataset: Parquet, one directory per split."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from onerec.schema import SESSION_DATASET, SPLITS
from onerec.session_dataset.reader import open_sessions
from onerec.session_dataset.splits import split_of

BATCH_ROWS = 50_000
"""Sessions per row group, and in memory at once."""


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
    """Split sessions by day and write them; the files do not depend on the batch size.

    Args:
        batches: `schema.SESSION_DATASET` without `split`, in the order of the files.
        test_day: The partition.
        valid_day: The last day before it that has sessions.
        directory: Gets `split=<name>/part-00000.parquet`, an empty table where a split is empty.
    """
    sessions: dict[str, int] = dict.fromkeys(SPLITS, 0)
    counts = _Counts()
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
            counts.add(table)
            for name, rows in _by_split(table):
                sessions[name] += rows.num_rows
                writers[name].write_table(rows)
    return counts.written(sessions)


def take_over_files(made: Path, directory: Path) -> None:
    """Move what a SQL engine wrote into place: `split_directory=<split>` becomes `split=<split>`.

    Args:
        made: Directory of the engine's files, `schema.SESSION_DATASET` in order; removed.
        directory: Gets `split=<name>/part-00000.parquet` and so on, or an empty table.
    """
    for split in SPLITS:
        files = sorted((made / f"split_directory={split}").glob("*.parquet"))
        first = split_file(directory, split)
        for number, file in enumerate(files):
            file.rename(first.with_name(f"part-{number:05d}.parquet"))
        if not files:
            pq.write_table(SESSION_DATASET.empty_table(), first)
    shutil.rmtree(made, ignore_errors=True)


def count_sessions(directory: Path) -> WrittenSessions:
    """Count what a written session dataset holds, reading only the columns needed."""
    columns = ["item_ids", "is_good", "target_item_ids", "history_item_ids"]
    sessions: dict[str, int] = {}
    counts = _Counts()
    for split in SPLITS:
        before = counts.sessions
        for batch in open_sessions(directory, [split]).to_batches(columns=columns):
            counts.add(pa.Table.from_batches([batch]))
        sessions[split] = counts.sessions - before
    return counts.written(sessions)


@dataclass
class _Counts:
    """Running sums over sessions."""

    exposures: int = 0
    sessions: int = 0
    good_sessions: int = 0
    target_items: int = 0
    history_items: int = 0

    def add(self, sessions: pa.Table) -> None:
        good = sessions.column("is_good")
        targets = pc.list_value_length(sessions.column("target_item_ids"))
        self.exposures += _total_length(sessions.column("item_ids"))
        self.sessions += sessions.num_rows
        self.good_sessions += pc.sum(good).as_py() or 0
        self.target_items += pc.sum(targets.filter(good)).as_py() or 0
        self.history_items += _total_length(sessions.column("history_item_ids"))

    def written(self, per_split: dict[str, int]) -> WrittenSessions:
        funnel = {
            "exposures": self.exposures,
            "sessions": self.sessions,
            "good sessions": self.good_sessions,
            "target items": self.target_items,
        }
        return WrittenSessions(per_split, funnel, self.history_items)


def write_split(sessions: pa.Table, split: str, directory: Path) -> None:
    """Write one split, `schema.SESSION_DATASET`, as a file of its own."""
    pq.write_table(sessions.cast(SESSION_DATASET), split_file(directory, split))


def split_file(directory: Path, split: str) -> Path:
    """The file of a split; its directory is made."""
    file = directory / f"split={split}" / "part-00000.parquet"
    file.parent.mkdir(parents=True)
    return file


def _by_split(sessions: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The sessions of each split that has any; copying lists costs, so only where days meet."""
    names = sessions.column("split")
    if len(names.unique()) == 1:
        yield names[0].as_py(), sessions
        return
    for name in SPLITS:
        rows = sessions.filter(pc.equal(names, name))
        if rows.num_rows:
            yield name, rows


def _total_length(lists: pa.ChunkedArray) -> int:
    return pc.sum(pc.list_value_length(lists)).as_py() or 0


def _in_batches_of(rows: int, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in equal batches, so that files do not depend on the database's batches."""
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
