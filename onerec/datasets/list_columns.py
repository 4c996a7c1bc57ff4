"""List columns as flat values with row numbers, and back to padded arrays: no loop over rows."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from onerec.tokenizer.semantic_ids import SemanticIds

Array = npt.NDArray[np.generic]


def strings(table: pa.Table, name: str) -> Array:
    """A column of strings as objects."""
    return table.column(name).to_numpy().astype(object)


def flags(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Booleans, null counting as false."""
    return pc.fill_null(column, False).to_numpy(zero_copy_only=False).astype(np.bool_)


def flat_values(table: pa.Table, name: str, *, of: str | None = None) -> pa.ChunkedArray:
    """Every value of a list column, one row after the other; as many per row as `of` has."""
    column = table.column(name)
    if of is not None and not _lengths(table, name).equals(_lengths(table, of)):
        raise ValueError(
            f"session_dataset: {name} and {of} differ in length within a row; materialise it again"
        )
    return pc.list_flatten(column)  # pyright: ignore


def _lengths(table: pa.Table, name: str) -> pa.ChunkedArray:
    lengths = pc.list_value_length(table.column(name))  # pyright: ignore
    return pc.fill_null(lengths.cast(pa.int64()), 0)


def items_of(
    table: pa.Table, name: str, semantic_ids: SemanticIds
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Item index (-1: unknown) and table row of every value of a list column."""
    rows = np.repeat(np.arange(table.num_rows), _lengths(table, name).to_numpy())
    return semantic_ids.index_of(flat_values(table, name)), rows


def known_items_of(
    table: pa.Table, name: str, semantic_ids: SemanticIds
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The same without the unknown items."""
    items, rows = items_of(table, name, semantic_ids)
    return items[items >= 0], rows[items >= 0]


def positions(rows: npt.NDArray[np.int64], num_rows: int) -> npt.NDArray[np.int64]:
    """Position of each value within its row; `rows` is sorted."""
    counts = np.bincount(rows, minlength=num_rows)
    return np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)


def first_of_each(
    values: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], num_rows: int, width: int
) -> npt.NDArray[np.int32]:
    """(num_rows, width): the first values of each row, -1 padded on the right."""
    return _pad(values, rows, positions(rows, num_rows), num_rows, width)


def last_of_each(
    values: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], num_rows: int, width: int
) -> npt.NDArray[np.int32]:
    """(num_rows, width): the last values of each row, in order, -1 padded on the right."""
    too_many = np.maximum(np.bincount(rows, minlength=num_rows) - width, 0)
    return _pad(values, rows, positions(rows, num_rows) - too_many[rows], num_rows, width)


def _pad(
    values: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    num_rows: int,
    width: int,
) -> npt.NDArray[np.int32]:
    padded = np.full((num_rows, width), -1, dtype=np.int32)
    fits = (positions >= 0) & (positions < width)
    padded[rows[fits], positions[fits]] = values[fits]
    return padded
