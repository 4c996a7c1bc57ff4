"""Which items a row holds, a user or a session: a 0/1 matrix on disk, written batch by batch.

The system keeps in memory what is in use (`RowsOnDisk`). Shapes: R rows, N columns, E ones.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from onerec.session_dataset.padding import distinct, positions
from onerec.session_dataset.rows_on_disk import RowsOnDisk

LONGEST_ROW = 2_500
"""Items of a row at most, a random sample of a longer one: pairs grow with its square.

The interaction cut of Schelter, Boden and Markl, Scalable Similarity-Based Neighborhood Methods
with MapReduce (RecSys 2012), who lose nothing from 500 on.
"""
CHUNK = 4_000_000
"""Ones that are handled at once."""
MOST_ONES = 2**31 - 1
USER_PARTS = 128
"""Parts of the users, by hash; the pairs of one part are in memory at once."""
_RECORD = np.dtype([("user", np.uint64), ("item", np.int32)])


@dataclass(frozen=True)
class Incidence:
    """A 0/1 matrix in compressed rows.

    Attributes:
        starts: (R + 1,) int32, where each row begins, and the end.
        columns: (E,) int32, ascending within a row.
        num_columns: N.
    """

    starts: np.ndarray
    columns: np.ndarray
    num_columns: int

    @property
    def num_rows(self) -> int:
        return len(self.starts) - 1

    def counts(self) -> np.ndarray:
        """(N,) rows that hold each column."""
        found = np.zeros(self.num_columns, np.int64)
        for at in range(0, len(self.columns), CHUNK):
            found += np.bincount(self.columns[at : at + CHUNK], minlength=self.num_columns)
        return found

    def num_pairs(self, other: "Incidence") -> np.ndarray:
        """(N,) ones of another matrix in the rows that hold each column."""
        found = np.zeros(self.num_columns)
        for row, columns in self._chunks():
            length = other.starts[row + 1] - other.starts[row]
            found += np.bincount(columns, length, minlength=self.num_columns)
        return found

    def transposed(self) -> "Incidence":
        """(N, R), on disk as well."""
        starts = np.concatenate([[0], np.cumsum(self.counts())])
        rows, free = filled_on_disk(len(self.columns), 0), starts[:-1].copy()
        for row, columns in self._chunks():
            order = np.argsort(columns, kind="stable")
            held = np.bincount(columns, minlength=self.num_columns)
            place = positions(columns[order], self.num_columns)
            rows[free[columns[order]] + place] = row[order]
            free += held
        return Incidence(starts.astype(np.int32), rows, self.num_rows)

    def matrix(self, ones: np.ndarray, first: int = 0, end: int | None = None) -> sp.csr_array:
        """Some rows as a sparse matrix that shares this one's memory.

        Args:
            ones: At least E ones, which are its values.
            first: The first row.
            end: The row after the last; all rows by default.
        """
        starts = self.starts[first : (self.num_rows if end is None else end) + 1]
        columns = self.columns[starts[0] : starts[-1]]
        shape = (len(starts) - 1, self.num_columns)
        starts = starts - starts[0] if starts[0] else starts  # those of all rows stay on disk
        return sp.csr_array((ones[: len(columns)], columns, starts), shape=shape)

    def _chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(row, column) of the ones, `CHUNK` at a time."""
        for at in range(0, len(self.columns), CHUNK):
            columns = np.asarray(self.columns[at : at + CHUNK])
            # of the same type: `searchsorted` would copy what it searches
            at_each = np.arange(at, at + len(columns), dtype=self.starts.dtype)
            yield np.searchsorted(self.starts, at_each, side="right") - 1, columns


