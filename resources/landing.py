"""How delivered rows come into DuckDB: read, typed, and nothing lost.

A part is one file or one table. Its rows land in the contract's types; where values do not fit,
their text is kept beside the row (`unreadable`), and the staging SQL rejects it. The reading of own
files by themselves (their days, their vectors) goes through the same SQL.
"""

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa

from onerec.datasets.data_file import DataFile
from onerec.datasets.file_problems import shown
from resources.casts import (
    NumberStyle,
    RawColumn,
    number,
    sql_type,
    typed,
)
from resources.duckdb_memory import memory_limit
from resources.json_lines import LINES, cells
from resources.parts import Part
from resources.sql_macros import create_macros

ROW_BITS = 40
"""`delivered_row` is the place of the file in the delivery, and in these bits the row's in it."""
EARLIEST = datetime(1971, 1, 1)
"""An unknown time written as 0, and numbers read in a unit too small, land in 1970."""
_VIEW = "delivered_rows"
_SINGLE = ("user_id", "item_id")
"""Columns of one value: a list of them is several rows."""
_CHECKED = ("timestamp", "double", "boolean", "bigint")
"""Types that a delivered value may fail to be; any value is a text."""


def sql_columns(contract: pa.Schema) -> str:
    """Columns of a landing table, as DDL."""
    columns = [f"{f.name} {sql_type(f)}" for f in contract]
    return ", ".join([*columns, "unreadable varchar", "file varchar", "delivered_row bigint"])


@contextmanager
def typed_rows(
    connection: duckdb.DuckDBPyConnection, part: Part, contract: pa.Schema
) -> Iterator[tuple[str, dict[str, Any]]]:
    """SQL of a part's rows in the contract's types, and its parameters, while the block lasts.

    Beside the contract's columns stand `unreadable`, a JSON text of the values that do not fit,
    `file` and `delivered_row`; and for each column that may not fit its raw value, `raw_<name>`.

    Raises:
        ValueError: The file cannot be read; the message names it.
    """
    create_macros(connection)
    connection.execute(f"set TimeZone = '{part.times.zone}'")
    failures: list[ValueError] = []
    try:
        relation = _relation(connection, part, failures)
        values = {"file": part.name, "first_row": part.number << ROW_BITS}
        yield _typed_select(part, contract, relation), {**relation.parameters, **values}
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        if failures or not isinstance(part.source, DataFile):
            raise (failures or [error])[0] from error
        raise part.source.damaged(error) from error
    # not in a `finally`: a failed transaction takes no statement, and its connection is closed
    connection.execute("set TimeZone = 'UTC'")
    connection.unregister(_VIEW)
    connection.unregister(LINES)


def insert_part(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    part: Part,
    contract: pa.Schema,
    days: Sequence[date],
) -> None:
    """Insert the rows of a part that belong to some days into a landing table.

    Raises:
        ValueError: The file cannot be read.
    """
    with typed_rows(connection, part, contract) as (rows, parameters):
        chosen, more = _of_days(part, rows, contract, days)
        connection.execute(f"insert into {table} by name {chosen}", parameters | more)


def plausible(column: str) -> str:
    """SQL: a time that can be one of a log's: after 1970, and not after tomorrow."""
    latest = datetime.now(UTC).date() + timedelta(days=2)  # clocks differ, but not by more
    return f"({column} >= timestamp '{EARLIEST}' and {column} < timestamp '{latest}')"


def local_day(column: str, zone: str) -> str:
    """SQL: the day of a UTC time in a time zone."""
    if zone == "UTC":
        return f"cast({column} as date)"
    return f"cast(timezone('{zone}', timezone('UTC', {column})) as date)"


@dataclass(frozen=True)
class _Relation:
    """A FROM clause, its columns by their delivered names, and its parameters."""

    sql: str
    columns: Mapping[str, RawColumn]
    parameters: Mapping[str, Any]


