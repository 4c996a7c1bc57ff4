"""Tables of Delta, Iceberg and Hudi: their directories also hold files of rows that are no more."""

import re
from collections.abc import Iterable

import fsspec

_MARKS = (
    ("Delta", "_delta_log", ".json"),
    ("Iceberg", "metadata", ".metadata.json"),
    ("Hudi", ".hoodie", "hoodie.properties"),
)
"""Name, the directory of its own log, and how a file in it ends."""


def about_table(paths: Iterable[str]) -> str | None:
    """What to say of files of which some are the log of such a table; None where none is.

    >>> about_table(["/log/a.parquet", "/log/_delta_log/00000000000000000000.json"])[:24]
    '/log is a table of Delta'
    """
    for path in paths:
        *above, directory, name = ["", *path.rsplit("/", 2)]
        for kind, mark, ending in _MARKS:
            if directory == mark and name.endswith(ending):
                return (
                    f"{above[-1]} is a table of {kind}, and beside its present files may lie those "
                    "of rows that were deleted or changed: write what it holds now as Parquet to a "
                    f"directory of its own, by Spark, DuckDB or another reader of {kind}, and name "
                    "that"
                )
    return None


def about_table_around(url: str) -> str | None:
    """As `about_table`, for a glob, a file or a directory within such a table."""
    filesystem, path = fsspec.core.url_to_fs(url)
    directory = re.split(r"/[^/]*[*?[]", path, maxsplit=1)[0]
    if directory == path and not filesystem.isdir(path):
        directory = path.rpartition("/")[0]
    while "=" in directory.rpartition("/")[2]:  # of a partition
        directory = directory.rpartition("/")[0]
    beside = [
        f"{place}/{mark}"
        for place in (directory, directory.rpartition("/")[0])  # Iceberg's files are in data/
        for _, mark, _ in _MARKS
    ]
    found = (map(str, filesystem.find(place)) for place in beside if filesystem.isdir(place))
    return about_table(path for paths in found for path in paths)
