"""Tables found in the files, and facts about each column from its first rows."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from zoneinfo import available_timezones

import duckdb
import fsspec
import pyarrow as pa

from onerec import schema
from onerec.config import SettingError
from onerec.datasets.data_file import DataFile
from onerec.datasets.file_search import find
from onerec.datasets.table_formats import about_table_around
from onerec.urls import redact_url
from resources.casts import NumberStyle, RawColumn, TimeStyle, typed
from resources.json_lines import LINES, cells
from resources.landing import plausible
from resources.log_times import is_called_zone
from resources.proposal.csv_style import with_own_style
from resources.sql_macros import create_macros
from resources.unusable_times import likely_formats

T = TypeVar("T")
R = TypeVar("R")
SAMPLE_ROWS = 20_000
MOST = 0.95
"""Share of a column's values that must be of a kind for the column to be of it."""
MOST_FREQUENT = 20
_CLOCK = r"\s*[0-9]{1,2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?( ?[AaPp][Mm])?\s*"
_GROUPING = "' \u00a0\u202f"
"""What may group the digits of a number, beside comma and point."""
_TIME = schema.EVENTS.field("event_time")
_NUMBER = schema.EVENTS.field("watch_seconds")
_RATING = schema.EVENTS.field("rating")
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
        decimal: How they are written, if not as `1234.5`: see `events.decimal`.
        median: Of the numbers.
        least: Of the numbers.
        largest: Of the numbers.
        times: Share that are times of a log, read with `time_format`.
        no_times: Some of those that are not, as text.
        time_format: strptime format, where the text is not ISO 8601.
        also_iso: Some of the texts are.
        either_way: Day and month could be the other way round.
        whole_days: No time has a time of day.
        clocks: Share that are times of day, without a date.
        flags: Share that are yes or no.
        vectors: The values are lists of numbers, as many in each.
    """

    name: str
    kind: str
    known: int
    distinct: int
    frequent: tuple[str, ...]
    numbers: float
    decimal: str | None
    median: float | None
    least: float | None
    largest: float | None
    times: float
    no_times: tuple[str, ...]
    time_format: str | None
    also_iso: bool
    either_way: bool
    whole_days: bool
    clocks: float
    flags: float
    vectors: bool

    @property
    def words(self) -> str:
        """Its name in lower case, words apart: `visitorId:token` is `visitor id`, and so is
        `visitorId.$oid` of MongoDB."""
        name = re.sub(r"(\.\$[A-Za-z]+)+$", "", self.name.split(":")[0])
        apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
        return re.sub(r"[^a-z0-9]+", " ", apart.lower()).strip()

    @property
    def is_nested(self) -> bool:
        """Whether its values are records or lists: neither an id nor a text."""
        return self.kind.startswith(("STRUCT", "MAP", "UNION")) or self.kind.endswith("]")

    @property
    def is_zone(self) -> bool:
        """Whether its values are names of time zones: Japan is one, but rather a country."""
        if not self.known or not {*self.frequent} <= available_timezones():
            return False
        are_only_zones = all("/" in v or v in ("UTC", "GMT") for v in self.frequent)
        return are_only_zones or is_called_zone(self.name)

    @property
    def is_clock(self) -> bool:
        """Whether it holds times of day: 14:35, or by its name hours and minutes in one number."""
        named = re.search(r"\b(hour|hours|hr|hhmm|hourmin|hour min)\b", self.words) is not None
        hours = named and self.numbers >= MOST and 0 <= (self.least or 0) <= (self.largest or 0)
        return self.clocks >= MOST or (hours and (self.largest or 0) < 2400)

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
    """The tables behind a directory, a glob or a file, and what was not read.

    Raises:
        SettingError: Nothing is found, or no file can be read.
    """
    try:
        found, around, problems = find(data), about_table_around(data), list[str]()
    except ValueError as error:
        raise SettingError("DATA", redact_url(data), str(error)) from error
    groups: dict[tuple[object, ...], list[DataFile]] = {}
    every = _without_links([*found.files, *found.json_beside_tables])
    for file, names in _read_each(_with_names, every, problems):
        if names:  # where quotes are text, few files may show it
            written = (file.format, replace(file.style, quote=""))
            groups.setdefault((*sorted(names), *written), []).append(file)
    tables = _read_each(_look_at, map(_with_one_quote, groups.values()), problems)
    if problems and not tables:
        raise SettingError("DATA", data, problems[0])
    if not tables:
        others, remedy = "", "Name a directory, a glob or a file"
        if found.skipped:
            others = f"; files of other endings: {', '.join(found.skipped)}"
            filesystem, _ = fsspec.core.url_to_fs(data)
            ending = os.path.splitext(max(found.skipped, key=filesystem.size))[1]
            remedy = f"If they hold data, name them: make init DATA='{redact_url(data)}/*{ending}'"
        remedy = f"no Parquet, CSV or JSON-lines file is found there{others}. {remedy}"
        raise SettingError("DATA", data, remedy)
    not_read = [f"all files that are named are looked at, but {around}"] if around else []
    not_read += [f"not read: {problem}" for problem in problems]
    for names, path in ((t.files[0].names, t.files[0].path) for t in tables):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            alike = ", ".join(twice)
            not_read.append(f"{path}: several columns are called {alike}: rename those you mean")
    looked_at = {file.path for file in found.json_beside_tables}
    if skipped := [path for path in found.skipped if path not in looked_at]:
        names = ", ".join(skipped[:5])
        not_read.append(
            f"not read, for their endings: {names}; name such a file, make init DATA=file"
        )
    return tables, tuple(not_read)


def _read_each(read: Callable[[T], R], wanted: Iterable[T], problems: list[str]) -> list[R]:
    """What can be read; why others cannot is added to `problems`."""
    done = []
    for part in wanted:
        try:
            done.append(read(part))
        except (OSError, ValueError) as error:
            problems.append(str(error))
    return done


def _with_one_quote(files: Sequence[DataFile]) -> list[DataFile]:
    """Files of one table: quotes are text in all of them, or in none."""
    quote = min(file.style.quote for file in files)
    return [replace(file, style=replace(file.style, quote=quote)) for file in files]


def _with_names(file: DataFile) -> tuple[DataFile, tuple[str, ...]]:
    styled = with_own_style(file)
    return styled, styled.names


def _without_links(files: Iterable[DataFile]) -> list[DataFile]:
    """Files of this machine once each: a link to one that is found anyway is left out."""
    kept: dict[str, DataFile] = {}
    for file in files:
        place = os.path.realpath(file.path) if file.protocol == "file" else file.url
        if place not in kept or file.path == place:
            kept[place] = file
    return sorted(kept.values(), key=lambda file: file.path)


def _look_at(files: Sequence[DataFile]) -> FoundTable:
    file = files[0]
    in_path = _path_columns(files)
    delimiter = file.style.delimiter
    connection = duckdb.connect(":memory:", config={"threads": 1})
    try:
        create_macros(connection)
        connection.execute("set TimeZone = 'UTC'")
        rows = _first_rows(connection, file)
        columns = tuple(
            _column(connection, table, name, delimiter)
            for table in (rows, in_path)
            for name in table.column_names
            if table.column_names.count(name) == 1  # which of two is meant cannot be said
            and (file.style.names is None or not re.fullmatch("_[0-9]+", name))  # between colons
        )
    finally:
        connection.close()
    return FoundTable(
        files=tuple(sorted(files, key=lambda f: f.path)),
        columns=columns,
        has_header=file.style.names is None,
        rows=rows,
    )


def _first_rows(connection: duckdb.DuckDBPyConnection, file: DataFile) -> pa.Table:
    """The first rows of a file; of JSON the fields of records, and no column of records only."""
    reader = file.lines() if file.is_json else file.rows(range(len(file.names)))
    batch = next(iter(reader), None)
    names = list(file.names)
    if batch is None:
        return pa.table({name: pa.array([], pa.string()) for name in names})
    rows = pa.Table.from_batches([batch]).slice(0, SAMPLE_ROWS)
    if not file.is_json:
        return rows.rename_columns(names)
    connection.register(LINES, rows)
    sql, parameters = cells(names, file.keys, records_are_null=True)
    try:
        columns = ", ".join(f"c{place}" for place in range(len(names)))
        found = connection.sql(f"select {columns} from {sql}", params=parameters).to_arrow_table()
    except duckdb.Error as error:
        raise file.damaged(error) from error
    records = {name[:at] for name in names for at, c in enumerate(name) if c == "."}
    columns = zip(names, found.columns, strict=True)
    kept = {n: c for n, c in columns if n not in records or c.null_count < len(c)}
    return pa.table(kept)


def _path_columns(files: Sequence[DataFile]) -> pa.Table:
    """Columns that stand in the paths of all files; a row for each file."""
    values = [file.path_columns for file in files]
    names = [name for name in values[0] if all(name in v for v in values)]
    return pa.table({name: pa.array([v[name] for v in values], pa.string()) for name in names})


def _column(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table, name: str, delimiter: str | None
) -> ColumnFacts:
    connection.register("sample", rows.select([name]).rename_columns(["value"]))
    kind = connection.execute("describe from sample").fetchall()[0][1]
    raw = RawColumn("value", kind).as_text_where_needed()
    distinct, frequent = connection.execute(
        f"select count(distinct v), list(v order by n desc, v)[1:{MOST_FREQUENT}] from (select "
        f"cast({raw.sql} as varchar) as v, count(*) as n from sample where not {raw.is_blank} "
        "group by 1)"
    ).fetchall()[0]
    frequent = tuple(frequent or ())
    kind_of_number = _RATING if is_text_of_ratings(frequent) else _NUMBER
    is_list, vectors = _lists(connection, RawColumn("value", kind))
    decimal = _decimal(frequent, delimiter) if raw.is_text and not is_list else None
    number = typed(kind_of_number, raw, numbers=NumberStyle(decimal=decimal))
    flag = typed(_FLAG, raw)
    is_clock = f"regexp_full_match(cast({raw.sql} as varchar), '{_CLOCK}')"
    known, numbers, median, least, largest, flags, clocks = connection.execute(
        f"select count(*), count({number}), median({number}), min({number}), max({number}), "
        f"count({flag}), count(*) filter ({is_clock}) "
        f"from sample where not {raw.is_blank}"
    ).fetchall()[0]
    share = 1 / max(known, 1)
    times = _times(connection, raw)
    return ColumnFacts(
        name=name,
        kind=kind,
        known=known,
        distinct=distinct,
        frequent=frequent,
        numbers=numbers * share,
        decimal=decimal,
        median=median,
        least=least,
        largest=largest,
        times=times.share,
        no_times=times.others,
        time_format=times.time_format,
        also_iso=times.also_iso,
        either_way=times.either_way,
        whole_days=times.whole_days,
        clocks=clocks * share,
        flags=flags * share,
        vectors=vectors >= MOST,
    )


def _lists(connection: duckdb.DuckDBPyConnection, raw: RawColumn) -> tuple[bool, float]:
    """Whether a column holds lists, and the share of vectors: numbers, as many as in most others.

    Empty lists do not count. A word in a list becomes null.
    """
    if not raw.is_text and not raw.kind.startswith(("FLOAT[", "DOUBLE[")):
        return raw.kind.endswith("]"), 0.0
    return connection.execute(
        f"""
        with lists as (
            select try_cast({raw.sql} as float[]) as numbers from sample where not {raw.is_blank}
        ),
        lengths as (
            select len(list_filter(numbers, lambda x: x is not null)) as n from lists
            where len(numbers) is distinct from 0
        ),
        usual as (select mode(n) filter (n > 0) as n from lengths)
        select
            (select count(numbers) > 0 from lists),
            coalesce(count(*) filter (lengths.n = usual.n) / count(*), 0)
        from lengths, usual
        """
    ).fetchall()[0]


def is_text_of_ratings(values: Sequence[str]) -> bool:
    """Whether ratings are written out: 4.5/5, 4 stars, 80%, or as stars."""
    return any(re.search(r"\d\s*(/|out of|stars?|%)|[\u2605\u2b50]", v) for v in values)


def _decimal(values: Sequence[str], delimiter: str | None) -> str | None:
    """How numbers are written that have commas, or grouped digits: what stands before decimals.

    Where both are possible, `1,234`, a file with semicolons has decimal commas.
    """
    written = [v for v in values if re.fullmatch(rf"\s*-?[0-9][0-9.,{_GROUPING}]*\s*", v)]
    if not any("," in v for v in written):
        has_groups = any(re.search(rf"[0-9][{_GROUPING}][0-9]{{3}}\b", v) for v in written)
        return "." if has_groups else None
    grouped = all(re.fullmatch(r"\s*-?\d{1,3}(,\d{3})*(\.\d+)?\s*", v) for v in written)
    return "." if grouped and delimiter != ";" else ","


@dataclass(frozen=True, kw_only=True)
class _Times:
    """How a column's values are read as times.

    Attributes:
        share: Of the values that are times of a log.
        others: Some of those that are not, as text.
        whole_days: None has a time of day.
        span_days: Between the first and the last of them.
        time_format: strptime format; None for ISO 8601.
        also_iso: Those that do not fit the format are ISO 8601.
        either_way: With day and month the other way round all are times, too.
    """

    share: float
    others: tuple[str, ...]
    whole_days: bool
    span_days: int
    time_format: str | None = None
    also_iso: bool = False
    either_way: bool = False


def _times(connection: duckdb.DuckDBPyConnection, raw: RawColumn) -> _Times:
    """As ISO 8601 or numbers; what that leaves in the format that fits most values, and of several
    that fit all of them in the one that makes the shortest log."""
    plain = _times_in(connection, raw)
    if plain.share >= MOST or not raw.is_text:
        return plain
    formats = dict.fromkeys(f for value in plain.others for f in likely_formats(value))
    read = [_times_in(connection, raw, f, also_iso=plain.share > 0) for f in formats]
    fitting = sorted(
        (times for times in read if times.share >= MOST), key=lambda t: (-t.share, t.span_days)
    )
    if not fitting:
        return plain
    is_german = "%d.%m" in (fitting[0].time_format or "")  # with points the day stands first
    return replace(fitting[0], either_way=len(fitting) > 1 and not is_german)


def _times_in(
    connection: duckdb.DuckDBPyConnection,
    raw: RawColumn,
    time_format: str | None = None,
    *,
    also_iso: bool = False,
) -> _Times:
    formats = (*((time_format,) if time_format else ()), *(("iso",) if also_iso else ()))
    moment = typed(_TIME, raw, times=TimeStyle(formats=formats))
    usable, known, others, whole_days, span = connection.execute(
        f"select count(*) filter ({plausible('t')}), count(*), "
        # in the order of a hash: of each of several styles there are some
        f"list(distinct v order by hash(v)) filter (({plausible('t')}) is not true), "
        "coalesce(bool_and(t = date_trunc('day', t)), false), "
        "coalesce(date_diff('day', min(t), max(t)), 0) "
        f"from (select {moment} as t, cast({raw.sql} as varchar) as v from sample "
        f"where not {raw.is_blank})"
    ).fetchall()[0]
    return _Times(
        share=usable / max(known, 1),
        others=tuple((others or ())[:MOST_FREQUENT]),
        whole_days=whole_days,
        span_days=span,
        time_format=time_format,
        also_iso=also_iso,
    )
