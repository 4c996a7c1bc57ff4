"""Rows of text files, CSV or lines, as batches of texts: no cell is typed here."""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from onerec.datasets.open_quotes import WithClosedQuotes

BLOCK_BYTES = 16 << 20
"""A CSV row, or a line of JSON, must fit into one block."""
TWO_BYTES = ("utf-16", "utf_16", "utf16", "utf-32", "utf_32", "utf32")
"""How names of encodings begin that write a quote in several bytes."""


@dataclass(frozen=True)
class CsvStyle:
    """How CSV files are written.

    Attributes:
        delimiter: Between cells; None is a tab for `.tsv` and `.tab`, a comma for the others.
        quote: Around cells that hold a delimiter or a line break; empty: quotes are text.
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
class CsvHead:
    """The beginning of a CSV file.

    Attributes:
        names: Cells of its first row that is not empty.
        rows: Rows up to that one, which are no data.
        encoding: Of the bytes.
    """

    names: tuple[str, ...]
    rows: int
    encoding: str


def encoding_of(start: bytes, declared: str) -> str:
    """As it is declared; where it is UTF-8, UTF-16 if the byte order mark says so."""
    if declared not in ("utf8", "utf-8"):
        return declared
    is_utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return "utf-16" if is_utf16 else "utf-8-sig"


def csv_head(start: str, style: CsvStyle, encoding: str) -> CsvHead:
    """The first row of a file.

    Args:
        start: The beginning of the file.
        style: With its delimiter.
        encoding: Of the bytes.
    """
    text = io.StringIO(start, newline="")
    assert style.delimiter is not None
    quoting = csv.QUOTE_MINIMAL if style.quote else csv.QUOTE_NONE
    rows = csv.reader(
        text, delimiter=style.delimiter, quotechar=style.quote or None, quoting=quoting
    )
    left, number = style.skip_rows, 0
    for number, row in enumerate(rows, start=1):
        if row and not left:
            return CsvHead(tuple(row), number, encoding)
        left -= bool(row)
    return CsvHead((), number, encoding)


def csv_batches(
    stream: Any, style: CsvStyle, head: CsvHead, every: Sequence[str], kept: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """The cells of a file.

    Args:
        stream: Its bytes.
        style: With its delimiter.
        head: Its beginning.
        every: Names of all columns, each once.
        kept: Those that are read.

    Raises:
        pa.ArrowException: A row does not fit its header.
        OpenQuoteError: A quote swallows rows.
    """
    assert style.delimiter is not None
    if style.quote and not head.encoding.startswith(TWO_BYTES):
        stream = WithClosedQuotes(
            stream, style.quote, style.delimiter, style.escape, longest=BLOCK_BYTES
        )
    rows = head.rows
    if style.names is not None:  # the row found is data
        rows = rows - 1 if style.skip_rows else 0
    parse = pacsv.ParseOptions(
        delimiter=style.delimiter,
        quote_char=style.quote or False,
        escape_char=style.escape or False,
        newlines_in_values=True,
    )
    convert = pacsv.ConvertOptions(
        include_columns=list(kept),
        column_types=dict.fromkeys(every, pa.binary()),
        strings_can_be_null=True,
        null_values=list(style.null_values),
    )
    read = _read_options(head.encoding, every, skip_rows_after_names=rows)
    return _batches(stream, read, parse, convert)


def line_batches(stream: Any, encoding: str) -> Iterator[pa.RecordBatch]:
    """The lines of a file, empty ones too, in one column `line`.

    A line is a CSV row of one cell: JSON writes the delimiter \\x01 as an escape.
    """
    parse = pacsv.ParseOptions(
        delimiter="\x01", quote_char=False, escape_char=False, ignore_empty_lines=False
    )
    convert = pacsv.ConvertOptions(column_types={"line": pa.binary()})
    return _batches(stream, _read_options(encoding, ["line"]), parse, convert)


def _read_options(encoding: str, names: Sequence[str], **more: Any) -> pacsv.ReadOptions:
    return pacsv.ReadOptions(
        use_threads=False,  # faster for streams, and errors say their row
        block_size=BLOCK_BYTES,
        encoding=encoding.removesuffix("-sig"),
        column_names=list(names),
        **more,
    )


def _batches(
    stream: Any, read: pacsv.ReadOptions, parse: pacsv.ParseOptions, convert: pacsv.ConvertOptions
) -> Iterator[pa.RecordBatch]:
    for batch in pacsv.open_csv(stream, read, parse, convert):
        texts = [_text(column) for column in batch.columns]
        yield pa.record_batch(texts, names=batch.schema.names)


def _text(column: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:  # bytes that are not UTF-8: keep the row, mark the bytes
        values = [None if v is None else v.decode(errors="replace") for v in column.to_pylist()]
        return pa.array(values, pa.string())
