"""Messages for a delivered file that cannot be read or lacks a column: the cause and the remedy."""

import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PARQUET_MAGIC = b"PAR1"
SHOWN = 200
"""Characters of a value that a message shows."""

AS_TEXT = "write CSV or JSON lines, as they are or as gz, bz2, zst, lz4, xz or zip, or Parquet"
_CONTROLS = bytes([*range(4, 9), 11, *range(14, 26), 127])
"""Characters that no text has: not those that part cells or lines, such as Hive's \\x01."""
MANY_CONTROLS = 0.03
"""Their share from which bytes are no text; in compressed ones it is .07."""

AS_LINES = "write one record a line, jq -c '.[]' file.json > file.jsonl say"
TOO_DEEP = "holds lists or records in too many others: write what is meant in fields of its own"
_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*\{\s*[\"}]")
_JSON_LIST = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*[\[{]")
_BROKEN_LINE = re.compile(r"no record in line (\d+): ?(.*)", re.DOTALL)
_NESTED = re.compile(r"nested value in line (\d+): ([^\n]*)\n(.*)", re.DOTALL)
_LATE_KEY = re.compile(r"late key in line (\d+): ([^\n]+)")
_RAGGED = re.compile(r"(?:Row #(\d+): )?Expected (\d+) columns, got (\d+): ?(.*)", re.DOTALL)
_OTHER_FORMATS = (
    (re.compile(rb"PAR1"), "is Parquet: set format: parquet, or end its name in .parquet"),
    (re.compile(rb"ORC"), "is ORC, which is not read: write Parquet"),
    (re.compile(rb"Obj\x01"), "is Avro, which is not read: write Parquet"),
    (re.compile(rb"ARROW1"), "is Arrow or Feather, which is not read: write Parquet"),
    (re.compile(rb"\xd0\xcf\x11\xe0"), "is an Excel workbook: save the sheet as CSV"),
    (re.compile(rb"SQLite format 3"), "is an SQLite database: export the table as CSV"),
    (re.compile(rb".{257}ustar", re.DOTALL), "is a tar archive: unpack it, and name its files"),
    (re.compile(rb"\x1f\x8b|\x28\xb5\x2f\xfd"), "is compressed twice: unpack it once"),
    (
        re.compile(
            rb"7z\xbc\xaf|Rar!|\x1f\x9d|\x89LZO|\xff\x06\0\0sNaPpY|\x93NUMPY|\x80[\x02-\x05]"
        ),
        f"is an archive or binary, which is not read: {AS_TEXT}",
    ),
    (
        re.compile(rb"\s*<(!DOCTYPE|html|\?xml)", re.IGNORECASE),
        "is an HTML or XML page, maybe an error message in place of the file: download it again",
    ),
    (
        re.compile(rb"version https://git-lfs"),
        "is a pointer of Git LFS: get the file, git lfs pull",
    ),
)


class OpenQuoteError(ValueError):
    """Rows of a CSV file are within a cell whose quote is not closed."""


def shown(value: object) -> str:
    """A value as a message shows it: one line of printable characters, at most `SHOWN`."""
    text = " ".join(str(value).split())
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: SHOWN + 1])
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def require_text(path: str, start: bytes, encoding: str, *, is_json: bool = False) -> None:
    """Check that the first bytes of a file can be those of a CSV file, or of lines of JSON.

    Raises:
        ValueError: They are of another format, or of two-byte characters without a mark.
    """
    if _JSON_LIST.match(start):
        raise ValueError(f"{path}: is one JSON list: {AS_LINES}")
    if not is_json and _JSON.match(start):
        raise ValueError(
            f"{path}: is JSON: set format: json if each line is a record, or end its name in .jsonl"
        )
    for beginning, what in _OTHER_FORMATS:
        if beginning.match(start):
            raise ValueError(f"{path}: {what}")
    head = start[:1000]
    if encoding not in ("utf8", "utf-8"):
        return
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if controls > MANY_CONTROLS * len(head) and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path}: is no text, maybe packed in another way or encrypted: {AS_TEXT}")
    if head.count(b"\0") > len(head) // 4:
        has_mark = head.startswith((b"\xff\xfe", b"\xfe\xff"))
        if not has_mark:
            likely = "utf-16-le" if head[1:2] == b"\0" else "utf-16-be"
            raise ValueError(f"{path}: its characters have two bytes each: set encoding: {likely}")


