"""Whether a log has a column at all: lines of JSON may have keys that their first ones lack."""

import math
from collections.abc import Sequence

from onerec.datasets.data_file import DataFile
from onerec.datasets.own_config import Column

LOOKED_THROUGH = 64 << 20
"""Bytes of JSON lines in which a key is looked for that the first lines lack."""


def seen(known: Sequence[DataFile], column: Column) -> bool | None:
    """Whether some file has a column, itself or in its path; a damaged one has none.

    A key of JSON may come after the first lines of all files: the newest ones are looked through,
    up to `LOOKED_THROUGH` bytes. None: they lack it, but what lies beyond may have it.
    """
    if any(_lacks(file, column) == set() for file in known):
        return True
    left = LOOKED_THROUGH
    for file in sorted((f for f in known if f.is_json), key=lambda f: f.path, reverse=True):
        size, lacking = file.filesystem.size(file.path), _lacks(file, column)
        most = math.inf if size <= left else left
        if lacking is not None and all(file.mentions(name, most) for name in lacking):
            return True
        left -= size
        if left < 0:
            return None
    return False


def _lacks(file: DataFile, column: Column) -> set[str] | None:
    """Names of a column that a file does not show; None of a damaged one."""
    try:
        present = {*file.names, *file.path_columns}
    except ValueError:
        return None
    return set(column.as_named_in(present).names) - present
