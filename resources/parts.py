"""What is delivered: parts, one file or one table each, in the contract's names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa

from onerec.datasets.data_file import DataFile
from resources.casts import TimeStyle


@dataclass(frozen=True)
class LogDays:
    """The days of a log whose files hold more than one day.

    Attributes:
        first: Rows of no day are delivered with it.
        last: None: the log goes on.
        keep_before: Rows of earlier days are delivered with the first day, and rejected there. Else
            the user has set the first day, and they are no part of the log.
        keep_after: The same for later days.
    """

    first: date
    last: date | None
    keep_before: bool
    keep_after: bool


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows of one file or table, in the contract's names.

    Attributes:
        source: Where the rows are.
        name: What rejected rows call it.
        number: Its place in the delivery.
        columns: Contract name -> names of the columns that hold it: one, or a date and a time.
        scales: Contract name -> factor from the delivered unit.
        decimal: Before the decimals of texts; see `NumberStyle`.
        true_values: Contract name of a flag -> the values that mean yes; see `typed`.
        features: Name of a further feature of items -> its column, and whether it holds numbers.
        defaults: Contract name -> SQL of what a column is that the file does not have.
        new_keys: Columns of the contract that lines of JSON must not have, as its first lines lack
            them: else they would be left out without a word.
        times: How times are written.
        zone: Time zone of the log's days.
        day: The delivery that every row belongs to; None: that of the row's own time.
        log_days: The log's days, where `day` is None.
        published_by: Items that are published later are left out.
    """

    source: DataFile | pa.Table
    name: str
    number: int = 0
    columns: Mapping[str, tuple[str, ...]]
    scales: Mapping[str, float] = field(default_factory=dict)
    decimal: str | None = None
    true_values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    features: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    new_keys: Sequence[str] = ()
    times: TimeStyle = field(default_factory=TimeStyle)
    zone: str = "UTC"
    day: date | None = None
    log_days: LogDays | None = None
    published_by: date | None = None


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Parts of a table for some days that follow one another.

    Attributes:
        days: The days.
        parts: Every part that may hold rows of them.
        ignored: Delivered columns that the data contract does not know.
        is_full: A delivery of the whole catalogue: items that it no longer holds are withdrawn.
        require_times: Called with a day of which no row has a usable time: raises a ValueError
            that says why, or accepts it.
    """

    days: Sequence[date]
    parts: Sequence[Part]
    ignored: tuple[str, ...] = ()
    is_full: bool = False
    require_times: Callable[[date], None] = lambda day: None


def table_part(table: pa.Table, contract: pa.Schema, what: str, day: date | None) -> Part:
    """A delivered table as a part.

    Args:
        table: Any subset of the contract's columns, in any type.
        contract: The table's schema; columns that are not nullable are required.
        what: The table and day, for messages.
        day: The day it is delivered for.

    Raises:
        ValueError: A required column is missing.
    """
    names = table.column_names
    missing = [f.name for f in contract if not f.nullable and f.name not in names]
    if missing and (table.num_rows or table.num_columns):
        raise ValueError(
            f"{what}: required column {', '.join(map(repr, missing))} is missing; delivered are "
            f"{', '.join(names) or 'none'}. Name it in the delivery, or map it in the data set's "
            "column mapping"
        )
    kept = [n for n in contract.names if n in names]
    return Part(source=table, name=what, columns={n: (n,) for n in kept}, day=day)
