"""Tables found in the files, and facts about each column from its first rows."""

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import duckdb
import pyarrow as pa

from onerec import schema
from onerec.config import SettingError
from onerec.datasets.files import DataFile, find
from onerec.urls import redact_url
from resources.casts import RawColumn, TimeStyle, typed
from resources.landing import plausible
from resources.sql_macros import create_macros
from resources.unusable_times import likely_format

T = TypeVar("T")
R = TypeVar("R")
SAMPLE_ROWS = 20_000
MOST = 0.95
"""Share of a column's values that must be of a kind for the column to be of it."""
_TIME = schema.EVENTS.field("event_time")
_NUMBER = schema.EVENTS.field("watch_seconds")
_FLAG = schema.EVENTS.field("is_like")


@dataclass(frozen=True, kw_only=True)
class ColumnFacts:
    """A column by its first rows.

    Attributes:
        name: As the file has it.
        kind: DuckDB's type; `VARCHAR` for CSV.
        known: Values that are not blank.
        distinct: Different ones among them.
        frequent: The most frequent ones, as text.
        numbers: Share of the values that are numbers.
        median: Of the numbers.
        times: Share that are times of a log, read with `time_format`.
        time_format: strptime format, where the text is not ISO 8601.
        whole_days: No time has a time of day.
        flags: Share that are yes or no.
        vectors: The values are lists of numbers.
    """

    name: str
    kind: str
    known: int
    distinct: int
    frequent: tuple[str, ...]
    numbers: float
    median: float | None
    times: float
    time_format: str | None
    whole_days: bool
    flags: float
    vectors: bool

    @property
    def words(self) -> str:
        """Its name in lower case, words apart: `visitorId:token` is `visitor id`."""
        apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", self.name.split(":")[0])
        return re.sub(r"[^a-z0-9]+", " ", apart.lower()).strip()

    @property
    def unit(self) -> str | None:
        """Unit of times that are numbers since 1970; None for texts, dates and 20260601."""
        if self.numbers < MOST or self.median is None or self.median < 1e8:
            return None
        sizes = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (1e20, "ns"))
        return next((unit for most, unit in sizes if self.median < most), None)


@dataclass(frozen=True, kw_only=True)
class FoundTable:
    """Files with the same columns.

    Attributes:
        files: In the order of their paths.
        columns: What their first rows say.
        has_header: The first row of a CSV names the columns.
        rows: The rows that were looked at, in the file's names.
    """

    files: tuple[DataFile, ...]
    columns: tuple[ColumnFacts, ...]
    has_header: bool
    rows: pa.Table

    def column(self, name: str) -> ColumnFacts:
        """A column by its name."""
        return next(c for c in self.columns if c.name == name)


def find_tables(data: str) -> tuple[list[FoundTable], tuple[str, ...]]:
    """The tables behind a directory, a glob or a file, the largest first, and what was not read.

    Raises:
        SettingError: Nothing is found, or no file can be read.
    """
    try:
        found, problems = find(data), list[str]()
    except ValueError as error:
        raise SettingError("DATA", redact_url(data), str(error)) from error
    groups: dict[tuple[object, ...], list[DataFile]] = {}
    for file, names in _read_each(_with_names, found.files, problems):
        if names:
            groups.setdefault((names, file.is_parquet, file.style), []).append(file)
    tables = _read_each(_look_at, groups.values(), problems)
    if problems and not tables:
        raise SettingError("DATA", data, problems[0])
    if not tables:
        others = f"; files of other endings: {', '.join(found.skipped)}" if found.skipped else ""
        remedy = (
            f"no Parquet or CSV file is found there{others}. Name a directory, a glob or a file"
        )
        raise SettingError("DATA", data, remedy)
    not_read = [f"not read: {problem}" for problem in problems]
    if found.skipped:
        not_read.append(
            f"not read, for their endings: {', '.join(found.skipped[:5])}; name such a file "
            "itself, make init DATA=file"
        )
    return sorted(tables, key=_size, reverse=True), tuple(not_read)


def _read_each(read: Callable[[T], R], wanted: Iterable[T], problems: list[str]) -> list[R]:
    """What can be read; why others cannot is added to `problems`."""
    done = []
    for part in wanted:
        try:
            done.append(read(part))
        except (OSError, ValueError) as error:
            problems.append(str(error))
    return done


