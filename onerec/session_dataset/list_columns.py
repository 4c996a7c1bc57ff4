"""List columns of sessions, cut from flat rows that a database has sorted.

A database sorts more rows than memory holds, but not so for lists that it aggregates. Here one
batch is in memory at a time. Shapes: E flat rows, S sessions.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onerec.session_dataset.padding import positions, ranges

EXPOSURE_LISTS = {
    "item_ids": "item_id",
    "watch_seconds": "watch_seconds",
    "is_watched": "is_watched",
    "is_positive": "is_positive",
    "signals": "signals",
    "is_like": "is_like",
    "is_follow": "is_follow",
    "is_comment": "is_comment",
    "is_share": "is_share",
    "is_dislike": "is_dislike",
}
"""List columns of a session, and the column of its exposures that each is made of."""


def with_histories(
    moments: Iterable[pa.RecordBatch], history_length: int
) -> Iterator[pa.RecordBatch]:
    """Add to each session the last positive items of its user before it.

    Args:
        moments: Positive items and sessions of users, ordered by user and time; at the same time
            sessions come first. `user_id`; `id` of the item or session; `is_item`.
        history_length: H, the most items of a history.

    Yields:
        The sessions of a batch, in order: `session_id`, `history_item_ids`, oldest first.
    """
    carried = None
    for batch in moments:
        rows = pa.Table.from_batches([batch])
        if carried is not None:
            rows = pa.concat_tables([carried, rows]).combine_chunks()
        user, ids = (rows.column(n).combine_chunks() for n in ("user_id", "id"))
        is_item = rows.column("is_item").to_numpy()
        before = np.cumsum(is_item) - is_item  # (E,) items of the batch before each row
        opens = np.ones(len(rows), dtype=bool)
        opens[1:] = pc.not_equal(user[1:], user[:-1]).to_numpy(zero_copy_only=False)
        first_row = np.maximum.accumulate(np.where(opens, np.arange(len(rows)), 0))
        session, item = np.flatnonzero(~is_item), np.flatnonzero(is_item)
        end = before[session]
        begin = np.maximum(end - history_length, before[first_row[session]])
        lengths = end - begin
        history = _lists(lengths, ids.take(pa.array(item[ranges(begin, lengths)])))
        yield pa.RecordBatch.from_arrays(
            [ids.take(pa.array(session)), history], ["session_id", "history_item_ids"]
        )
        # a user may go on in the next batch
        kept = item[max(len(item) - history_length, before[first_row[-1]]) :]
        carried = rows.take(pa.array(kept))


def with_exposures(
    sessions: Iterable[pa.RecordBatch], exposures: pa.RecordBatchReader, session_items: int
) -> Iterator[pa.RecordBatch]:
    """Add to each session the lists of its exposures and its targets.

    Args:
        sessions: With a number `session_row` and `num_exposures`, in the order of the exposures.
        exposures: One row an exposure: its session's `session_row`, the columns of
            `EXPOSURE_LISTS`, and `is_first_watch`; a session's rows stand together, in order.
        session_items: M, the most targets.

    Yields:
        The sessions of a batch without these two: `EXPOSURE_LISTS` and `target_item_ids`, the first
        M items watched.

    Raises:
        ValueError: The numbers of exposures are not those of the rows.
    """
    flat = _Rows(exposures)
    for batch in sessions:
        lengths = batch.column("num_exposures").to_numpy()
        shown = flat.take(int(lengths.sum()))
        _check_owner(batch, shown, lengths)
        table = pa.Table.from_batches([batch]).drop_columns(["session_row", "num_exposures"])
        for name, column in EXPOSURE_LISTS.items():
            table = table.append_column(name, _lists(lengths, shown.column(column)))
        targets = _first_watched(shown, lengths, session_items)
        yield from table.append_column("target_item_ids", targets).combine_chunks().to_batches()
    if flat.take(1).num_rows:
        raise ValueError(f"exposures: there are more than the sessions count. {_REMEDY}")


_REMEDY = "The day's tables are of two builds: materialise sessions of the window again"


def _check_owner(sessions: pa.RecordBatch, shown: pa.Table, lengths: np.ndarray) -> None:
    wanted = sessions.column("session_row").to_numpy()
    found = shown.column("session_row").to_numpy()
    if np.array_equal(found, np.repeat(wanted, lengths)):
        return
    raise ValueError(f"exposures: not as many rows as the sessions count. {_REMEDY}")


def _first_watched(shown: pa.Table, lengths: np.ndarray, most: int) -> pa.ListArray:
    watched = np.flatnonzero(shown.column("is_first_watch").to_numpy())
    session = np.repeat(np.arange(len(lengths)), lengths)[watched]
    kept = watched[positions(session, len(lengths)) < most]
    counts = np.minimum(np.bincount(session, minlength=len(lengths)), most)
    return _lists(counts, shown.column("item_id").take(pa.array(kept)))


def _lists(lengths: np.ndarray, values: pa.Array | pa.ChunkedArray) -> pa.ListArray:
    """Consecutive values as lists of these lengths."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    flat = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return pa.ListArray.from_arrays(pa.array(offsets), flat)


class _Rows:
    """Takes rows from batches, however they are cut."""

    def __init__(self, reader: pa.RecordBatchReader):
        self._batches, self._rest = iter(reader), reader.schema.empty_table()

    def take(self, num_rows: int) -> pa.Table:
        """The next rows; fewer at the end."""
        parts = [self._rest]
        while sum(part.num_rows for part in parts) < num_rows:
            batch = next(self._batches, None)
            if batch is None:
                break
            parts.append(pa.Table.from_batches([batch]))
        rows = pa.concat_tables(parts)
        self._rest = rows.slice(num_rows)
        return rows.slice(0, num_rows).combine_chunks()