def only_file(path: str, stream: Any) -> str:
    """The file that a zip archive holds; what a Mac adds beside it does not count.

    Args:
        path: Of the archive.
        stream: Its bytes; left at their beginning.

    Raises:
        ValueError: It is a workbook, or holds several files or none.
    """
    names = [
        n
        for n in zipfile.ZipFile(stream).namelist()
        if not n.endswith(("/", ".DS_Store")) and not n.startswith("__MACOSX/")
    ]
    stream.seek(0)
    if "[Content_Types].xml" in names:
        raise ValueError(f"{path}: is an Excel workbook: save the sheet as CSV")
    if len(names) != 1:
        raise ValueError(
            f"{path}: the archive holds {len(names)} files ({shown(', '.join(names))}): unpack it, "
            "and name its directory, or one archive for each"
        )
    return names[0]


def remedy_of_header(name: str, present: Sequence[str], lines: Sequence[str]) -> str | None:
    """What is likely wrong with a header that lacks a column; None: only its name.

    Args:
        name: The column that is looked for.
        present: The columns that there are.
        lines: The first lines of a CSV file; none of another one.
    """
    alike = [n for n in present if loose(n) == loose(name)]
    if alike:
        return f"Names count to the letter: it is {alike[0]!r} there."
    record = name.partition(".")[0]
    if record != name and record in present:
        return (
            f"Fields of {record!r} are read in JSON lines only: write {shown(name)} to a column of "
            "its own"
        )
    if not lines or not present:
        return None
    if quoted := [n for n in present if n.strip("'\u2019") == name]:
        return f"Its cells stand in other quotes: set quote: {quoted[0][0]!r}"
    if any("\ufffd" in n for n in present):
        return "Its bytes are not UTF-8: set encoding, e.g. latin-1 or cp1252."
    header = next((n for n, line in enumerate(lines) if name in re.split(r"\W+", line)), 0)
    if header:
        return f"Its header seems to be line {header + 1} with text: set skip_rows: {header}"
    if present[0].startswith("#"):
        return "Its first line is a comment: set skip_rows to the lines before the header."
    if len(present) == 1 and (likely := _likely_delimiter(present[0])):
        return likely
    if any(re.fullmatch(r"[-+]?[0-9][-+0-9.:/TZ ]*(UTC|GMT|[AaPp][Mm])?", n) for n in present):
        return "Its first row seems to be no header: give the columns' names with names: [...]"
    return None


def _likely_delimiter(header: str) -> str | None:
    """What to do where all of a header was read as one name."""
    if "::" in header:
        names = ", _, ".join(header.split("::")[:3])
        return (
            "Two characters part its cells: set delimiter: ':', skip_rows: 1 and names: "
            f"[{names}, ...], with a name for each empty column between"
        )
    counts = {d: header.count(d) for d in ",;\t|\x01\x1f"}
    likely = max(counts, key=lambda d: counts[d])
    if counts[likely]:
        # YAML knows escapes in double quotes only
        written = repr(likely) if likely.isprintable() else json.dumps(likely)
        return f"Its delimiter seems to be another: set delimiter: {written}"
    if "  " in header:
        return "Its columns are aligned by blanks: write one delimiter between them"
    return "Blanks part its cells: set delimiter: ' '" if " " in header else None


def loose(name: str) -> str:
    """A column's name without case and blanks around.

    >>> loose(" User_ID")
    'user_id'
    """
    return name.strip().strip("\ufeff").casefold()


@dataclass(frozen=True, kw_only=True)
class CsvLayout:
    """How the rows of a CSV file were read.

    Attributes:
        delimiter: Between cells.
        quote: Around cells.
        escape: Before a quote inside of a cell.
        has_header: The first row names the columns.
    """

    delimiter: str
    quote: str
    escape: str | None
    has_header: bool


