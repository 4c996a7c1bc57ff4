"""Names of the columns of JSON lines: the keys of their records."""

import json
from collections.abc import Iterator
from typing import Any

from onerec.datasets.file_problems import about_broken_line

DEEPEST = 4
"""Records in records that have names."""


def names_in(text: str, path: str) -> tuple[str, ...]:
    """The keys in the first lines of a file, in the order in which they appear.

    Args:
        text: The beginning of the file; its last line may be cut.
        path: Of the file, for messages.

    Raises:
        ValueError: A line is no record.

    >>> names_in('{"user": {"id": 1}, "item": 2}\\n{"item": 3, "is_like": true}\\n', "log.jsonl")
    ('user', 'user.id', 'item', 'is_like')
    """
    names: dict[str, None] = {}
    lines = [line for line in text.split("\n") if line.strip()]
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            names |= dict.fromkeys(_names(record))
        elif number < len(lines) or number == 1:
            raise ValueError(f"{path}: {about_broken_line(number, line)}")
    return tuple(names)


def pointer(name: str, present: tuple[str, ...]) -> str:
    """The JSON pointer of a column: a key may have a point in it itself.

    >>> pointer("user.id", ("user.id",)), pointer("user.id", ("user", "user.id"))
    ('/user.id', '/user/id')
    """
    parts = _parts(name, present)
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def _parts(name: str, present: tuple[str, ...]) -> list[str]:
    """The longest beginnings that are columns themselves are records."""
    at = [n for n, c in enumerate(name) if c == "." and name[:n] in present]
    if not at:
        return [name] if name in present else name.split(".")
    return [name[: at[0]], *_parts(name[at[0] + 1 :], _inside(name[: at[0]], present))]


def _inside(record: str, present: tuple[str, ...]) -> tuple[str, ...]:
    start = f"{record}."
    return tuple(name.removeprefix(start) for name in present if name.startswith(start))


def _names(record: dict[str, Any], before: str = "", depth: int = 1) -> Iterator[str]:
    for key, value in record.items():
        yield before + key
        if isinstance(value, dict) and depth < DEEPEST:
            yield from _names(value, f"{before}{key}.", depth + 1)
