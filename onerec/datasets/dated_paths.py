"""Paths with `{date}` or `{date:FORMAT}` in them, whole or in parts: files of days."""

import re
from datetime import date, datetime

_ISO_DAY = "%Y-%m-%d"
_DATE = re.compile(r"\{date(?::([^}]+))?\}")


def is_dated(url: str) -> bool:
    """Whether a path holds `{date}` or `{date:FORMAT}`: a file, or a directory, per day."""
    return _DATE.search(url) is not None


def names_days(url: str) -> bool:
    """Whether the day can be read back from a dated path: not of one for whole months or weeks.

    >>> names_days("log/{date:%Y/%m/%d}.csv"), names_days("log/{date:%Y-%m}.csv")
    (True, False)
    """
    day = date(2031, 11, 27)  # neither the first nor the last of anything
    return day_of_path(url, one_day(url, day)) == day


def one_day(url: str, day: date) -> str:
    """A dated path, for one day."""
    return _DATE.sub(lambda found: day.strftime(found[1] or _ISO_DAY), url)


def any_day(url: str) -> str:
    """A dated path as the glob of all its days."""
    return _DATE.sub(lambda found: "/".join("*" * _depth(found)), url)


def day_of_path(url: str, path: str) -> date | None:
    """The day of a path that the glob of a dated path has found; None where it holds none.

    A path that `one_day` does not write is of no day: a month without its zero, say.
    """
    parts = list(_DATE.finditer(url))
    if not parts:
        return None
    # the day stands where the pattern says: everything else is literal or a wildcard
    ends = [0, *(part.end() for part in parts)]
    starts = [*(part.start() for part in parts), len(url)]
    literals = [url[end:start] for end, start in zip(ends, starts, strict=True)]
    literals[0] = literals[0].split("://")[-1]
    pattern = _literal(literals[0])
    for part, literal in zip(parts, literals[1:], strict=True):
        pattern += f"({_as_written(part[1] or _ISO_DAY)}){_literal(literal)}"
    match = re.search(f"{pattern}(/.*)?$", path)
    if match is None:
        return None
    formats = [part[1] or _ISO_DAY for part in parts]
    texts = match.groups()[: len(parts)]
    # one part may hold all of the day, or each a piece of it
    for text, form in [(" ".join(texts), " ".join(formats)), *zip(texts, formats, strict=True)]:
        try:
            day = datetime.strptime(text, form.replace("%-", "%")).date()  # %-m is for writing only
        except (ValueError, re.error):  # another file that the wildcard caught; %Y stands twice
            continue
        if [day.strftime(f) for f in formats] == list(texts):
            return day
    return None


def _as_written(date_format: str) -> str:
    """A pattern of texts that a format writes."""
    digits = {"Y": "4", "y": "2", "m": "2", "d": "2", "j": "3"}
    digits |= {f"-{letter}": f"1,{most}" for letter, most in digits.items()}
    parts = re.split("%(-?[A-Za-z])", date_format)
    return "".join(
        (f"[0-9]{{{digits[part]}}}" if part in digits else "[^/]+?")
        if place % 2
        else re.escape(part)
        for place, part in enumerate(parts)
    )


def _literal(text: str) -> str:
    escaped = re.escape(text)
    return escaped.replace(r"\*\*", ".*").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")


def _depth(found: re.Match[str]) -> int:
    return 1 + (found[1] or "").count("/")
