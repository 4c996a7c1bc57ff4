"""Files of a section, and their days."""

from datetime import date
from pathlib import Path

import pytest

from tests.core.datasets.small_log import DAY, opened, write


def test_files_of_no_byte_are_left_out(tmp_path: Path) -> None:
    for day in ("2026-03-01", "2026-03-02"):
        (tmp_path / f"dt={day}").mkdir()
        (tmp_path / f"dt={day}" / "part-1.csv").write_bytes(b"")
    write(tmp_path / "dt=2026-03-02" / "part-0.csv")
    log = opened(tmp_path, events={"path": "dt={date}"})
    assert log.days_of_files("events") == [date(2026, 3, 1), DAY]
    found = log.files_of_days("events", date(2026, 3, 1), DAY)
    assert [(Path(f.file.path).name, f.day) for f in found] == [("part-0.csv", DAY)]


def test_files_of_unknown_endings_are_named(tmp_path: Path) -> None:
    write(tmp_path / "log" / "part-0")
    with pytest.raises(ValueError, match=r"other endings: .*part-0\. .*set format: csv"):
        opened(tmp_path, events={"path": "log"})
    assert opened(tmp_path, events={"path": "log", "format": "csv"}).skipped == ()
    write(tmp_path / "log" / "a.csv")
    assert [Path(p).name for p in opened(tmp_path, events={"path": "log"}).skipped] == ["part-0"]
