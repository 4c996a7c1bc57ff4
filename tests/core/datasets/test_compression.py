"""Compressed files, whatever their names say."""

import bz2
import doctest
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from onerec.datasets import compression
from tests.core.datasets.small_files import ROWS, TEXT, cells, only


def arrow_compressed(codec: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(TEXT)
    return sink.getvalue().to_pybytes()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
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


@pytest.mark.parametrize("ending", [".xz", ".zip", ".gz"])
def test_changed_bytes_in_a_compressed_file_are_named(tmp_path: Path, ending: str) -> None:
    written = bytearray(COMPRESSED[ending])
    written[45] ^= 0xFF  # among the data
    (tmp_path / f"log.csv{ending}").write_bytes(written)
    with pytest.raises(ValueError, match=r"log\.csv.*: cannot be read as CSV.*copy it again"):
        cells(only(tmp_path))


def test_examples() -> None:
    assert doctest.testmod(compression).failed == 0
