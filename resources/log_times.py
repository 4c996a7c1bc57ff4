"""What a source reads of one's own files beside their rows: when a log's days and items begin.

What the files are and which column is which is described by `onerec.datasets.own`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cache

import pyarrow as pa

from onerec import schema
from onerec.config import SettingError
from onerec.datasets.file_problems import shown
from onerec.datasets.mapped_files import MappedFile
from onerec.datasets.own import OwnLog
from resources.casts import TimeStyle
from resources.landing import connected, local_day, plausible, typed_rows
from resources.parts import Part
from resources.sql_macros import create_macros
from resources.unusable_times import about_time, likely_formats

TIMES = pa.schema([schema.EVENTS.field("event_time")])
IDS = pa.schema([schema.EVENTS.field("item_id"), schema.EVENTS.field("event_time")])


@dataclass(frozen=True)
class LogTimes:
    """What the time columns of a log of whole files hold.

    Attributes:
        rows: Rows with a usable time of each day.
        notes: Warnings about files that also have rows without a usable time.
        errors: Errors of files that cannot be read.
    """

    rows: dict[date, int]
    notes: list[str]
    errors: list[ValueError]


def part_of(log: OwnLog, name: str, file: MappedFile, only: pa.Schema | None = None) -> Part:
    """A file of a section as the landing reads it.

    Args:
        log: The files.
        name: A section.
        file: One of its files.
        only: Columns that are read; all of them by default.
    """
    section = log.section(name)
    assert section is not None, f"{name} is not configured"
    columns = {n: c for n, c in file.columns.items() if only is None or n in only.names}
    mapping = section.columns
    unnamed = type(mapping).model_fields.keys() - mapping.model_fields_set - columns.keys()
    zone, unit = log.config.time_zone, section.timestamp_unit
    return Part(
        source=file.file,
        name=file.file.path,
        number=file.number,
        columns={n: c.names for n, c in columns.items()},
        scales={n: c.scale for n, c in columns.items()},
        decimal=section.decimal,
        true_values={n: c.yes for n, c in columns.items() if c.true_values},
        features={n: (f.column, f.numeric) for n, f in file.features.items()},
        new_keys=sorted(unnamed) if file.file.is_json and only is None else (),
        times=TimeStyle(
            unit=None if unit == "iso" else unit,
            formats=section.timestamp_format or (),
            zone=section.time_zone or zone,
        ),
        zone=zone,
        day=file.day,
    )


def read_times(log: OwnLog) -> LogTimes:
    """Read the time columns of a log of whole files once.

    Raises:
        ValueError: A file cannot be read; where damaged files are opened, no file can.
    """
    counts: dict[date, int] = {}
    notes, errors = [], []
    day = local_day("event_time", log.config.time_zone)
    for file in log.readable_files("events"):
        part = part_of(log, "events", file, only=TIMES)
        try:
            with connected() as connection, typed_rows(connection, part, TIMES) as (rows, of):
                found = connection.execute(
                    f"select case when {plausible('event_time')} then {day} end, count(*), "
                    f"max(cast(raw_event_time as varchar)) from ({rows}) group by 1",
                    of,
                ).fetchall()
        except ValueError as error:
            if not log.opens_damaged:
                raise
            errors.append(error)
            continue
        for known, number, example in found:
            if known is not None:
                counts[known] = counts.get(known, 0) + number
            elif example is not None or len(found) > 1:
                share = f"{number} of {sum(n for _, n, _ in found)} rows"
                about = about_time(log.config.events, file, example, others_fit=True)
                notes.append(f"{share} are rejected. {about}")
    if errors and not counts:
        raise errors[0]
    return LogTimes(counts, notes, errors)


_ZONE_COLUMN = re.compile(r"(event|local|user|client)?(timezone|tz|utcoffset|tzoffset)(name|id)?")
_WITHOUT_ZONE = r"\s*\d{4}-\d{1,2}-\d{1,2}[T ]\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s*"


def is_called_zone(name: str) -> bool:
    """Whether a column is called as one of time zones is.

    >>> is_called_zone("Time-Zone"), is_called_zone("country")
    (True, False)
    """
    return _ZONE_COLUMN.fullmatch(re.sub("[^a-z]", "", name.lower())) is not None


def zone_note(log: OwnLog) -> str | None:
    """A warning where times name no zone, and a column that is not read seems to name it; none
    where the first file cannot be read, which stops only what needs its rows."""
    file = next(log.readable_files("events"), None)
    section = log.config.events
    if file is None or section.time_zone or "time_zone" in log.config.model_fields_set:
        return None
    found = [name for name in file.file.names if is_called_zone(name)]
    part = part_of(log, "events", file, only=TIMES)
    if not found or len(part.columns["event_time"]) > 1:
        return None
    query = "select typeof(raw_event_time), cast(raw_event_time as varchar) from ({}) limit 1"
    try:
        with connected() as connection, typed_rows(connection, part, TIMES) as (rows, values):
            first = connection.execute(query.format(rows), values).fetchall()
    except ValueError:
        return None
    kind, value = first[0] if first else ("", None)
    names_none = kind in ("VARCHAR", "DATE") or kind.startswith("TIMESTAMP")
    if not names_none or value is None or not re.fullmatch(_WITHOUT_ZONE, value):
        return None
    return (
        f"times such as {value!r} name no zone and are read as UTC, and column {found[0]!r} is not "
        "read: set events.time_zone if it is the same in all rows, else write each time with its "
        "offset, 2026-06-01T10:00:00+02:00"
    )


@cache
def holds_value(cells: tuple[str, ...]) -> bool:
    """Whether a cell of a first row is a number or a time, which no header has as a name.

    >>> holds_value(("user", "date_1")), holds_value(("u0", "06/01/2026 10:34:00 AM"))
    (False, True)
    """
    texts = [cell.strip() for cell in cells if re.search("[0-9]", cell)]
    if any(re.fullmatch("[-+]?[0-9][-+0-9.:T ]*", text) or likely_formats(text) for text in texts):
        return True
    moment = "text_moment(unnest($texts::varchar[]), cast(null as varchar))"
    with connected() as connection:
        create_macros(connection)
        query = f"select count(*) filter ({plausible('t')}) > 0 from (select {moment} as t)"
        return connection.execute(query, {"texts": texts}).fetchall()[0][0]


def header_notes(log: OwnLog) -> list[str]:
    """Warnings about columns whose name is a number or a time: of files without a header, of which
    the first row is not read."""
    notes = []
    for name in ("events", "items", "users"):
        file = None if log.section(name) is None else next(log.readable_files(name), None)
        if file is None or file.file.format != "csv" or file.file.style.names is not None:
            continue
        named = tuple(n for column in file.columns.values() for n in column.names)
        if values := [n for n in named if holds_value((n,))]:
            notes.append(
                f"{file.file.path}: a column is called {shown(values[0])!r}, which is a value: its "
                "first row seems to be no header, and is not read. Name the columns in their order "
                f"with {name}.names: [...], and take these names in {name}.columns"
            )
    return notes


def require_usable_time(log: OwnLog, files: Iterable[MappedFile]) -> None:
    """Check that some row of the events' files has a time that can be read.

    Raises:
        SettingError: None has; the remedy shows a value.
    """
    for file in files:
        part = part_of(log, "events", file, only=TIMES)
        with connected() as connection, typed_rows(connection, part, TIMES) as (rows, values):
            usable, raw = connection.execute(
                f"select bool_or({plausible('event_time')}), "
                "max(cast(raw_event_time as varchar)) "
                f"from ({rows})",
                values,
            ).fetchall()[0]
        if usable:
            return
        if raw is not None:
            column = file.columns["event_time"].column
            remedy = about_time(log.config.events, file, raw)
            raise SettingError("events.columns.event_time", column, remedy)
    remedy = (
        "no row has a time, so the days of the log are unknown: are the files without rows? "
        "Else check events.columns.event_time"
    )
    raise SettingError("events.path", log.config.events.path, remedy)


def first_days_of_items(log: OwnLog) -> pa.Table:
    """Each item of the log and the first day it is on; ordered by the item.

    Raises:
        ValueError: A file of a log of whole files cannot be read.
    """
    dated = log.is_dated("events")
    zone = log.config.time_zone
    with connected() as connection:
        connection.execute("create temp table seen (item_id varchar, first_day date)")
        for file in log.every_file("events"):
            part = part_of(log, "events", file, only=IDS)
            day = "$day" if dated else local_day("event_time", zone)
            usable = "" if dated else f"and {plausible('event_time')}"
            try:
                with typed_rows(connection, part, IDS) as (rows, values):
                    connection.execute(
                        f"insert into seen select item_id, min({day}) from "
                        f"(select item_id, event_time from ({rows})) "
                        f"where item_id is not null {usable} group by item_id",
                        values | ({"day": file.day} if dated else {}),
                    )
            except ValueError:  # a damaged file stops its own day, where days have files
                if not dated:
                    raise
        return connection.sql(
            "select item_id, min(first_day) as first_day from seen "
            "group by item_id order by item_id"
        ).to_arrow_table()
