"""Foreign Parquet, CSV and JSON-lines files: where they are, what their columns are called, and
their cells.

No value is typed here: a CSV cell is text, so is a line of JSON, a Parquet value is what the file
holds. The SQL engine of `resources` types them.
"""

import codecs
import csv
import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal
from urllib.parse import unquote

import fsspec
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from onerec.datasets import file_problems, json_keys
from onerec.datasets.file_problems import shown
from onerec.datasets.local_search import (
    BoundedLocalFileSystem,
    TooManyFilesError,
    without_second_ways,
)

Format = Literal["parquet", "csv", "json"]
ENDINGS: dict[Format, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq", ".parq"),
    "csv": (".csv", ".tsv", ".txt", ".tab"),
    "json": (".jsonl", ".ndjson", ".json"),
}
COMPRESSED = (".gz", ".gzip", ".bz2", ".zst", ".zstd", ".lz4", ".xz", ".zip")
BLOCK_BYTES = 16 << 20
"""A CSV row, or a line of JSON, must fit into one block."""
HEADER_BYTES = 1 << 20
HEADER_LINES = 50
"""Lines among which a header is looked for that is not the first one."""
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
}
_BY_PYTHON = ("xz", "zip")  # Arrow has no codec for these
_BROKEN = (pa.ArrowException, OSError, EOFError, csv.Error, LookupError, zipfile.BadZipFile)
_NO_VALUE_OF_HIVE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class CsvStyle:
    """How CSV files are written.

    Attributes:
        delimiter: Between cells; None is a tab for `.tsv` and `.tab`, a comma for the others.
        quote: Around cells that hold a delimiter or a line break.
        escape: Before a quote inside of a quoted cell; None: such a quote is doubled.
        encoding: Of the bytes; bytes that are not UTF-8 under `utf8` become U+FFFD.
        null_values: Cells that mean nothing is known.
        names: Names of the columns, where the first row is no header; None: it is one.
        skip_rows: Rows with text before the header, or before the first row, that are no table.
    """

    delimiter: str | None = None
    quote: str = '"'
    escape: str | None = None
    encoding: str = "utf8"
    null_values: tuple[str, ...] = ("", "NULL", "\\N")
    names: tuple[str, ...] | None = None
    skip_rows: int = 0


@dataclass(frozen=True)
class _Head:
    """The beginning of a CSV file.

    Attributes:
        names: Cells of its first row that is not empty.
        rows: Rows up to that one, which are no data.
        encoding: As it is set; where that is not, UTF-16 if the byte order mark says so.
    """

    names: tuple[str, ...]
    rows: int
    encoding: str