def _relation(
    connection: duckdb.DuckDBPyConnection, part: Part, failures: list[ValueError]
) -> _Relation:
    mapped = [n for names in part.columns.values() for n in names]
    wanted = list(dict.fromkeys([*mapped, *(column for column, _ in part.features.values())]))
    if isinstance(part.source, DataFile) and part.source.is_json:
        return _json_relation(connection, part, part.source, wanted, failures)
    if isinstance(part.source, DataFile):
        return _file_relation(connection, part.source, wanted, failures)
    import numpy as np

    numbered = part.source.select(wanted).append_column(
        "row", pa.array(np.arange(len(part.source)))
    )
    names = [f"c{i}" for i in range(len(wanted))]
    connection.register(_VIEW, numbered.rename_columns([*names, "row"]))
    kinds = _kinds(connection, _VIEW)
    columns = {n: RawColumn(name, kinds[name]) for n, name in zip(wanted, names, strict=True)}
    return _Relation(_VIEW, columns, {})


def _file_relation(
    connection: duckdb.DuckDBPyConnection,
    file: DataFile,
    wanted: Sequence[str],
    failures: list[ValueError],
) -> _Relation:
    """A file; SQL knows its columns by their places, so that no statement holds a user's name."""
    columns, parameters = _path_columns(file, [n for n in wanted if n not in file.names])
    at = {n: file.names.index(n) for n in wanted if n in file.names}
    if file.is_parquet and not any(c in file.path for c in "*?["):
        if file.protocol not in ("file", *connection.list_filesystems()):
            connection.register_filesystem(file.filesystem)
        names = ", ".join([f"c{i}" for i in range(len(file.names))] + ["row"])
        sql = (
            "read_parquet($path, file_row_number = true, hive_partitioning = false, "
            f"utf8_validation = 'replace') as delivered({names})"
        )
        kinds = _kinds(connection, sql, {"path": file.url})
        parameters["path"] = file.url
    else:
        reader = file.rows(list(at.values()))
        stream = pa.RecordBatchReader.from_batches(reader.schema, _watched(reader, failures))
        connection.register(_VIEW, stream)
        kinds = _kinds(connection, _VIEW) if file.is_parquet else {}
        sql = f"(select *, row_number() over () - 1 as row from {_VIEW}) as delivered"
    columns |= {n: RawColumn(f"c{i}", kinds.get(f"c{i}", "VARCHAR")) for n, i in at.items()}
    # DuckDB reads a duration as the number of its units
    for n, per_second in file.durations().items():
        if n in at:
            columns[n] = RawColumn(f"(c{at[n]} / {per_second}.0)", "DOUBLE")
    return _Relation(sql, columns, parameters)


def _path_columns(
    file: DataFile, names: Sequence[str]
) -> tuple[dict[str, RawColumn], dict[str, Any]]:
    columns = {n: RawColumn(f"cast($path_{i} as varchar)", "VARCHAR") for i, n in enumerate(names)}
    return columns, {f"path_{i}": file.path_columns[n] for i, n in enumerate(names)}


def _json_relation(
    connection: duckdb.DuckDBPyConnection,
    part: Part,
    file: DataFile,
    wanted: Sequence[str],
    failures: list[ValueError],
) -> _Relation:
    """Lines of JSON; a key that its first lines lack is looked for in each of them."""
    in_path = [n for n in wanted if n not in file.names and n in file.path_columns]
    columns, parameters = _path_columns(file, in_path)
    keys = [n for n in wanted if n not in in_path]
    reader = file.lines()
    connection.register(
        LINES, pa.RecordBatchReader.from_batches(reader.schema, _watched(reader, failures))
    )
    single = {n for contract in _SINGLE for n in part.columns.get(contract, ())}
    sql, of_keys = cells(keys, file.keys, single, part.new_keys)
    columns |= {n: RawColumn(f"c{i}", "VARCHAR") for i, n in enumerate(keys)}
    return _Relation(f"{sql} as delivered", columns, parameters | of_keys)


def _watched(reader: pa.RecordBatchReader, failures: list[ValueError]) -> Iterator[pa.RecordBatch]:
    """The batches; DuckDB reports an error in them as text only, so that it is kept here."""
    try:
        yield from reader
    except ValueError as error:
        failures.append(error)
        raise


