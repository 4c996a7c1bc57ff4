"""Messages about values that are no usable time: where, why, and the remedy for each kind."""

import re
from datetime import UTC, datetime, timedelta

from onerec.datasets.file_problems import shown
from onerec.datasets.own import MappedFile
from onerec.datasets.own_config import EventFiles

_CLOCK_ONLY = re.compile(r"\s*\d{1,2}:\d{2}")
_DATE_FIRST = re.compile(r"\s*(\d{1,2})([./-])(\d{1,2})[./-](\d{2,4})(\s+\d{1,2}:\d{2}(:\d{2})?)?")

_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p")
_NAMED = (
    "%a, %d %b %Y %H:%M:%S %Z",
    "%a %b %d %H:%M:%S %Z %Y",
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


def about_time(section: EventFiles, file: MappedFile, value: str | None) -> str:
    """The message about one value of the time column.

    Args:
        section: How the log is described.
        file: Where the value stands.
        value: As it stands; None where nothing does.
    """
    column = file.columns["event_time"].column
    if value is None:
        return f"{file.file.path}: column {column!r} is empty there"
    start = f"{file.file.path}: column {column!r} holds no usable time: {shown(value)!r}"
    if _CLOCK_ONLY.match(value):
        return (
            f"{start}: a time of day has no date. Name the column of the date as well, "
            f"event_time: {{ column: {column}, date: ... }}, or write both into one column"
        )
    if section.timestamp_format:
        return f"{start}: it does not fit events.timestamp_format={section.timestamp_format!r}"
    if guessed := likely_format(value):
        either = "" if guessed in _NAMED else ", and day and month could be either way round"
        return f"{start}: it is not ISO 8601{either}. Set events.timestamp_format, e.g. {guessed!r}"
    if section.timestamp_unit not in (None, "iso"):
        return (
            f"{start}: in events.timestamp_unit={section.timestamp_unit!r} it lies before 1971 "
            "or after tomorrow. Correct the unit, or leave it out: numbers then tell it"
        )
    if re.fullmatch(r"\s*-?\d{1,8}(\.\d*)?\s*", value):
        return f"{start}: as a number since 1970 it lies before 1971, where nothing is known"
    if _is_later(value):
        return f"{start}: it lies after tomorrow: correct the clock that wrote it"
    return (
        f"{start}: write ISO 8601 (2026-06-01T10:00:00Z) or seconds since 1970, or set "
        "events.timestamp_format to its strptime format; or is it another column "
        "(events.columns.event_time)?"
    )


def _is_later(value: str) -> bool:
    """Whether a text begins with a date after tomorrow."""
    try:
        day = datetime.fromisoformat(value.strip()[:10]).date()
    except ValueError:
        return False
    return day > datetime.now(UTC).date() + timedelta(days=1)


def likely_format(value: str) -> str | None:
    """The strptime format of a text that names its month or begins with day or month; else None."""
    found = _DATE_FIRST.match(value)
    if found is None:
        return next((f for f in _NAMED if _fits(value.strip(), f)), None)
    first, separator = int(found[1]), found[2]
    parts = ["%d", "%m"] if first > 12 or separator == "." else ["%m", "%d"]
    text = separator.join([*parts, "%Y" if len(found[4]) == 4 else "%y"])
    if found[5]:
        half = value.strip()[-2:].lower() in ("am", "pm")
        text += f" {'%I' if half else '%H'}:%M{':%S' if found[6] else ''}{' %p' if half else ''}"
    return text


def _fits(value: str, time_format: str) -> bool:
    try:
        datetime.strptime(value, time_format)
    except ValueError:
        return False
    return True
