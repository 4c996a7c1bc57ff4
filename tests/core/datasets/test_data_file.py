"""The columns of a file, and what is said where one is missing or the file is another."""

import gzip
import random
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.core.datasets.small_files import only


@pytest.mark.parametrize("content", [b"", b"\n", gzip.compress(b"", mtime=0)])
def test_an_empty_file_is_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log.csv").write_bytes(content)
    file = only(tmp_path / "log.csv")
    assert file.names == ()
    assert file.rows([]).read_all().num_rows == 0
    (tmp_path / "log.parquet").write_bytes(b"")
    assert only(tmp_path / "log.parquet").names == ()


def test_columns_that_stand_in_the_path_only(tmp_path: Path) -> None:
    folder = tmp_path / "day=2026-06-01" / "surface=my%20feed" / "a=__HIVE_DEFAULT_PARTITION__"
    folder.mkdir(parents=True)
    (folder / "x.csv").write_bytes(b"day,b\n1,2\n")
    file = only(tmp_path)
    assert file.path_columns == {"surface": "my feed", "a": None}


def test_a_parquet_file_knows_its_time_spans(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"a": pa.array([timedelta(seconds=2)], pa.duration("ms")), "b": [1]}),
        tmp_path / "log.parquet",
    )
    assert only(tmp_path).durations() == {"a": 1000}


def test_two_columns_of_one_name_are_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"a,a,b\n1,2,3\n")
    with pytest.raises(ValueError, match="2 columns are called 'a': rename one"):
        only(tmp_path).require_columns(["b", "a"], "")


def test_a_field_of_a_record_in_parquet_says_what_to_write(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [{"id": 1}]}), tmp_path / "log.parquet")
    with pytest.raises(ValueError, match=r"no column 'user.id'.*write user.id to a column of its"):
        only(tmp_path).require_columns(["user.id"], "")


def test_a_wrong_delimiter_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"user;item;time\n1;2;3\n")
    with pytest.raises(
        ValueError, match=r"no column 'user'; it has user;item;time.*delimiter: ';'"
    ):
        only(tmp_path).require_columns(["user"], "")


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
