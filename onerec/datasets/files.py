"""Reading foreign Parquet and CSV files: find, scan, decode, cast, without losing a value.

Files are read one by one, so that an error names its file and files of one log may differ in types.
CSV cells arrive as text; a column that cannot be cast as a whole is delivered as text, so that the
staging SQL rejects and counts the rows that are wrong, and only those.
"""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, TypeAlias

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.dataset as ds
import pyarrow.parquet as pq

SUFFIXES = (".parquet", ".pq", ".csv", ".csv.gz", ".tsv")
PARQUET = (".parquet", ".pq")
BLOCK_BYTES = 16 << 20  # a CSV row, title included, must fit into one block
UTC_US = pa.timestamp("us", tz="UTC")
MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}
"""Microseconds in one unit of a numeric time column."""

_ISO_DAY = "%Y-%m-%d"
_DATE = re.compile(r"\{date(?::([^}]+))?\}")
_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_TRUE = pa.array(["true", "t", "yes", "y", "1", "1.0"])
_FALSE = pa.array(["false", "f", "no", "n", "0", "0.0"])

Column: TypeAlias = pa.ChunkedArray


@dataclass(frozen=True)
class CsvStyle:
    """How CSV files are written.

    Attributes:
        delimiter: Between cells.
        encoding: Of the bytes; bytes that are not UTF-8 under `utf8` become U+FFFD.
        null_values: Cells that mean nothing is known.
    """

    delimiter: str = ","
    encoding: str = "utf8"
    null_values: tuple[str, ...] = ("", "NULL", "\\N")