def _kinds(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    parameters: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    rows = connection.execute(f"describe select * from {relation}", parameters or {}).fetchall()
    return {row[0]: row[1] for row in rows}


def _combined(part: Part, found: Mapping[str, RawColumn]) -> dict[str, RawColumn]:
    """Columns by contract name; a date and a time of day make one text."""
    raws = {}
    for name, sources in part.columns.items():
        raw = found[sources[-1]]
        if len(sources) == 2:
            day = found[sources[0]].as_text_where_needed()
            text = f"cast({day.sql} as date)" if day.is_temporal else day.sql
            clock = _clock(sources[-1], raw)
            raw = RawColumn(f"cast({text} as varchar) || ' ' || {clock}", "VARCHAR")
        raws[name] = raw
    return raws


def _clock(name: str, raw: RawColumn) -> str:
    """SQL: a time of day as text; 905 is 09:05, and 9 in a column that is called hour is 09:00."""
    text = f"cast({raw.sql} as varchar)"
    if raw.kind == "TIME":
        return text
    digits = f"regexp_extract({text}, '^\\s*([0-9]{{1,6}})(\\.0)?\\s*$', 1)"
    of_hours = "'00'" if re.fullmatch(r"(?i)(.*[_ ])?(hour|hours|hr|h)", name) else "''"
    return (
        f"case when {digits} = '' then {text} "
        f"else lpad({digits} || {of_hours}, if(len({digits}) > 4, 6, 4), '0') end"
    )


def _typed_select(part: Part, contract: pa.Schema, relation: _Relation) -> str:
    raws = _combined(part, relation.columns)
    values, given, failed = [], [], {}
    for column in contract:
        raw = raws.get(column.name)
        if column.name == "features" and part.features:
            found = {n: relation.columns[c] for n, (c, _) in part.features.items()}
            given += [f"{raw.sql} as feature_{name}" for name, raw in found.items()]
            failed |= _no_numbers(part, found)
            values.append(f"{_features(part, found)} as features")
            continue
        if raw is None:
            default = part.defaults.get(column.name, "null")
            values.append(f"cast({default} as {sql_type(column)}) as {column.name}")
            continue
        if column.name.endswith("_id"):
            _require_id(part, column.name, raw)
        given.append(f"{raw.sql} as raw_{column.name}")
        named = RawColumn(f"raw_{column.name}", raw.kind)
        numbers = NumberStyle(part.scales.get(column.name, 1.0), part.decimal)
        words = part.true_values.get(column.name)
        value = typed(column, named, numbers=numbers, times=part.times, true_values=words)
        values.append(f"{value} as {column.name}")
        if sql_type(column) in _CHECKED:
            text = named.as_text_where_needed()
            failed[column.name] = (f"{column.name} is null and not {text.is_blank}", text.sql)
    kept = ", ".join(n if n.startswith("feature_") else f"raw_{n}" for n in failed)
    unreadable = "cast(null as varchar)"
    if failed:
        texts = ", ".join(
            f"'{name}': case when {test} then cast({text} as varchar) end"
            for name, (test, text) in failed.items()
        )
        any_failed = " or ".join(f"({test})" for test, _ in failed.values())
        unreadable = f"case when {any_failed} then cast(to_json({{{texts}}}) as varchar) end"
    return (
        f"select *, {unreadable} as unreadable, $file as file, "
        "cast($first_row + row as bigint) as delivered_row "
        f"from (select {', '.join(values)}, row{', ' + kept if kept else ''} "
        f"from (select {', '.join([*given, 'row'])} from {relation.sql}))"
    )


def _require_id(part: Part, name: str, raw: RawColumn) -> None:
    """Check that values are no records and no lists.

    Raises:
        ValueError: They are.
    """
    where = f"{part.name}: column {part.columns[name][-1]!r} is no id but"
    if raw.kind.startswith(("STRUCT", "MAP", "UNION")) and not raw.kind.endswith("]"):
        raise ValueError(
            f"{where} a {shown(raw.kind)}: write the field that is the id to a column of its own"
        )
    if raw.kind == "BOOLEAN" and name in _SINGLE:
        raise ValueError(f"{where} a flag: name the column of the ids under columns, as {name}")
    if raw.kind.endswith("]") and name in _SINGLE:
        raise ValueError(f"{where} a list, {shown(raw.kind)}: write a row for each element")


def _no_numbers(part: Part, found: Mapping[str, RawColumn]) -> dict[str, tuple[str, str]]:
    """For features that hold numbers: SQL that a value is none, and the value."""
    texts = {
        name: RawColumn(f"feature_{name}", raw.kind).as_text_where_needed()
        for name, raw in found.items()
        if part.features[name][1]
    }
    return {
        f"feature_{name}": (
            f"{number(text, part.decimal)} is null and not {text.is_blank}",
            text.sql,
        )
        for name, text in texts.items()
    }


def _features(part: Part, found: Mapping[str, RawColumn]) -> str:
    """SQL: one text of `name=value` for the features that are known; numbers become buckets."""
    texts = []
    for name, raw in found.items():
        value = RawColumn(f"feature_{name}", raw.kind).as_text_where_needed()
        if part.features[name][1]:
            amount = f"finite({number(value, part.decimal)})"
            bucket = f"cast(floor(2 * log2({amount})) as bigint)"
            texts.append(f"case when {amount} > 0 then '{name}=' || {bucket} end")
        else:
            text = f"replace(cast({value.sql} as varchar), chr(31), ' ')"
            known = f"'{name}=' || trim({text})"
            texts.append(f"case when not {value.is_blank} then {known} end")
    return f"nullif(concat_ws(chr(31), {', '.join(texts)}), '')"


def _of_days(
    part: Part, rows: str, contract: pa.Schema, days: Sequence[date]
) -> tuple[str, dict[str, Any]]:
    """The rows that belong to the days, with `delivered_on` and, for times, `event_date`."""
    names = ", ".join([*contract.names, "unreadable", "file", "delivered_row"])
    own_day = local_day("event_time", part.zone)
    event_date = f", {own_day} as event_date" if "event_time" in contract.names else ""
    more = {}
    published = ""
    if part.published_by and "published_at" in part.columns:
        own_day = local_day("published_at", part.zone)
        published = f" where published_at is null or {own_day} <= $published_by"
        more["published_by"] = part.published_by
    if part.day:
        more["day"] = part.day
        return f"select {names}{event_date}, $day as delivered_on from ({rows}){published}", more
    if part.log_days is None:
        return f"select {names} from ({rows}){published}", more
    log = part.log_days
    inside = plausible("event_time")
    inside += " and event_date >= $log_first" if log.keep_before else ""
    inside += " and event_date <= $log_last" if log.keep_after else ""
    select = (
        f"select {names}, event_date, "
        f"case when {inside} then event_date else $log_first end as delivered_on "
        f"from (select *{event_date} from ({rows})) "
        "where delivered_on between $first_day and least($last_day, $log_last)"
    )
    return select, {
        "first_day": days[0],
        "last_day": days[-1],
        "log_first": log.first,
        "log_last": log.last or date.max,
    }


@contextmanager
def connected() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of its own, in memory; what does not fit is spilled to a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="onerec-") as spilled:
        limits = {"memory_limit": memory_limit(), "temp_directory": spilled}
        with duckdb.connect(":memory:", config={"threads": 2, **limits}) as connection:
            yield connection


def read_parts(parts: Iterable[Part], contract: pa.Schema, days: Sequence[date]) -> pa.Table:
    """Parts as they land, in the delivered order."""
    dated = ", delivered_on date, event_date date" if days else ""
    with connected() as connection:
        connection.execute(f"create temp table landed ({sql_columns(contract)}{dated})")
        for part in parts:
            insert_part(connection, "landed", part, contract, days)
        found = connection.sql("from landed order by delivered_row").to_arrow_table()
    kinds = {f.name: f.type for f in contract}
    return pa.table({n: found[n].cast(kinds.get(n, found[n].type)) for n in found.column_names})