@dataclass(frozen=True)
class DataFile:
    """One file of rows.

    Attributes:
        filesystem: fsspec file system it lives on.
        path: Path on it.
        format: Parquet, or CSV or lines of JSON, which may be compressed (detected by its first
            bytes).
        style: How it is written, if it is CSV.
    """

    filesystem: Any = field(repr=False)
    path: str
    format: Format
    style: CsvStyle = CsvStyle()

    @property
    def is_parquet(self) -> bool:
        return self.format == "parquet"

    @property
    def is_json(self) -> bool:
        return self.format == "json"

    @property
    def protocol(self) -> str:
        """fsspec's name of the file system; `file` is this machine."""
        known = self.filesystem.protocol
        return known if isinstance(known, str) else "file" if "file" in known else known[0]

    @property
    def url(self) -> str:
        """The path, with its protocol where it is not one of this machine."""
        return self.path if self.protocol == "file" else f"{self.protocol}://{self.path}"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Its columns in order; none if the file is empty.

        Of JSON lines the keys of the first of them, those of a record in a record as `user.id`;
        later lines may have others.

        Raises:
            ValueError: The file is damaged; the message names it and the remedy.
        """
        try:
            if self.filesystem.size(self.path) == 0:
                return ()
            if self.is_parquet:
                with self.filesystem.open(self.path, "rb") as stream:
                    return tuple(pq.ParquetFile(stream).schema_arrow.names)
            if self.is_json:
                return tuple(self.keys)
            return self._head.names if self.style.names is None else self.style.names
        except _BROKEN as error:
            raise self.damaged(error) from error

    @cached_property
    def keys(self) -> dict[str, tuple[str, ...]]:
        """Of JSON lines the names, and the JSON pointers of each.

        Raises:
            ValueError: The file is damaged, or a line is no record.
        """
        try:
            return json_keys.keys_in(self._first_text()[0], self.path)
        except _BROKEN as error:
            raise self.damaged(error) from error

    @cached_property
    def path_columns(self) -> dict[str, str | None]:
        """Columns that stand in the path only, as `name=value` directories."""
        parts = [part.partition("=") for part in self.path.split("/")[:-1]]
        found = {unquote(name): unquote(value) for name, is_one, value in parts if is_one and name}
        return {
            name: None if value == _NO_VALUE_OF_HIVE else value
            for name, value in found.items()
            if name not in self.names
        }

    def first_lines(self, number: int) -> list[str]:
        """The first lines of a file of text that are not empty, as they stand.

        Raises:
            ValueError: The file is damaged.
        """
        try:
            text, _ = self._first_text()
        except _BROKEN as error:
            raise self.damaged(error) from error
        return [line for line in text.splitlines() if line.strip()][:number]

    def mentions(self, name: str) -> bool:
        """Whether a file of JSON lines has the last key of a name anywhere, as it is written there;
        of a damaged one in what can be read.
        """
        last = name.rpartition(".")[2]
        keys = [f'{before}{last}"'.encode() for before in ('"', ".")]  # of a record, or with points
        kept = b""
        try:
            with self._bytes() as stream:
                while block := stream.read(BLOCK_BYTES):
                    if any(key in kept + block for key in keys):
                        return True
                    kept = block[-len(keys[0]) :]
        except _BROKEN:
            return False
        return False

    def lines(self) -> pa.RecordBatchReader:
        """The lines of a JSON file, empty ones too, in one column `line` of texts.

        Raises:
            ValueError: The file is damaged; as it is read.
        """
        schema = pa.schema([("line", pa.string())])
        return pa.RecordBatchReader.from_batches(schema, self._line_batches())

    def rows(self, positions: Sequence[int]) -> pa.RecordBatchReader:
        """Some columns by their position, named c0, c1 ... after it; the cells of a CSV are text.
        Not of JSON: see `lines`.

        Raises:
            ValueError: The file is damaged, or a row does not fit its header; as it is read.
        """
        assert not self.is_json, "see lines"
        names = [f"c{p}" for p in positions]
        if not self.is_parquet:
            schema = pa.schema([(name, pa.string()) for name in names])
            return pa.RecordBatchReader.from_batches(schema, self._csv_batches(names))
        with self.filesystem.open(self.path, "rb") as stream:
            schema = pq.ParquetFile(stream).schema_arrow
        kept = pa.schema([(f"c{p}", schema.field(p).type) for p in positions])
        return pa.RecordBatchReader.from_batches(kept, self._parquet_batches(positions, kept))

    def durations(self) -> dict[str, int]:
        """Columns of time spans that a Parquet file has, with their units in a second."""
        if not self.is_parquet:
            return {}
        with self.filesystem.open(self.path, "rb") as stream:
            schema = pq.ParquetFile(stream).schema_arrow
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
        return {f.name: per_second[f.type.unit] for f in schema if pa.types.is_duration(f.type)}

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Some columns under their own names.

        Raises:
            ValueError: The file is damaged.
        """
        found = self.rows([self.names.index(name) for name in columns]).read_all()
        return found.rename_columns(list(columns))

    def require_columns(self, names: Sequence[str], remedy: str) -> None:
        """Check that columns exist, in the file or in its path.

        Raises:
            ValueError: One does not; the message names file, column and remedy.
        """
        present = (*self.names, *self.path_columns)
        for name in names:
            if name not in present:
                is_csv = self.format == "csv"
                likely = file_problems.remedy_of_header(
                    name, present, self.first_lines(HEADER_LINES) if is_csv else []
                )
                raise ValueError(
                    f"{self.path}: no column {shown(name)!r}; it has {shown(', '.join(present))}. "
                    + (likely or remedy)
                )
            if self.names.count(name) > 1:
                raise ValueError(
                    f"{self.path}: {self.names.count(name)} columns are called {name!r}: rename "
                    "one, so that it is clear which is meant"
                )

    def damaged(self, error: Exception) -> ValueError:
        """The error message for a file that cannot be read."""
        layout = file_problems.CsvLayout(
            delimiter=self._delimiter,
            quote=self.style.quote,
            escape=self.style.escape,
            has_header=self.style.names is None,
        )
        said = file_problems.about(error, layout if self.format == "csv" else self.format)
        return ValueError(f"{self.path}: {said}")

    @property
    def _delimiter(self) -> str:
        ending = _without_compression(self.path)
        return self.style.delimiter or ("\t" if ending.endswith((".tsv", ".tab")) else ",")

    @contextmanager
    def _bytes(self) -> Iterator[Any]:
        """Its bytes, decompressed."""
        with self.filesystem.open(self.path, "rb") as stream:
            start = stream.read(6)
            stream.seek(0)
            codec = next((c for magic, c in _MAGIC.items() if start.startswith(magic)), None)
            if codec is None:
                yield stream
            elif codec in _BY_PYTHON:
                if codec == "zip":
                    name = file_problems.only_file(self.path, stream)
                    with zipfile.ZipFile(stream) as archive, archive.open(name) as plain:
                        yield plain
                    return
                opened: Any = fsspec.compression.compr
                with opened[codec](stream, mode="rb") as plain:
                    yield plain
            else:
                yield pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), codec)

    def _first_text(self) -> tuple[str, str]:
        """The beginning of a file of text, of JSON lines at least one of them; and its encoding."""
        with self._bytes() as stream:
            start = stream.read(HEADER_BYTES)
            while self.is_json and b"\n" not in start and (more := stream.read(HEADER_BYTES)):
                start += more
                if len(start) > BLOCK_BYTES:
                    most = f"{BLOCK_BYTES >> 20} MiB, which a record may have"
                    raise ValueError(f"{self.path}: line 1 is longer than {most}: leave fields out")
        file_problems.require_text(self.path, start, self.style.encoding, is_json=self.is_json)
        encoding = self._encoding(start)
        return start.decode(encoding, "replace"), encoding

    def _encoding(self, start: bytes) -> str:
        if self.style.encoding not in ("utf8", "utf-8"):
            return self.style.encoding
        is_utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return "utf-16" if is_utf16 else "utf-8-sig"

    @cached_property
    def _head(self) -> "_Head":
        start, encoding = self._first_text()
        text = io.StringIO(start, newline="")
        rows = csv.reader(text, delimiter=self._delimiter, quotechar=self.style.quote)
        left, number = self.style.skip_rows, 0
        for number, row in enumerate(rows, start=1):
            if row and not left:
                return _Head(tuple(row), number, encoding)
            left -= bool(row)
        return _Head((), number, encoding)

    def _csv_batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        every = [f"c{p}" for p in range(len(self.names))]
        if not every:
            return
        rows = self._head.rows
        if self.style.names is not None:  # the row found is data
            rows = rows - 1 if self.style.skip_rows else 0
        parse = pacsv.ParseOptions(
            delimiter=self._delimiter,
            quote_char=self.style.quote,
            escape_char=self.style.escape or False,
            newlines_in_values=True,
        )
        read = pacsv.ReadOptions(
            use_threads=False,  # faster for streams, and errors say their row
            block_size=BLOCK_BYTES,
            encoding=self._head.encoding.removesuffix("-sig"),
            column_names=every,
            skip_rows_after_names=rows,
        )
        convert = pacsv.ConvertOptions(
            include_columns=list(names),
            column_types=dict.fromkeys(every, pa.binary()),
            strings_can_be_null=True,
            null_values=list(self.style.null_values),
        )
        try:
            with self._bytes() as stream:
                for batch in pacsv.open_csv(stream, read, parse, convert):
                    yield pa.record_batch([_text(c) for c in batch.columns], names=list(names))
        except _BROKEN as error:
            raise self.damaged(error) from error

    def _line_batches(self) -> Iterator[pa.RecordBatch]:
        """A line is a CSV row of one cell: JSON writes the delimiter \\x01 as an escape."""
        with self._bytes() as stream:
            encoding = self._encoding(stream.read(2)).removesuffix("-sig")
        parse = pacsv.ParseOptions(
            delimiter="\x01", quote_char=False, escape_char=False, ignore_empty_lines=False
        )
        read = pacsv.ReadOptions(
            use_threads=False, block_size=BLOCK_BYTES, encoding=encoding, column_names=["line"]
        )
        convert = pacsv.ConvertOptions(column_types={"line": pa.binary()})
        try:
            with self._bytes() as stream:
                for batch in pacsv.open_csv(stream, read, parse, convert):
                    yield pa.record_batch([_text(batch.column(0))], names=["line"])
        except _BROKEN as error:
            raise self.damaged(error) from error

    def _parquet_batches(
        self, positions: Sequence[int], schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        try:
            with self.filesystem.open(self.path, "rb") as stream:
                names = [self.names[p] for p in positions]
                for batch in pq.ParquetFile(stream).iter_batches(columns=names):
                    columns = [batch.column(batch.schema.get_field_index(n)) for n in names]
                    yield pa.record_batch(columns, schema=schema)
        except _BROKEN as error:
            raise self.damaged(error) from error


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
        ValueError: The URL's file system is not installed or cannot be reached, or too much lies
            there.
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
    except TooManyFilesError:
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
    matches = filesystem.glob(path) if is_glob else [path] if filesystem.exists(path) else []
    formats: dict[str, Format | None] = {}
    inside: set[str] = set()
    for match in map(str, matches):
        if is_glob and _is_hidden(match.rsplit("/", 1)[-1]):
            continue
        if filesystem.isdir(match):
            found = map(str, filesystem.find(match))
            below = [p for p in found if not _is_hidden(p.removeprefix(match))]
            formats |= {p: format or _by_ending(p) for p in below}
            inside |= {*below}
        else:
            formats[match] = format or _by_content(filesystem, match)
    return formats, inside


def _without_compression(path: str) -> str:
    lower = path.lower()
    return next((lower.removesuffix(end) for end in COMPRESSED if lower.endswith(end)), lower)


def _by_ending(path: str) -> Format | None:
    ending = _without_compression(path)
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


def _text(column: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:  # bytes that are not UTF-8: keep the row, mark the bytes
        values = [None if v is None else v.decode(errors="replace") for v in column.to_pylist()]
        return pa.array(values, pa.string())
