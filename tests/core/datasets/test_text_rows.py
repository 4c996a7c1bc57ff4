"""CSV files, split into cells."""

import csv
import gzip
import io
import random
from pathlib import Path

import pytest

from onerec.datasets.file_search import find
from onerec.datasets.open_quotes import WithClosedQuotes
from onerec.datasets.text_rows import CsvStyle
from tests.core.datasets.small_files import cells, only


def test_a_header_alone_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"a,b\n")
    assert cells(only(tmp_path)) == []


def test_tabs_separate_tsv_files(tmp_path: Path) -> None:
    (tmp_path / "log.tsv").write_bytes(b"a\tb\n1,5\t2\n")
    assert cells(only(tmp_path)) == [{"a": "1,5", "b": "2"}]


def test_quotes_escaped_by_a_backslash(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b'id;title\n1;"the \\"real\\"; story"\n')
    with pytest.raises(ValueError, match=r"log\.csv: row 2 .* has 3 columns, the header 2: .*"):
        cells(only(tmp_path, delimiter=";"))
    with pytest.raises(ValueError, match=r"set escape: '\\', or write the quotes doubled"):
        cells(only(tmp_path, delimiter=";"))
    (row,) = cells(only(tmp_path, delimiter=";", escape="\\"))
    assert row["title"] == 'the "real"; story'


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b"1,2", "Its end is missing"),
        (b"1,2,3,4,5", "A cell holds the delimiter ','"),
        (b"1," + b"x" * 900, "x *\\.\\.\\.'"),
    ],
)
def test_a_ragged_row_is_named_and_shown(tmp_path: Path, row: bytes, said: str) -> None:
    (tmp_path / "log.csv").write_bytes(b"a,b,c\n" + b"1,2,3\n" * 5 + row + b"\n")
    with pytest.raises(ValueError, match=rf"log\.csv: row 7 .*{said}") as error:
        cells(only(tmp_path))
    assert len(str(error.value)) < 600


def test_rows_that_end_with_a_delimiter(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"a,b\n1,2,\n")
    with pytest.raises(ValueError, match="The rows end with a delimiter ','"):
        cells(only(tmp_path))


def test_bytes_of_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("a,caf\u00e9\n1,caf\u00e9\n".encode("latin-1"))
    assert cells(only(path, encoding="latin-1")) == [{"a": "1", "caf\u00e9": "caf\u00e9"}]
    assert cells(only(path)) == [{"a": "1", "caf\ufffd": "caf\ufffd"}]
    path.write_bytes("a,b\n1,caf\u00e9\n".encode("utf-16"))
    assert cells(only(path, encoding="utf-16")) == [{"a": "1", "b": "caf\u00e9"}]
    path.write_bytes("a,b\n1,2\n".encode("utf-8-sig"))
    assert cells(only(path)) == [{"a": "1", "b": "2"}]


def test_utf_16_is_told_by_its_mark_or_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "marked.csv").write_bytes("a,b\n1,caf\u00e9\n".encode("utf-16"))
    assert cells(only(tmp_path / "marked.csv")) == [{"a": "1", "b": "caf\u00e9"}]
    (tmp_path / "plain.csv").write_bytes(("a,b\n" + "1,2\n" * 20).encode("utf-16-le"))
    with pytest.raises(ValueError, match=r"plain\.csv: .*set encoding: utf-16-le"):
        _ = only(tmp_path / "plain.csv").names


def test_a_file_without_a_header_is_read_by_given_names(tmp_path: Path) -> None:
    (tmp_path / "u.tsv").write_text("1\ta\n2\tb\n")
    (found,) = find(str(tmp_path), style=CsvStyle(names=("user", "item"))).files
    assert found.names == ("user", "item")
    assert found.table(["item", "user"]).to_pylist() == [
        {"item": "a", "user": "1"},
        {"item": "b", "user": "2"},
    ]
    (found,) = find(str(tmp_path), style=CsvStyle(names=("user",))).files
    with pytest.raises(ValueError, match="has 2 columns, names 1"):
        found.table(["user"])


def test_lines_of_nothing_before_the_header_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b'\n\n"a\nb",c\n\n1,2\n\n3,4\n')
    assert cells(only(tmp_path)) == [{"a\nb": "1", "c": "2"}, {"a\nb": "3", "c": "4"}]


def test_control_characters_that_part_cells_are_text(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"a\x01b\n1\x012\n" * 50)
    assert cells(only(tmp_path, delimiter="\x01"))[0] == {"a": "1", "b": "2"}
    for delimiter, written in (("\x01", r'"\\u0001"'), ("\t", r'"\\t"')):
        (tmp_path / "log.csv").write_text(f"user{delimiter}item\n1{delimiter}2\n")
        with pytest.raises(ValueError, match=f"set delimiter: {written}"):
            only(tmp_path).require_columns(["user"], "")


SWALLOWING = [
    b'1\tx\t"Heroes\n' + b"2\ty\tLow\n" * 3,  # up to the end of the file
    b'1\tx\t"Heroes\n2\ty\tLow\n3\tz\t"Station\n',  # up to a quote of another row
    b'1\t"x\tHeroes\n2\tthe 12" mix\tLow\n',
    b'1\tx\t"Heroes\r2\ty\tLow\r3\tz\t"Station\r',
]


@pytest.mark.parametrize("rows", SWALLOWING)
@pytest.mark.parametrize("name", ["log.tsv", "log.tsv.gz"])
def test_a_quote_that_swallows_rows_stops_the_reading(
    tmp_path: Path, rows: bytes, name: str
) -> None:
    text = b"id\tuser\ttitle\n" + b"0\tw\tfine\n" * 5 + rows
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    with pytest.raises(ValueError, match=rf"{name}: line [2-7]: a quote .* set quote: ''"):
        cells(only(tmp_path))
    lines = text.replace(b"\r", b"\n").splitlines()
    assert len(cells(only(tmp_path, quote=""))) == len(lines) - 1


def test_a_backslash_before_such_a_quote_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b'id,title\n1,"the\n \\"real\\" story"\n')
    with pytest.raises(ValueError, match=r"line 2: .* set escape: '\\'"):
        cells(only(tmp_path))
    assert cells(only(tmp_path, escape="\\")) == [{"id": "1", "title": 'the\n "real" story'}]


def test_cells_of_several_lines_and_quotes_within_a_line_are_text(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(
        b'id,title,kind\n1,"a ""b""\n\nc, d" ,x\n2,"Heroes" by Bowie,y\n3,the 12" mix,z\n4,w,"v'
    )
    titles = ['a "b"\n\nc, d ', "Heroes by Bowie", 'the 12" mix', "w"]
    assert [row["title"] for row in cells(only(tmp_path))] == titles


def test_what_is_quoted_as_it_should_be_never_stops() -> None:
    rng = random.Random(0)
    for _ in range(300):
        cells_of = ["".join(rng.choices('a,"\n\r x', k=rng.randint(0, 5))) for _ in range(9)]
        written, end = io.StringIO(), rng.choice(["\n", "\r\n"])
        csv.writer(written, lineterminator=end).writerows(zip(*[iter(cells_of)] * 3, strict=True))
        text, size = written.getvalue().encode(), rng.randint(1, 40)
        stream = WithClosedQuotes(io.BytesIO(text), '"', ",", None, longest=1000)
        assert b"".join(iter(lambda: stream.read(size), b"")) == text  # noqa: B023 - read at once
