"""Messages about values that are no usable time: where, why, and the remedy for each kind."""

import re

from onerec.datasets.files import shown
from onerec.datasets.own import MappedFile
from onerec.datasets.own_config import EventFiles

_CLOCK_ONLY = re.compile(r"\s*\d{1,2}:\d{2}")
_DATE_FIRST = re.compile(r"\s*(\d{1,2})([./-])(\d{1,2})[./-](\d{2,4})(\s+\d{1,2}:\d{2}(:\d{2})?)?")


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
        return (
            f"{start}: it is not ISO 8601, and day and month could be either way round. Set "
            f"events.timestamp_format, e.g. {guessed!r}"
        )
    if section.timestamp_unit not in (None, "iso"):
        return (
            f"{start}: in events.timestamp_unit={section.timestamp_unit!r} it lies before 1971 "
            "or after tomorrow. Correct the unit, or leave it out: numbers then tell it"
        )
    return (
        f"{start}: write ISO 8601 (2026-06-01T10:00:00Z) or seconds since 1970, or set "
        "events.timestamp_format to its strptime format; or is it another column "
        "(events.columns.event_time)?"
    )


def likely_format(value: str) -> str | None:
    """The strptime format of a text that begins with day or month; None for other texts."""
    found = _DATE_FIRST.match(value)
    if found is None:
        return None
    first, separator = int(found[1]), found[2]
    parts = ["%d", "%m"] if first > 12 or separator == "." else ["%m", "%d"]
    text = separator.join([*parts, "%Y" if len(found[4]) == 4 else "%y"])
    if found[5]:
        half = value.strip()[-2:].lower() in ("am", "pm")
        text += f" {'%I' if half else '%H'}:%M{':%S' if found[6] else ''}{' %p' if half else ''}"
    return text
