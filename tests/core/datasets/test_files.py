"""Files of other people: found, named, decompressed, split into cells."""

import bz2
import gzip
import io
import lzma
import random
import zipfile
from datetime import date, timedelta
from pathlib import Path

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onerec.datasets.dated_paths import day_of_path
from onerec.datasets.file_problems import shown
from onerec.datasets.files import CsvStyle, DataFile, find

TEXT = b'a,b,c\r\n1,"x, ""y""\nz",3\n4,,""\n'
ROWS = [{"a": "1", "b": 'x, "y"\nz', "c": "3"}, {"a": "4", "b": None, "c": None}]


def only(path: Path, **style: object) -> DataFile:
    (file,) = find(str(path), style=CsvStyle(**style)).files
    return file


def cells(file: DataFile) -> list[dict]:
    return file.table(file.names).to_pylist()


def arrow_compressed(codec: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(TEXT)
    return sink.getvalue().to_pybytes()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("log.csv", TEXT)
    return buffer.getvalue()


COMPRESSED = {
    ".gz": gzip.compress(TEXT),
    ".bz2": bz2.compress(TEXT),
    ".xz": lzma.compress(TEXT),
    ".zst": arrow_compressed("zstd"),
    ".lz4": arrow_compressed("lz4"),
    ".zip": zipped(),
    "": TEXT,
}


@pytest.mark.parametrize("ending", COMPRESSED)
def test_every_compression_is_read_and_a_cut_file_is_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"log.csv{ending}"
    path.write_bytes(COMPRESSED[ending])
    assert cells(only(tmp_path)) == ROWS
    if ending:
        path.write_bytes(COMPRESSED[ending][: len(COMPRESSED[ending]) // 2])
        with pytest.raises(ValueError, match=r"log\.csv.*: cannot be read as CSV.*copy it again"):
            cells(only(tmp_path))


def test_the_first_bytes_tell_the_compression_whatever_the_name_says(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(gzip.compress(TEXT) + gzip.compress(b"5,6,7\n"))
    assert [row["a"] for row in cells(only(path))] == ["1", "4", "5"]


@pytest.mark.parametrize("content", [b"", b"\n", gzip.compress(b"", mtime=0)])
def test_an_empty_file_is_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log.csv").write_bytes(content)
    file = only(tmp_path / "log.csv")
    assert file.names == ()
    assert file.rows([]).read_all().num_rows == 0
    (tmp_path / "log.parquet").write_bytes(b"")
    assert only(tmp_path / "log.parquet").names == ()


def test_a_header_alone_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"a,b\n")
    assert cells(only(tmp_path)) == []


def test_what_is_not_read_in_a_directory_is_named(tmp_path: Path) -> None:
    for name in ("a.csv", "b.json", "part-0", "_SUCCESS", ".a.csv.crc", "README.md"):
        (tmp_path / name).write_bytes(TEXT)
    (tmp_path / "_delta_log").mkdir()
    (tmp_path / "_delta_log" / "0.csv").write_bytes(TEXT)
    (tmp_path / "_day=1").mkdir()
    (tmp_path / "_day=1" / "c.tsv.gz").write_bytes(TEXT)
    found = find(str(tmp_path))
    assert [Path(f.path).name for f in found.files] == ["c.tsv.gz", "a.csv"]
    assert [Path(p).name for p in found.skipped] == ["README.md", "b.json", "part-0"]
    # a format said out loud reads them
    assert len(find(str(tmp_path), format="csv").files) == 5
    # and so does naming a file, or matching it
    assert [f.is_parquet for f in find(str(tmp_path / "part-*")).files] == [False]
    assert find(str(tmp_path / "_*")).files == find(str(tmp_path / "_day=1")).files


def test_the_content_tells_the_format_of_a_named_file(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "log.data")
    (tmp_path / "log.inter").write_bytes(b"a:token\tb\n")
    assert only(tmp_path / "log.data").is_parquet
    assert only(tmp_path / "log.inter", delimiter="\t").names == ("a:token", "b")


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


def test_a_wrong_delimiter_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"user;item;time\n1;2;3\n")
    with pytest.raises(
        ValueError, match=r"no column 'user'; it has user;item;time.*delimiter: ';'"
    ):
        only(tmp_path).require_columns(["user"], "")


def test_bytes_of_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("a,caf\u00e9\n1,caf\u00e9\n".encode("latin-1"))
    assert cells(only(path, encoding="latin-1")) == [{"a": "1", "caf\u00e9": "caf\u00e9"}]
    assert cells(only(path)) == [{"a": "1", "caf\ufffd": "caf\ufffd"}]
    path.write_bytes("a,b\n1,caf\u00e9\n".encode("utf-16"))
    assert cells(only(path, encoding="utf-16")) == [{"a": "1", "b": "caf\u00e9"}]
    path.write_bytes("a,b\n1,2\n".encode("utf-8-sig"))
    assert cells(only(path)) == [{"a": "1", "b": "2"}]


def test_columns_that_stand_in_the_path_only(tmp_path: Path) -> None:
    folder = tmp_path / "day=2026-06-01" / "surface=my%20feed" / "a=__HIVE_DEFAULT_PARTITION__"
    folder.mkdir(parents=True)
    (folder / "x.csv").write_bytes(b"day,b\n1,2\n")
    file = only(tmp_path)
    assert file.path_columns == {"surface": "my feed", "a": None}


def test_any_file_system() -> None:
    fsspec.filesystem("memory").pipe_file("/files/log.csv", TEXT)
    (file,) = find("memory://files").files
    assert file.url == "memory:///files/log.csv"
    assert cells(file) == ROWS


@pytest.mark.parametrize(
    ("pattern", "path", "day"),
    [
        ("/x/{date}.csv", "/x/2026-03-02.csv", date(2026, 3, 2)),
        ("/x/day={date:%Y%m%d}/*.csv", "/x/day=20260302/part.csv", date(2026, 3, 2)),
        ("/x/{date:%Y/%m/%d}", "/x/2026/03/02/part.csv", date(2026, 3, 2)),
        ("/x/y={date:%Y}/m={date:%m}/d={date:%d}/*", "/x/y=2026/m=03/d=02/a.csv", date(2026, 3, 2)),
        ("/x/y={date:%Y}/m={date:%m}/d={date:%d}/*", "/x/y=2026/m=3/d=2/a.csv", None),
        ("/x/m={date:%-m}/d={date:%-d}/{date:%Y}.csv", "/x/m=3/d=2/2026.csv", date(2026, 3, 2)),
        ("/x/{date}-*.csv", "/x/2026-03-02-0.csv", date(2026, 3, 2)),
        ("/x/*-{date}-*.csv", "/x/a-1-2026-03-02-0-1.csv", date(2026, 3, 2)),
        ("s3://b/{date}", "b/2026-03-02/part.csv", date(2026, 3, 2)),
        ("/x/{date}.csv", "/x/latest.csv", None),
        ("/x/log.csv", "/x/log.csv", None),
    ],
)
def test_the_day_of_a_path(pattern: str, path: str, day: date | None) -> None:
    assert day_of_path(pattern, path) == day


def test_values_are_shown_on_one_short_line() -> None:
    assert shown("a\nb") == "a b"
    assert len(shown("x" * 1_000)) == 200


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


def test_utf_16_is_told_by_its_mark_or_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "marked.csv").write_bytes("a,b\n1,caf\u00e9\n".encode("utf-16"))
    assert cells(only(tmp_path / "marked.csv")) == [{"a": "1", "b": "caf\u00e9"}]
    (tmp_path / "plain.csv").write_bytes(("a,b\n" + "1,2\n" * 20).encode("utf-16-le"))
    with pytest.raises(ValueError, match=r"plain\.csv: .*set encoding: utf-16-le"):
        _ = only(tmp_path / "plain.csv").names


def test_lines_of_nothing_before_the_header_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b'\n\n"a\nb",c\n\n1,2\n\n3,4\n')
    assert cells(only(tmp_path)) == [{"a\nb": "1", "c": "2"}, {"a\nb": "3", "c": "4"}]


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"PAR1rest", "is Parquet: set format: parquet"),
        (b'{"user_id": "u", "item_id": 1}\n', "is JSON: set format: json if each line is"),
        (b'[\n {"user_id": 1}]', "is one JSON list: write one record a line"),
        (b"SQLite format 3\0", "is an SQLite database"),
        (b"x.csv".ljust(257, b"\0") + b"ustar\0", "is a tar archive: unpack it"),
        (b"<!DOCTYPE html><html>denied</html>", "is an HTML or XML page"),
        (b'<?xml version="1.0"?><Error/>', "is an HTML or XML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (
            gzip.compress(gzip.compress(b"a,b\n1,2\n", mtime=0), mtime=0),
            "is compressed twice: unpack it once",
        ),
        (b"7z\xbc\xaf\x27\x1c\0\4", "is an archive or binary, which is not read"),
        (b"\xff\x06\0\0sNaPpY", "is an archive or binary, which is not read"),
        (b"\x93NUMPY\x01", "is an archive or binary, which is not read"),
        (
            pa.compress(
                bytes(random.Random(0).choices(b"ab,\n12", k=9000)), "brotli", asbytes=True
            ),
            "is no text, maybe packed in another way",
        ),
    ],
)
def test_what_is_another_format_under_the_name_of_a_csv_is_said(
    tmp_path: Path, start: bytes, said: str
) -> None:
    (tmp_path / "log.csv").write_bytes(start)
    with pytest.raises(ValueError, match=rf"log\.csv: {said}"):
        _ = only(tmp_path).names


