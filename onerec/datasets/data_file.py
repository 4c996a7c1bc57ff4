"""One foreign file of rows: what its columns are called, and their cells.

No value is typed here: a CSV cell is text, so is a line of JSON, a Parquet value is what the file
holds. The SQL engine of `resources` types them.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from onerec.datasets import compression, file_problems, json_keys
from onerec.datasets.compression import decompressed, without_compression
from onerec.datasets.file_problems import shown
from onerec.datasets.text_rows import (
    BLOCK_BYTES,
    CsvHead,
    CsvStyle,
    csv_batches,
    csv_head,
    encoding_of,
    line_batches,
)

Format = Literal["parquet", "csv", "json"]
HEADER_BYTES = 1 << 20
HEADER_LINES = 50
"""Lines among which a header is looked for that is not the first one."""
_BROKEN = (*compression.BROKEN, csv.Error, LookupError, file_problems.OpenQuoteError)
_NO_VALUE_OF_HIVE = "__HIVE_DEFAULT_PARTITION__"


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
    style: CsvStyle = field(default_factory=CsvStyle)

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
        with self._named_if_damaged():
            if self.filesystem.size(self.path) == 0:
                return ()
            if self.is_parquet:
                return tuple(self._parquet_schema().names)
            if self.is_json:
                return tuple(self.keys)
            return self._csv_head.names if self.style.names is None else self.style.names

    @property
    def keys(self) -> dict[str, tuple[str, ...]]:
        """Of JSON lines the names, and the JSON pointers of each.

        Raises:
            ValueError: The file is damaged, or a line is no record.
        """
        return self._json_head[0]

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
        with self._named_if_damaged():
            text, _ = self._first_text()
        return [line for line in text.splitlines() if line.strip()][:number]

    def mentions(self, name: str, most: float = math.inf) -> bool:
        """Whether a file of JSON lines has the last key of a name, as it is written there; of a
        damaged one in what can be read.

        Args:
            name: Of a column.
            most: Bytes from its beginning on after which it is not looked through further.
        """
        last = name.rpartition(".")[2]
        keys = [f'{before}{last}"'.encode() for before in ('"', ".")]  # of a record, or with points
        kept = b""
        try:
            with self._bytes() as stream:
                while most > 0 and (block := stream.read(BLOCK_BYTES)):
                    if any(key in kept + block for key in keys):
                        return True
                    kept = block[-len(keys[0]) :]
                    most -= len(block)
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
        schema = self._parquet_schema()
        kept = pa.schema([(f"c{p}", schema.field(p).type) for p in positions])
        return pa.RecordBatchReader.from_batches(kept, self._parquet_batches(positions, kept))

    def durations(self) -> dict[str, int]:
        """Columns of time spans that a Parquet file has, with their units in a second."""
        if not self.is_parquet:
            return {}
        spans = [f for f in self._parquet_schema() if pa.types.is_duration(f.type)]
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
        return {f.name: per_second[f.type.unit] for f in spans}

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

    @contextmanager
    def _named_if_damaged(self) -> Iterator[None]:
        try:
            yield
        except _BROKEN as error:
            raise self.damaged(error) from error

    @property
    def _delimiter(self) -> str:
        ending = without_compression(self.path)
        return self.style.delimiter or ("\t" if ending.endswith((".tsv", ".tab")) else ",")

    @property
    def _csv_style(self) -> CsvStyle:
        return replace(self.style, delimiter=self._delimiter)

    def _bytes(self) -> Any:
        """Its bytes, decompressed, while a block lasts."""
        return decompressed(self.filesystem, self.path)

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
        encoding = encoding_of(start, self.style.encoding)
        return start.decode(encoding, "replace"), encoding

    @cached_property
    def _csv_head(self) -> CsvHead:
        start, encoding = self._first_text()
        return csv_head(start, self._csv_style, encoding)

    @cached_property
    def _json_head(self) -> tuple[dict[str, tuple[str, ...]], str]:
        """The keys of the first lines, and the encoding."""
        with self._named_if_damaged():
            start, encoding = self._first_text()
            return json_keys.keys_in(start, self.path), encoding

    def _csv_batches(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        every = [f"c{p}" for p in range(len(self.names))]
        if not every:
            return
        with self._named_if_damaged(), self._bytes() as stream:
            yield from csv_batches(stream, self._csv_style, self._csv_head, every, names)

    def _line_batches(self) -> Iterator[pa.RecordBatch]:
        _, encoding = self._json_head
        with self._named_if_damaged(), self._bytes() as stream:
            yield from line_batches(stream, encoding)

    def _parquet_schema(self) -> pa.Schema:
        with self.filesystem.open(self.path, "rb") as stream:
            return pq.ParquetFile(stream).schema_arrow

    def _parquet_batches(
        self, positions: Sequence[int], schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        names = [self.names[p] for p in positions]
        with self._named_if_damaged(), self.filesystem.open(self.path, "rb") as stream:
            for batch in pq.ParquetFile(stream).iter_batches(columns=names):
                columns = [batch.column(batch.schema.get_field_index(n)) for n in names]
                yield pa.record_batch(columns, schema=schema)