@dataclass(frozen=True)
class DataFile:
    """One Parquet or CSV file.

    Attributes:
        filesystem: fsspec file system it lives on.
        path: Path on it.
        is_parquet: Parquet, else CSV.
        style: How it is written, if it is CSV.
    """

    filesystem: Any = field(repr=False)
    path: str
    is_parquet: bool
    style: CsvStyle = CsvStyle()

    def dataset(self) -> ds.Dataset:
        """The file as a dataset; every column of a CSV file is binary.

        Raises:
            ValueError: The file is damaged; the message names it and the remedy.
        """
        try:
            if self.is_parquet:
                return ds.dataset(self.path, format="parquet", filesystem=self.filesystem)
            found = ds.dataset(self.path, format=self._csv(), filesystem=self.filesystem)
            schema = pa.schema([(name, pa.binary()) for name in found.schema.names])
            return ds.dataset(
                self.path, format=self._csv(), filesystem=self.filesystem, schema=schema
            )
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def scan(
        self, columns: Sequence[str], where: pc.Expression | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Batches of some columns; `where` is pushed down into the file. CSV cells are text.

        Raises:
            ValueError: The file is damaged.
        """
        try:
            for batch in self.dataset().scanner(columns=list(columns), filter=where).to_batches():
                yield batch if self.is_parquet else _decoded(batch)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def read(self, columns: Sequence[str], where: pc.Expression | None = None) -> pa.Table:
        """All batches of `scan` as one table."""
        batches = list(self.scan(columns, where))
        if batches:
            return pa.Table.from_batches(batches)
        schema = self.dataset().schema
        text = pa.string()
        kinds = [(n, schema.field(n).type if self.is_parquet else text) for n in columns]
        return pa.schema(kinds).empty_table()

    def statistics(self, column: str) -> tuple[Any, Any] | None:
        """Smallest and largest value of a Parquet column from its footer, if it tells."""
        if not self.is_parquet:
            return None
        try:
            with self.filesystem.open(self.path, "rb") as stream:
                footer = pq.ParquetFile(stream).metadata
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error
        names = [footer.schema.column(i).path for i in range(footer.num_columns)]
        if column not in names or footer.num_row_groups == 0:
            return None
        at = names.index(column)
        found = [footer.row_group(g).column(at).statistics for g in range(footer.num_row_groups)]
        if any(s is None or not s.has_min_max or s.null_count for s in found):
            return None
        return min(s.min for s in found), max(s.max for s in found)

    def require_columns(self, names: Sequence[str], remedy: str) -> None:
        """Check that columns exist.

        Raises:
            ValueError: One does not; the message names file, column and remedy.
        """
        present = self.dataset().schema.names
        for name in names:
            if name not in present:
                raise ValueError(
                    f"{self.path}: no column {name!r}; it has {', '.join(present)}. {remedy}"
                )

    def _csv(self) -> ds.CsvFileFormat:
        return ds.CsvFileFormat(
            parse_options=pacsv.ParseOptions(
                delimiter=self.style.delimiter, newlines_in_values=True
            ),
            read_options=pacsv.ReadOptions(block_size=BLOCK_BYTES, encoding=self.style.encoding),
            convert_options=pacsv.ConvertOptions(
                strings_can_be_null=True, null_values=list(self.style.null_values)
            ),
        )

    def _damaged(self, error: Exception) -> ValueError:
        kind = "Parquet" if self.is_parquet else "CSV"
        return ValueError(
            f"{self.path}: cannot be read as {kind} ({error}). "
            "The file is truncated, damaged or of another format: write or copy it again."
        )


def find(url: str, *, parquet: bool | None = None, style: CsvStyle = CsvStyle()) -> list[DataFile]:
    """Files behind a path, a glob, a directory or any fsspec URL, in name order; maybe none.

    Args:
        url: Where to look.
        parquet: Format of every file; None tells by the ending.
        style: How CSV files are written.

    Raises:
        ValueError: The URL's file system is not installed or cannot be reached.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
        is_glob = any(c in path for c in "*?[")
        matches = filesystem.glob(path) if is_glob else [path] if filesystem.exists(path) else []
        paths = {p for match in matches for p in _inside(filesystem, str(match))}
    except ImportError as error:
        raise ValueError(
            f"{url}: {error}. For s3:// install the extra: pip install 'onerec-dagster[s3]'"
        ) from error
    except (ValueError, OSError) as error:
        raise ValueError(f"{url}: cannot be opened ({error}); check the URL") from error
    return [
        DataFile(
            filesystem,
            p,
            p.lower().endswith(PARQUET) if parquet is None else parquet,
            style,
        )
        for p in sorted(paths)
    ]


def _inside(filesystem: Any, path: str) -> list[str]:
    """A file itself, or the data files of a directory."""
    if not filesystem.isdir(path):
        return [path]
    found = [str(p) for p in filesystem.find(path) if str(p).lower().endswith(SUFFIXES)]
    return [p for p in found if not p.rsplit("/", 1)[-1].startswith((".", "_"))]


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


def cast_or_text(column: Column, kind: pa.DataType) -> Column:
    """A column in another type, or as text where a single value does not fit."""
    try:
        return pc.cast(_trimmed(column), kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return as_text(column)


def as_text(column: Column) -> Column:
    """A column as text, whatever it was; floats that are whole numbers are written as such."""
    if pa.types.is_string(column.type):
        return column
    if pa.types.is_floating(column.type):
        try:
            column = pc.cast(column, pa.int64())
        except pa.ArrowInvalid:
            pass  # real fractions stay as they are
    try:
        return pc.cast(column, pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        decoded = [pa.array([None if v is None else str(v) for v in column.to_pylist()])]
        return pa.chunked_array(decoded, type=pa.string())  # nested values: rare, small, wrong


def scaled_or_text(column: Column, scale: float) -> Column:
    """Numbers times a factor; a value that is no number stays as it is, and the column is text."""
    numbers = cast_or_text(column, pa.float64())
    if pa.types.is_floating(numbers.type):
        return pc.multiply(numbers, scale) if scale != 1.0 else numbers
    is_number = pc.match_substring_regex(numbers, _NUMBER)
    valid = pc.cast(_trimmed(pc.if_else(is_number, numbers, None)), pa.float64())
    return pc.if_else(is_number, pc.cast(pc.multiply(valid, scale), pa.string()), numbers)


def booleans_or_text(column: Column) -> Column:
    """Truth from 0/1, true/false, yes/no in any case; anything else stays, as text."""
    if pa.types.is_boolean(column.type):
        return column
    text = pc.utf8_lower(_trimmed(as_text(column)))
    is_true, is_false = pc.is_in(text, value_set=_TRUE), pc.is_in(text, value_set=_FALSE)
    known = pc.or_(pc.or_(is_true, is_false), pc.is_null(text))
    if pc.all(known, min_count=0).as_py():
        return pc.if_else(pc.is_null(text), None, is_true)
    plain = pc.if_else(is_true, "true", pc.if_else(is_false, "false", None))
    return pc.if_else(known, plain, as_text(column))


def parse_times(column: Column, unit: str | None) -> Column:
    """Times as UTC microseconds; null where a value is null or no time.

    Args:
        column: Timestamps (naive ones are UTC), dates, numbers since 1970 or text.
        unit: `s`, `ms` or `us` for numbers, `iso` or None for the rest.

    Raises:
        ValueError: Numbers without a unit.
    """
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    kind = column.type
    if pa.types.is_temporal(kind):
        return pc.cast(column, UTC_US, safe=False)
    if unit in MICROSECONDS:
        factor = MICROSECONDS[unit]
        numbers = column
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            text = as_text(column)
            text = pc.if_else(pc.match_substring_regex(text, _NUMBER), text, None)
            numbers = pc.cast(_trimmed(text), pa.float64())
        limit = 4e18 / factor  # beyond it the product leaves 64 bits: no time
        in_range = pc.less(pc.abs(pc.cast(numbers, pa.float64(), safe=False)), limit)
        numbers = pc.if_else(in_range, numbers, None)
        if pa.types.is_floating(numbers.type):
            numbers = pc.round(pc.multiply(numbers, float(factor)))
            return pc.cast(pc.cast(numbers, pa.int64(), safe=False), UTC_US)
        return pc.cast(pc.multiply(pc.cast(numbers, pa.int64(), safe=False), factor), UTC_US)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        raise ValueError(
            f"timestamp_unit={unit!r}: the time column holds {kind}; "
            "set timestamp_unit to s, ms or us"
        )
    import pandas as pd  # slow to import, and needed for text alone

    text = pd.Series(as_text(column).to_pandas(), dtype="str")
    parsed = pd.to_datetime(text, utc=True, errors="coerce", format="ISO8601")
    times = pa.Array.from_pandas(parsed)
    return pa.chunked_array([pc.cast(times, UTC_US, safe=False)])


def times_or_text(column: Column, times: Column) -> Column:
    """Parsed times, or, where a value was no time, text with the value as it stands."""
    if times.null_count == column.null_count:
        return times
    return pc.if_else(pc.is_valid(times), pc.cast(times, pa.string()), as_text(column))


def stack(tables: Sequence[pa.Table], names: Sequence[str], contract: pa.Schema) -> pa.Table:
    """Tables under one another with the same columns; a column of mixed types becomes text."""
    columns: dict[str, Column] = {}
    for name in names:
        parts = [t[name] if name in t.column_names else None for t in tables]
        kinds = {p.type for p in parts if p is not None}
        kind = (
            kinds.pop() if len(kinds) == 1 else pa.string() if kinds else contract.field(name).type
        )
        chunks: list[pa.Array] = []
        for table, part in zip(tables, parts, strict=True):
            if part is None:
                chunks.append(pa.nulls(len(table), kind))
            else:
                chunks.extend((part if part.type == kind else as_text(part)).chunks)
        columns[name] = pa.chunked_array(chunks, type=kind)
    return pa.table(columns)


def _trimmed(column: Column) -> Column:
    return pc.utf8_trim_whitespace(column) if pa.types.is_string(column.type) else column


def _decoded(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.record_batch([_text(c) for c in batch.columns], names=batch.schema.names)


def _text(column: pa.Array) -> pa.Array:
    try:
        return pc.cast(column, pa.string())
    except pa.ArrowInvalid:  # bytes that are not UTF-8: keep the row, mark the bytes
        values = [None if v is None else v.decode(errors="replace") for v in column.to_pylist()]
        return pa.array(values, pa.string())