def about_broken_line(number: int, line: str) -> str:
    """The message for a line that is no JSON record.

    Args:
        number: From 1 on.
        line: The line.
    """
    start = f"line {number} is no JSON record: {shown(line)!r}. "
    if number == 1 and not line.lstrip().startswith("{"):
        return f"{start}If the file holds CSV, set format: csv; else {AS_LINES}"
    if line.strip() in ("{", "["):
        return f"{start}It goes on in the next line: {AS_LINES}"
    if len(line) > SHOWN // 2 and not line.rstrip().endswith("}"):
        return f"{start}Its end is missing: write or copy the file again"
    return f"{start}Correct or remove it, or write the file again"


def _about_json(error: Exception) -> str | None:
    """What `resources.json_lines` found in a line; None for other errors."""
    text = str(error)
    if broken := _BROKEN_LINE.search(text):
        return about_broken_line(int(broken[1]), broken[2])
    if nested := _NESTED.search(text):
        number, name, value = nested.groups()
        kind = "a list, write a row for each element"
        if value.startswith("{"):
            found = re.search(r'"([^"]+)"', value)
            field = found[1] if found else "id"
            kind = f"a record, name the field of it that is meant, {name}.{field} say"
        return f"line {number}: {name} holds {kind}: {shown(value)}"
    if late := _LATE_KEY.search(text):
        number, key = late.groups()
        return (
            f"line {number} has the key {key}, which its first lines lack: name it in the "
            f"section's columns, {{ {loose(key)}: {key!r} }}, or null if it is not meant"
        )
    return None


def about(error: Exception, layout: "CsvLayout | str") -> str:
    """The message for a file that could not be read, with the remedy.

    Args:
        error: Of the reader.
        layout: Of a CSV file; `parquet` or `json` for the others.
    """
    if isinstance(error, PermissionError):
        return "may not be read by this user: give it the right to, chmod a+r say"
    if isinstance(error, OpenQuoteError):
        return str(error)
    if isinstance(layout, CsvLayout):
        if ragged := _RAGGED.search(str(error)):
            return _about_ragged(layout, *ragged.groups())
        kind = "CSV"
    else:
        kind = {"parquet": "Parquet", "json": "JSON lines"}[layout]
    if layout == "json" and (said := _about_json(error)):
        return said
    if layout == "parquet" and "magic bytes" in str(error):
        return (
            "cannot be read as Parquet: it is none, or its end is missing. If it holds CSV or "
            "JSON lines, set format: csv or json; else write or copy it again"
        )
    return (
        f"cannot be read as {kind} ({shown(error)}). "
        "The file is truncated, damaged or of another format: write or copy it again."
    )


def _about_ragged(layout: CsvLayout, row: str | None, wanted: str, got: str, text: str) -> str:
    first = "the header" if layout.has_header else "names"
    beside = " (the header is row 1)" if layout.has_header else ""
    where = f"row {row}{beside}" if row else "a row"
    problem = f"{where} has {got} columns, {first} {wanted}: {shown(text)!r}. "
    if layout.quote and "\\" + layout.quote in text and not layout.escape:
        return problem + (
            "A backslash escapes its quotes: set escape: '\\', or write the quotes doubled"
        )
    if layout.delimiter == ":" and "::" in text:
        return problem + (
            "Two colons part its cells, and one stands in a cell as well: put another delimiter "
            "between the cells, sed 's/::/\\t/g' file > file.tsv"
        )
    if int(got) < int(wanted):
        return problem + (
            "Its end is missing, it is no row of the table, or a line break stands in a cell "
            "without quotes: remove it, or write the file again"
        )
    if int(got) == int(wanted) + 1 and text.rstrip("\r\n").endswith(layout.delimiter):
        return problem + (
            f"The rows end with a delimiter {layout.delimiter!r}, which {first} "
            f"{'lacks' if layout.has_header else 'lack'}: add it there"
        )
    return problem + (
        f"A cell holds the delimiter {layout.delimiter!r} without quotes: write such cells in "
        "quotes, or set the delimiter that the file has"
    )
