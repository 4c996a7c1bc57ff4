"""A disk that fills up under Dagster's own state ends a command with one line."""

import sqlite3
from pathlib import Path

import pytest

from onerec_dagster.job_runner import full_disk_in_one_line


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
