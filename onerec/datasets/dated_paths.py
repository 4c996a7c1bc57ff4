"""Paths with `{date}` or `{date:FORMAT}` in them: a file, or a directory, per day."""

import re
from datetime import date, datetime

_ISO_DAY = "%Y-%m-%d"
_DATE = re.compile(r"\{date(?::([^}]+))?\}")


def is_dated(url: str) -> bool:
    """Whether a path holds `{date}` or `{date:FORMAT}`: a file, or a directory, per day."""
    return _DATE.search(url) is not None


def one_day(url: str, day: date) -> str:
    """A dated path, for one day."""
    return _DATE.sub(lambda found: day.strftime(found[1] or _ISO_DAY), url)


def any_day(url: str) -> str:
    """A dated path as the glob of all its days."""
    return _DATE.sub(lambda found: "/".join("*" * _depth(found)), url)


def day_of_path(url: str, path: str) -> date | None:
    """The day of a path that the glob of a dated path has found; None where it holds none."""
    found = _DATE.search(url)
    if found is None:
        return None
    # The day sits where the pattern says: everything else is literal or a wildcard.
    before, after = (
        re.escape(side).replace(r"\*\*", ".*").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        for side in (url[: found.start()].split("://")[-1], url[found.end() :])
    )
    middle = "/".join(["[^/]+?"] * _depth(found))
    match = re.search(f"{before}({middle}){after}(/.*)?$", path)
    try:
        return datetime.strptime(match[1] if match else "", found[1] or _ISO_DAY).date()
    except ValueError:
        return None  # another file that the wildcard caught


def _depth(found: re.Match[str]) -> int:
    return 1 + (found[1] or "").count("/")