def test_control_characters_that_part_cells_are_text(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"a\x01b\n1\x012\n" * 50)
    assert cells(only(tmp_path, delimiter="\x01"))[0] == {"a": "1", "b": "2"}
    for delimiter, written in (("\x01", r'"\\u0001"'), ("\t", r'"\\t"')):
        (tmp_path / "log.csv").write_text(f"user{delimiter}item\n1{delimiter}2\n")
        with pytest.raises(ValueError, match=f"set delimiter: {written}"):
            only(tmp_path).require_columns(["user"], "")


@pytest.mark.parametrize("name", ["gz", "bz2", "zst", "lz4"])
def test_compressed_files_that_were_appended_to_one_another_are_read_whole(
    tmp_path: Path, name: str
) -> None:
    codec = {"gz": "gzip", "bz2": "bz2", "zst": "zstd", "lz4": "lz4"}[name]
    parts = []
    for part in (b"a,b\n1,2\n", b"3,4\n", b""):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, codec) as stream:
            stream.write(part)
        parts.append(sink.getvalue().to_pybytes())
    (tmp_path / f"log.csv.{name}").write_bytes(b"".join(parts))
    assert cells(only(tmp_path)) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_an_archive_of_several_files_is_not_read_in_part(tmp_path: Path) -> None:
    path = tmp_path / "log.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "a,b\n1,2\n")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._a.csv", "what a Mac adds")
    assert cells(only(path)) == [{"a": "1", "b": "2"}]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("b.csv", "a,b\n3,4\n")
    with pytest.raises(ValueError, match=r"holds 2 files \(a\.csv, b\.csv\): unpack it"):
        _ = only(path).names
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("[Content_Types].xml", "")
    with pytest.raises(ValueError, match="is an Excel workbook: save the sheet as CSV"):
        _ = only(path).names


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"User_ID ,item\n", "Names count to the letter: it is 'User_ID ' there"),
        (b"'user_id','item'\n", 'set quote: "\'"'),
        ("user_id\u00fc,item\n".encode("latin-1"), "set encoding, e.g. latin-1"),
        (b"# made by a script\nuser_id,item\n", "Its header seems to be line 2.*set skip_rows: 1"),
        (b"# made by a script\nu,i\n", "set skip_rows to the lines before the header"),
        (b"u::i::t\n", r"delimiter: ':', skip_rows: 1 and names: \[u, _, i, _, t, ...\]"),
        (b"u i t\n", "set delimiter: ' '"),
        (b"u    i    t\n", "aligned by blanks: write one delimiter between"),
        (b"u1,i1,2026-06-01T10:00:00Z\n", r"names with names: \[...\]"),
        (b"user,item\n", "Set it."),
    ],
)
def test_a_missing_column_comes_with_the_remedy_for_its_cause(
    tmp_path: Path, header: bytes, said: str
) -> None:
    (tmp_path / "log.csv").write_bytes(header)
    with pytest.raises(ValueError, match=rf"log\.csv: no column 'user_id'; it has .*{said}"):
        only(tmp_path).require_columns(["user_id"], "Set it.")


def test_two_columns_of_one_name_are_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"a,a,b\n1,2,3\n")
    with pytest.raises(ValueError, match="2 columns are called 'a': rename one"):
        only(tmp_path).require_columns(["b", "a"], "")


def test_rows_that_end_with_a_delimiter(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"a,b\n1,2,\n")
    with pytest.raises(ValueError, match="The rows end with a delimiter ','"):
        cells(only(tmp_path))


def test_a_parquet_file_knows_its_time_spans(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"a": pa.array([timedelta(seconds=2)], pa.duration("ms")), "b": [1]}),
        tmp_path / "log.parquet",
    )
    assert only(tmp_path).durations() == {"a": 1000}


def test_a_value_is_shown_in_printable_characters() -> None:
    assert shown("a\0b\u200b") == r"a\x00b\u200b"