class IncidenceWriter:
    """Appends rows to an `Incidence`; a context manager, as `RowsOnDisk`."""

    def __init__(self, num_columns: int) -> None:
        self._num_columns, self._num_rows, self._end = num_columns, 0, 0
        self._starts, self._columns = RowsOnDisk(1), RowsOnDisk(1)
        self._starts.append(np.zeros((1, 1), np.int32))

    def __enter__(self) -> "IncidenceWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._starts.__exit__()
        self._columns.__exit__()

    def append(self, row: np.ndarray, column: np.ndarray, num_rows: int) -> None:
        """Add `num_rows` rows; what a row holds more than once counts once.

        Args:
            row: (E,) in [0, num_rows), in any order.
            column: (E,) in [0, N).
            num_rows: How many rows, empty ones too.

        Raises:
            ValueError: More ones than 32-bit indices count.
        """
        width = max(self._num_columns, 1)
        row, column = np.divmod(distinct(row.astype(np.int64) * width + column), width)
        length = np.bincount(row, minlength=num_rows)
        if length.max(initial=0) > LONGEST_ROW:
            kept = _sampled(row, column, self._num_rows, num_rows)
            column, length = column[kept], np.minimum(length, LONGEST_ROW)
        ends = self._end + np.cumsum(length)
        if len(ends) and ends[-1] > MOST_ONES:
            raise ValueError(
                f"more than {MOST_ONES:,} pairs of a row and an item in the window; use a smaller "
                "stages.sessions.window_days or history_length"
            )
        self._num_rows += num_rows
        self._end = int(ends[-1]) if len(ends) else self._end
        self._starts.append(ends[:, None].astype(np.int32))
        self._columns.append(column[:, None].astype(np.int32))

    def finish(self) -> Incidence:
        """All rows, mapped; they stay valid after the block."""
        starts, columns = (part.tensor().numpy()[:, 0] for part in (self._starts, self._columns))
        return Incidence(starts, columns, self._num_columns)


class UserItemPairs:
    """Pairs of a user and an item in any order, made an `Incidence` with a row per user.

    They wait on disk in `USER_PARTS` parts by the user's hash; one part is sorted at a time. A
    context manager. Two of ten million users share one of the 64-bit hashes with a probability of
    3e-6, and then count as one.
    """

    def __init__(self, num_items: int) -> None:
        self._num_items, self._files = num_items, ExitStack()
        self._parts = [
            self._files.enter_context(tempfile.TemporaryFile()) for _ in range(USER_PARTS)
        ]

    def __enter__(self) -> "UserItemPairs":
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def append(self, user: np.ndarray, item: np.ndarray) -> None:
        """Add pairs of a user's hash (E,) uint64 and an item index (E,)."""
        part = (user % np.uint64(USER_PARTS)).astype(np.int64)
        order = np.argsort(part, kind="stable")
        records = np.empty(len(order), _RECORD)
        records["user"], records["item"] = user[order], item[order]
        ends = np.cumsum(np.bincount(part, minlength=USER_PARTS))
        for file, rows in zip(self._parts, np.split(records, ends[:-1]), strict=True):
            file.write(rows.tobytes())

    def finish(self) -> Incidence:
        """The users' sets of items; the order of the users says nothing."""
        with IncidenceWriter(self._num_items) as writer:
            for file in self._parts:
                file.seek(0)
                records = np.frombuffer(file.read(), _RECORD)
                users = np.unique(records["user"])
                row = np.searchsorted(users, records["user"])
                writer.append(row, records["item"], len(users))
            return writer.finish()


def incidence_of(row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> Incidence:
    """The matrix (R, N) of some ones (E,), distinct or not."""
    with IncidenceWriter(shape[1]) as writer:
        writer.append(row, column, shape[0])
        return writer.finish()


def filled_on_disk(length: int, value: int) -> np.ndarray:
    """(length,) int32 of one value, on disk, writable."""
    with RowsOnDisk(1) as rows:
        for at in range(0, length, CHUNK):
            rows.append(np.full((min(CHUNK, length - at), 1), value, np.int32))
        return rows.tensor().numpy()[:, 0]


def _sampled(row: np.ndarray, column: np.ndarray, first: int, num_rows: int) -> np.ndarray:
    """(E,) bool: all of a row, or a random `LONGEST_ROW` of it, the same at every call."""
    state = (row + first).astype(np.uint64) << np.uint64(32) | column.astype(np.uint64)
    # splitmix64, so that neighbouring states give unrelated numbers
    state = state * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    order = np.lexsort((state ^ (state >> np.uint64(31)), row))
    kept = np.empty(len(row), bool)
    kept[order] = positions(row[order], num_rows) < LONGEST_ROW
    return kept