def _size(table: FoundTable) -> int:
    return sum(int(f.filesystem.size(f.path)) for f in table.files)


def _with_names(file: DataFile) -> tuple[DataFile, tuple[str, ...]]:
    styled = _styled(file)
    return styled, styled.names


def _styled(file: DataFile) -> DataFile:
    """A CSV file with its own delimiter, and with made-up names where it has no header."""
    if file.is_parquet:
        return file
    lines = file.first_lines(6)
    if not lines:
        return file
    counts = {d: [line.count(d) for line in lines] for d in ("\t", ",", ";", "|")}
    delimiter = max(counts, key=lambda d: (min(counts[d]) > 0, min(counts[d])))
    own = "\t" if file.path.lower().split(".")[-1] in ("tsv", "tab") else ","
    style = file.style
    if delimiter != own and min(counts[delimiter]) > 0:
        style = replace(style, delimiter=delimiter)
    cells = next(csv.reader([lines[0]], delimiter=delimiter))
    if any(re.fullmatch(r"[-+]?[0-9][-+0-9.:T ]*", cell.strip()) for cell in cells):
        style = replace(style, names=tuple(f"column_{n}" for n in range(1, len(cells) + 1)))
    return replace(file, style=style)


def _look_at(files: Sequence[DataFile]) -> FoundTable:
    file = files[0]
    rows = pa.Table.from_batches(
        [next(iter(file.rows(range(len(file.names)))), pa.record_batch([], names=[]))]
    ).slice(0, SAMPLE_ROWS)
    if rows.num_columns:
        rows = rows.rename_columns(list(file.names))
    connection = duckdb.connect(":memory:", config={"threads": 1})
    try:
        create_macros(connection)
        columns = tuple(_column(connection, rows, name) for name in rows.column_names)
    finally:
        connection.close()
    return FoundTable(
        files=tuple(files), columns=columns, has_header=file.style.names is None, rows=rows
    )


def _column(connection: duckdb.DuckDBPyConnection, rows: pa.Table, name: str) -> ColumnFacts:
    connection.register("sample", rows.select([name]).rename_columns(["value"]))
    kind = connection.execute("describe from sample").fetchall()[0][1]
    raw = RawColumn("value", kind).as_text_where_needed()
    connection.execute("set TimeZone = 'UTC'")
    known, distinct, frequent = connection.execute(
        f"select count(*), count(distinct v), list(v order by n desc, v)[1:20] from (select "
        f"cast({raw.sql} as varchar) as v, count(*) as n from sample where not {raw.is_blank} "
        "group by 1)"
    ).fetchall()[0]
    known = connection.execute(f"select count(*) from sample where not {raw.is_blank}").fetchall()[
        0
    ][0]
    time_format = None
    times, whole_days = _times(connection, raw, None)
    if times < MOST and raw.is_text and frequent and (guessed := likely_format(frequent[0])):
        formatted, whole = _times(connection, raw, guessed)
        if formatted >= MOST:
            times, whole_days, time_format = formatted, whole, guessed
    number, flag = typed(_NUMBER, raw), typed(_FLAG, raw)
    numbers, median, flags = connection.execute(
        f"select count({number}), median({number}), count({flag}) from sample"
    ).fetchall()[0]
    share = 1 / max(known, 1)
    return ColumnFacts(
        name=name,
        kind=kind,
        known=known,
        distinct=distinct,
        frequent=tuple(frequent or ()),
        numbers=numbers * share,
        median=median,
        times=times,
        time_format=time_format,
        whole_days=whole_days,
        flags=flags * share,
        vectors=kind.startswith(("FLOAT[", "DOUBLE[")),
    )


def _times(
    connection: duckdb.DuckDBPyConnection, raw: RawColumn, time_format: str | None
) -> tuple[float, bool]:
    """Share of the values that are times of a log, and whether none has a time of day."""
    moment = typed(_TIME, raw, times=TimeStyle(formats=(time_format,) if time_format else ()))
    usable, known, whole_days = connection.execute(
        f"select count(*) filter ({plausible('t')}), count(*), "
        "coalesce(bool_and(t = date_trunc('day', t)), false) "
        f"from (select {moment} as t from sample where not {raw.is_blank})"
    ).fetchall()[0]
    return usable / max(known, 1), whole_days
