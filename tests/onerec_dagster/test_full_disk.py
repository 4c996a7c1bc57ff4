"""A disk that fills up under Dagster's own state ends a command with one line."""

import sqlite3
from pathlib import Path

import duckdb
import pytest

from onerec.disk import DiskFullError
from onerec_dagster.job_runner import full_disk_in_one_line
from resources.warehouse import Warehouse


def test_sqlite_on_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def fill() -> None:
        with full_disk_in_one_line("make demo", tmp_path):
            try:
                raise sqlite3.OperationalError("database or disk is full")
            except sqlite3.OperationalError as error:
                raise RuntimeError("a long story") from error

    with pytest.raises(SystemExit, match=rf"make demo: the disk of {tmp_path} has .* GiB free"):
        fill()


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(KeyError), full_disk_in_one_line("make demo", tmp_path):
        raise KeyError("x")


def test_the_warehouse_s_error_names_the_disk(tmp_path: Path) -> None:
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    with (
        pytest.raises(DiskFullError, match=rf"the disk of {tmp_path} .* write the warehouse"),
        warehouse.connect(),
    ):
        raise duckdb.IOException("IO Error: Could not write file: No space left on device")
