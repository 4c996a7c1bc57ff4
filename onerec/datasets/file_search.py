"""Foreign Parquet, CSV and JSON-lines files behind a path, a glob, a directory or a URL."""

import glob
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from onerec.datasets import file_problems
from onerec.datasets.compression import without_compression
from onerec.datasets.data_file import DataFile, Format
from onerec.datasets.local_search import (
    BoundedLocalFileSystem,
    TooManyFilesError,
    without_second_ways,
)
from onerec.datasets.table_formats import about_table
from onerec.datasets.text_rows import CsvStyle

ENDINGS: dict[Format, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq", ".parq"),
    "csv": (".csv", ".tsv", ".txt", ".tab"),
    "json": (".jsonl", ".ndjson", ".json"),
}


class TableFormatError(ValueError):
    """A directory with a log of its own that says which of its files count."""


@dataclass(frozen=True)
class ListedFiles:
    """Files behind a URL.

    Attributes:
        files: In the order of their paths.
        skipped: Paths in the directories whose ending says no format, and those of
            `json_beside_tables`.
        json_beside_tables: Lines of JSON beside CSV or Parquet in the directories: rather a
            manifest, what went wrong, or the log once more.
        unreadable: Directories that this user may not list.
    """

    files: tuple[DataFile, ...]
    skipped: tuple[str, ...] = ()
    json_beside_tables: tuple[DataFile, ...] = ()
    unreadable: tuple[str, ...] = ()


def find(url: str, *, format: Format | None = None, style: CsvStyle = CsvStyle()) -> ListedFiles:
    """Files behind a path, a glob, a directory or any fsspec URL; maybe none.

    Args:
        url: Where to look.
        format: Format of every file. None: by the ending, and where that is not known, for a
            file that the URL itself names or matches, by the first bytes; and lines of JSON beside
            CSV or Parquet in the directories are left out.
        style: How CSV files are written.

    Raises:
        ValueError: The URL's file system is not installed or cannot be reached, too much lies
            there, or a directory is a table of Delta, Iceberg or Hudi.
    """
    formats: dict[str, Format | None]
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
        is_local = isinstance(filesystem, LocalFileSystem)
        searched: Any = BoundedLocalFileSystem() if is_local else filesystem
        formats, inside = _formats(searched, path, format)
    except ImportError as error:
        raise ValueError(
            f"{url}: {error}. For s3:// install the extra: pip install 'onerec-dagster[s3]'"
        ) from error
    except (TooManyFilesError, TableFormatError):
        raise
    except (ValueError, OSError) as error:
        raise ValueError(f"{url}: cannot be opened ({error}); check the URL") from error
    if is_local and searched.follows_links:
        formats = {p: formats[p] for p in without_second_ways(formats)}
    has_tables = format is None and not {"csv", "parquet"}.isdisjoint(formats.values())
    beside = {p for p in inside if has_tables and formats.get(p) == "json"}
    every = [
        DataFile(filesystem, p, found, style)
        for p in sorted(formats)
        if (found := formats[p]) is not None
    ]
    return ListedFiles(
        files=tuple(file for file in every if file.path not in beside),
        skipped=tuple(sorted({p for p, found in formats.items() if found is None} | beside)),
        json_beside_tables=tuple(file for file in every if file.path in beside),
        unreadable=tuple(searched.unreadable) if is_local else (),
    )


def _formats(
    filesystem: Any, path: str, format: Format | None
) -> tuple[dict[str, Format | None], set[str]]:
    """Files behind a path or a glob with the format of each, see `find`, and those of them that
    lie in a directory that it names."""
    is_glob = any(c in path for c in "*?[") and not filesystem.exists(path)
    matches = [path] if filesystem.exists(path) else []
    if is_glob:
        matches = filesystem.glob(_with_literal_directories(filesystem, path))
    formats: dict[str, Format | None] = {}
    inside: set[str] = set()
    for match in map(str, matches):
        *_, parent, name = match.split("/")
        if is_glob and (_is_hidden(name) or parent in ("_delta_log", ".hoodie")):
            continue
        if filesystem.isdir(match):
            found = [str(p) for p in filesystem.find(match)]
            if about := about_table(found):
                raise TableFormatError(about)
            below = [p for p in found if not _is_hidden(p.removeprefix(match))]
            formats |= {p: format or _by_ending(p) for p in below}
            inside |= {*below}
        else:
            formats[match] = format or _by_content(filesystem, match)
    return formats, inside


def _with_literal_directories(filesystem: Any, path: str) -> str:
    """A glob in which directories that are called so, `log [v2]` say, match themselves."""
    parts = path.split("/")
    literal = [glob.escape(part) for part in parts]
    for n, part in enumerate(parts):
        if literal[n] != part and not filesystem.exists("/".join(parts[: n + 1])):
            return "/".join([*literal[:n], *parts[n:]])
    return "/".join(literal)


def _by_ending(path: str) -> Format | None:
    ending = without_compression(path)
    return next((name for name, endings in ENDINGS.items() if ending.endswith(endings)), None)


def _by_content(filesystem: Any, path: str) -> Format:
    if (found := _by_ending(path)) is not None:
        return found
    with filesystem.open(path, "rb") as stream:
        return "parquet" if stream.read(4) == file_problems.PARQUET_MAGIC else "csv"


def _is_hidden(path: str) -> bool:
    """Whether one of the names marks what is no data, e.g. _SUCCESS, _delta_log/ or .part.crc."""
    return any(
        name.startswith(".") or (name.startswith("_") and "=" not in name)
        for name in path.strip("/").split("/")
    )
