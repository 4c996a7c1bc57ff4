"""A small CSV file, and the cells of any."""

from pathlib import Path

from onerec.datasets.data_file import DataFile
from onerec.datasets.file_search import find
from onerec.datasets.text_rows import CsvStyle

TEXT = b'a,b,c\r\n1,"x, ""y""\nz",3\n4,,""\n'
ROWS = [{"a": "1", "b": 'x, "y"\nz', "c": "3"}, {"a": "4", "b": None, "c": None}]


def only(path: Path, **style: object) -> DataFile:
    (file,) = find(str(path), style=CsvStyle(**style)).files
    return file


def cells(file: DataFile) -> list[dict]:
    return file.table(file.names).to_pylist()
