"""Compressed files, told by their first bytes."""

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from onerec.datasets import file_problems

COMPRESSED = (".gz", ".gzip", ".bz2", ".zst", ".zstd", ".lz4", ".xz", ".zip")
BROKEN = (
    *(pa.ArrowException, OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, zlib.error),
    RuntimeError,  # of a zip archive with a password, or compressed as Python does not know
)
"""Errors of bytes that cannot be read or decompressed."""
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
}


@contextmanager
def decompressed(filesystem: Any, path: str) -> Iterator[Any]:
    """The bytes of a file on an fsspec file system, decompressed if they are compressed.

    Raises:
        ValueError: An archive holds more than one file, or none.
    """
    with filesystem.open(path, "rb") as stream:
        start = stream.read(6)
        stream.seek(0)
        codec = next((c for magic, c in _MAGIC.items() if start.startswith(magic)), None)
        if codec is None:
            yield stream
        elif codec == "zip":
            name = file_problems.only_file(path, stream)
            with zipfile.ZipFile(stream) as archive, archive.open(name) as plain:
                yield plain
        elif codec == "xz":  # Arrow has no codec for it
            with lzma.open(stream) as plain:
                yield plain
        else:
            yield pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), codec)


def without_compression(path: str) -> str:
    """A path in lower case, without the ending of a compression.

    >>> without_compression("Log.CSV.gz")
    'log.csv'
    """
    lower = path.lower()
    return next((lower.removesuffix(end) for end in COMPRESSED if lower.endswith(end)), lower)
