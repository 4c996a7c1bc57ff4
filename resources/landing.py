"""Delivered tables as text, nothing lost, nothing rejected: the staging SQL rejects rows."""

import pyarrow as pa


def as_delivered(
    delivered: pa.Table, contract: pa.Schema, what: str
) -> tuple[pa.Table, tuple[str, ...]]:
    """A delivery in the contract's columns, each as text.

    Args:
        delivered: Any subset of the contract's columns, in any type.
        contract: The table's schema; columns that are not nullable are required.
        what: The table and day, for messages.

    Returns:
        The table with every column of the contract as string, null where a column was not
        delivered, and the names of delivered columns that the contract does not know.

    Raises:
        ValueError: A required column is missing.
    """
    missing = [f.name for f in contract if not f.nullable and f.name not in delivered.column_names]
    if missing and (delivered.num_rows or delivered.num_columns):
        raise ValueError(
            f"{what}: required column {', '.join(map(repr, missing))} is missing; delivered are "
            f"{', '.join(delivered.column_names) or 'none'}. Name it in the delivery, or map it in "
            "the data set's column mapping"
        )
    columns = {
        name: _as_text(delivered.column(name))
        if name in delivered.column_names
        else pa.nulls(delivered.num_rows, pa.string())
        for name in contract.names
    }
    ignored = tuple(n for n in delivered.column_names if n not in contract.names)
    return pa.table(columns), ignored


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_timestamp(kind):
        # a naive timestamp is UTC by contract; nanoseconds are more than the warehouse keeps
        return column.cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.string())
    if _is_bytes(kind) or _is_text(kind):
        return _valid_text(column)
    return column.cast(pa.string())


def _valid_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text, with bytes that are not UTF-8 replaced instead of refusing the delivery."""
    as_bytes = column.cast(pa.large_binary())
    try:
        return as_bytes.cast(pa.string())
    except pa.ArrowInvalid:
        # a Python loop, but only over a delivery that has broken bytes
        values = [v if v is None else v.decode("utf-8", "replace") for v in as_bytes.to_pylist()]
        return pa.chunked_array([pa.array(values, pa.string())])


def _is_bytes(kind: pa.DataType) -> bool:
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or kind == pa.binary_view()
    )


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()
