"""How a CSV file is written, guessed from its first lines."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace

from onerec.datasets.data_file import HEADER_BYTES, DataFile
from onerec.datasets.file_problems import OpenQuoteError
from onerec.datasets.open_quotes import WithClosedQuotes
from resources.log_times import holds_value

DELIMITERS = ("\t", ",", ";", "|", "^", "~", "\x01", "\x1f")
DELIMITER_LINES = 6
MOST_BEFORE = 30
"""Lines before a table, at most."""
TWO_CHARACTERS = "::"
"""Between cells, as MovieLens writes: to be read as one character, with empty columns between."""
FALLBACK_ENCODING = "cp1252"
"""Of files that are not UTF-8: which of the one-byte encodings it is cannot be seen."""
_TWO_BYTES = re.compile(r"set encoding: (utf-16-[lb]e)")


def with_own_style(file: DataFile) -> DataFile:
    """A CSV file with its own encoding, delimiter and escape, and with made-up names where it has
    no header.

    Raises:
        ValueError: It is no text, or damaged.
    """
    if file.format != "csv":
        return file
    file, lines = _with_encoding(file)
    if not lines:
        return file
    first = lines[:DELIMITER_LINES]
    if all(line.count(TWO_CHARACTERS) > 1 for line in first):
        return _of_two_characters(file, lines[0])
    before = _lines_before(lines[:MOST_BEFORE])
    lines = lines[before:]
    first = lines[:DELIMITER_LINES]
    delimiter = _delimiter(first)
    own = "\t" if file.path.lower().split(".")[-1] in ("tsv", "tab") else ","
    style = replace(file.style, skip_rows=before)
    if delimiter != own and all(delimiter in line for line in first):
        style = replace(style, delimiter=delimiter)
    # a quoted cell may end with a backslash; quotes inside of a cell are followed by other text
    if any(re.search(rf'\\"[^"{re.escape(delimiter)}]', line) for line in lines):
        style = replace(style, escape="\\")
    elif _swallows_rows("\n".join(lines), delimiter):
        style = replace(style, quote="")
    cells = next(csv.reader([lines[0]], delimiter=delimiter))
    if holds_value(tuple(cells)):
        style = replace(style, names=_made_up(cells))
    return replace(file, style=style)


def _lines_before(lines: Sequence[str]) -> int:
    """How many lines come before the table: `sep=;` of Excel, comments, and a report's heading, in
    which nothing parts cells."""
    if re.fullmatch(r'"?sep=.?"?', lines[0].strip("\ufeff,; \t"), re.IGNORECASE):
        return 1
    parted = [n for n, line in enumerate(lines) if any(d in line for d in DELIMITERS)]
    row = next((lines[n] for n in parted if lines[n][0] != "#"), "")
    header = next((n for n in parted if lines[n][0] != "#" or _alike(lines[n], row)), 0)
    return (
        header if all(_alike(lines[header], line) for line in lines[header + 1 : header + 2]) else 0
    )


def _alike(line: str, other: str) -> bool:
    """Whether a delimiter stands as often in both lines."""
    return any(line.count(d) == other.count(d) > 0 for d in DELIMITERS)


def _swallows_rows(text: str, delimiter: str) -> bool:
    """Whether a quote that opens a cell has whole rows behind it: quotes are text in the file."""
    start = text.encode()
    stream = WithClosedQuotes(io.BytesIO(start), '"', delimiter, None, longest=len(start))
    try:
        stream.read()
        if len(start) < HEADER_BYTES // 2:  # all of the file: no cell goes on behind it
            stream.read()
    except OpenQuoteError:
        return True
    return False


def _made_up(cells: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"column_{n}" for n in range(1, len(cells) + 1))


def _of_two_characters(file: DataFile, line: str) -> DataFile:
    cells = line.split(TWO_CHARACTERS)
    has_header = not holds_value(tuple(cells))
    named = cells if has_header else _made_up(cells)
    names = [part for n, name in enumerate(named) for part in (f"_{n}", name)][1:]
    style = replace(
        file.style, delimiter=TWO_CHARACTERS[0], names=tuple(names), skip_rows=int(has_header)
    )
    return replace(file, style=style)


def _with_encoding(file: DataFile) -> tuple[DataFile, list[str]]:
    most = 10_000
    try:
        lines = file.first_lines(most)
    except ValueError as error:
        two_bytes = _TWO_BYTES.search(str(error))
        if two_bytes is None:
            raise
        file = replace(file, style=replace(file.style, encoding=two_bytes[1]))
        return file, file.first_lines(most)
    if any("\ufffd" in line for line in lines[:-1]):  # the last one may be cut within a character
        file = replace(file, style=replace(file.style, encoding=FALLBACK_ENCODING))
        lines = file.first_lines(most)
    return file, lines


def _delimiter(lines: Sequence[str]) -> str:
    """The character that stands most often in the line that has the fewest of it."""
    fewest = {d: min(line.count(d) for line in lines) for d in DELIMITERS}
    return max(fewest, key=lambda d: fewest[d])
