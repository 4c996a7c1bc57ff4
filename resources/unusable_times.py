"""Messages about values that are no usable time: where, why, and the remedy for each kind."""

import re
from datetime import UTC, datetime, timedelta

from onerec.datasets.file_problems import shown
from onerec.datasets.mapped_files import MappedFile
from onerec.datasets.own_config import EventFiles

_CLOCK_ONLY = re.compile(r"\s*\d{1,2}:\d{2}")
_DATE_FIRST = re.compile(
    r"(\d{1,2})([./-] ?)(\d{1,2})[./-] ?(\d{2,4})"
    r"(?:(,? +|T)\d{1,2}:\d{2}(:\d{2})?(\.\d{1,6})?( ?[AaPp][Mm])?)?"
)
_ZONE_NAME = re.compile(r"\d{4}-\d{2}-\d{2}.*?\d{2} ?([A-Za-z]{2,5})")

_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p")
_NAMED = (
    "[%d/%b/%Y:%H:%M:%S %z]",
    "%a %b %d %Y %H:%M:%S GMT%z (Coordinated Universal Time)",
    *("%Y-%m-%d %H", "%Y%m%d%H", "%G-W%V-%u", "%Y-%j", "%y%m%d %H:%M:%S"),
    "%a, %d %b %Y %H:%M:%S %Z",
    "%a %b %d %H:%M:%S %Z %Y",
    "%a %b %d %H:%M:%S %z %Y",
    "%a %b %d %H:%M:%S %Y",
    "%d/%b/%Y:%H:%M:%S %z",
    "%d-%b-%y %I.%M.%S.%f %p",
    "%Y-%m-%d %H.%M.%S",
    "%Y-%m-%d-%H.%M.%S.%f",
    *(
        day + clock
        for day in ("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y")
        for clock in _CLOCKS
    ),
    *(f"{day},{clock}" for day in ("%b %d, %Y", "%B %d, %Y") for clock in _CLOCKS[1:]),
)
"""Formats of texts that cannot be misread, but are not ISO 8601."""


def about_time(
    section: EventFiles, file: MappedFile, value: str | None, *, others_fit: bool = False
) -> str:
    """The message about one value of the time column.

    Args:
        section: How the log is described.
        file: Where the value stands.
        value: As it stands; None where nothing does.
        others_fit: Other values of the column are read.
    """
    column = file.columns["event_time"].column
    if value is None:
        return f"{file.file.path}: column {column!r} is empty there"
    if value == column:
        return f"{file.file.path}: the header stands again among the rows: are files joined in it?"
    holds = "holds a value that is no usable time" if others_fit else "holds no usable time"
    start = f"{file.file.path}: column {column!r} {holds}: {shown(value)!r}"
    if _CLOCK_ONLY.match(value):
        return (
            f"{start}: a time of day has no date. Name the column of the date as well, "
            f"event_time: {{ column: {column}, date: ... }}, or write both into one column"
        )
    formats = section.timestamp_format or ("iso",)
    guessed = likely_format(value)
    if section.timestamp_format:
        text = f"{start}: it does not fit events.timestamp_format: {', '.join(formats)}"
        also = guessed or ("iso" if _is_iso(value) else None)
        return f"{text}. Add it there: {[*formats, also]}" if also and others_fit else text
    if guessed:
        either = "" if guessed in _NAMED else ", and day and month could be either way round"
        proposed = ["iso", guessed] if others_fit else guessed
        return (
            f"{start}: it is not ISO 8601{either}. Set events.timestamp_format, e.g. {proposed!r}"
        )
    if others_fit and re.fullmatch(r"\s*-?0+(\.0*)?\s*", value):
        return f"{start}: a zero is no time; leave the cell empty, or write when it was"
    if section.timestamp_unit not in (None, "iso"):
        return (
            f"{start}: in events.timestamp_unit={section.timestamp_unit!r} it lies before 1971 "
            "or after tomorrow. Correct the unit, or leave it out: it is then detected by each "
            "number's size"
        )
    if (zone := _ZONE_NAME.fullmatch(value.strip())) and zone[1].lower() not in ("am", "pm"):
        return (
            f"{start}: the zone {zone[1]!r} is not known, or means several. Write the offset, "
            f"+01:00 say, or set events.timestamp_format, e.g. '%Y-%m-%d %H:%M:%S {zone[1]}', "
            "and events.time_zone"
        )
    return f"{start}: {remedy_of_time(value)}"


def remedy_of_time(value: str) -> str:
    """What to do about a text or number that is no usable time, by what it may be."""
    if _CLOCK_ONLY.match(value):
        return "a time of day has no date, and no other column holds one: write both"
    if re.fullmatch(r"\s*[3-5]\d{4}(\.\d*)?\s*", value):
        day = datetime(1899, 12, 30) + timedelta(days=float(value))
        return (
            f"as a spreadsheet's number of a day it is {day.date()}. Write the column as ISO 8601, "
            "2026-06-01 10:00:00: format the cells so before they are exported"
        )
    if re.fullmatch(r"\s*-?\d{1,8}(\.\d*)?\s*", value):
        return "as a number since 1970 it lies before 1971, where nothing is known"
    if _is_later(value):
        return "it lies after tomorrow: correct the clock that wrote it"
    return (
        "write ISO 8601 (2026-06-01T10:00:00Z) or seconds since 1970, or set "
        "events.timestamp_format to its strptime format; or is it another column "
        "(events.columns.event_time)?"
    )


def _is_iso(value: str) -> bool:
    try:
        datetime.fromisoformat(value.strip())
    except ValueError:
        return False
    return True


def _is_later(value: str) -> bool:
    """Whether a text begins with a date after tomorrow."""
    try:
        day = datetime.fromisoformat(value.strip()[:10]).date()
    except ValueError:
        return False
    return day > datetime.now(UTC).date() + timedelta(days=1)


def likely_format(value: str) -> str | None:
    """The strptime format of a text that names its month or begins with day or month; else None."""
    return next(iter(likely_formats(value)), None)


def likely_formats(value: str) -> list[str]:
    """As `likely_format`, the likeliest first: a small day and the month may change places."""
    text = value.strip()
    found = _DATE_FIRST.fullmatch(text)
    if found is None:
        return [f for f in _NAMED if _fits(text, f)][:1]
    first, separator = int(found[1]), found[2]
    orders = [("%d", "%m"), ("%m", "%d")]
    orders = orders if first > 12 or separator[0] == "." else orders[::-1]
    year = "%Y" if len(found[4]) == 4 else "%y"
    clock = ""
    if found[5]:
        clock = f"{found[5]}{'%I' if found[8] else '%H'}:%M{':%S' if found[6] else ''}"
        clock += f"{'.%f' if found[7] else ''}"
        clock += f"{' ' if found[8][0] == ' ' else ''}%p" if found[8] else ""
    likely = [separator.join([*order, year]) + clock for order in orders]
    return [f for f in likely if _fits(text, f)]


def _fits(value: str, time_format: str) -> bool:
    try:
        datetime.strptime(value, time_format)
    except ValueError:
        return False
    return True
