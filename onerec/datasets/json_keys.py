"""Names of the columns of JSON lines: the keys of their records."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from onerec.datasets.file_problems import TOO_DEEP, about_broken_line

DEEPEST = 4
"""Records in records that have names."""


def keys_in(text: str, path: str) -> dict[str, tuple[str, ...]]:
    """The keys in the first lines of a file, in the order in which they appear, and the JSON
    pointers of each: `event.kind` may be a key itself, and the key `kind` of the record `event`.

    Args:
        text: The beginning of the file; its last line may be cut.
        path: Of the file, for messages.

    Raises:
        ValueError: A line is no record.

    >>> keys_in('{"user": {"id": 1}}\\n{"user.id": 3, "at": 4}\\n', "log.jsonl")
    {'user': ('/user',), 'user.id': ('/user/id', '/user.id'), 'at': ('/at',)}
    """
    found: dict[str, dict[str, None]] = {}
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    for place, (number, line) in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        except RecursionError:
            raise ValueError(f"{path}: line {number} {TOO_DEEP}") from None
        if isinstance(record, dict):
            for name, pointer in _keys(record):
                found.setdefault(name, {})[pointer] = None
        elif place < len(lines) or place == 1:
            raise ValueError(f"{path}: {about_broken_line(number, line)}")
    return {name: tuple(pointers) for name, pointers in found.items()}


def pointers(name: str, known: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The JSON pointers at which a column may stand: where it is known, else all that its points
    allow.

    >>> pointers("user.id", {"user": ("/user",)})
    ('/user.id', '/user/id')
    """
    if name in known:
        return known[name]
    at = [place for place, character in enumerate(name) if character == "."]
    inside = [
        before + _step(name[place + 1 :])
        for place in at
        for before in pointers(name[:place], known)
    ]
    return (_step(name), *inside)


def _keys(record: dict[str, Any], before: str = "", at: str = "", depth: int = 1) -> Iterator[Any]:
    for key, value in record.items():
        pointer = at + _step(key)
        yield before + key, pointer
        if isinstance(value, dict) and depth < DEEPEST:
            yield from _keys(value, f"{before}{key}.", pointer, depth + 1)


def _step(key: str) -> str:
    return "/" + key.replace("~", "~0").replace("/", "~1")
