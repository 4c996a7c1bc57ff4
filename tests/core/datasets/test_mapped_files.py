"""Which column of a file fills which one of the contract."""

from datetime import timedelta
from pathlib import Path

import pytest

from onerec.config import SettingError
from tests.core.datasets.small_log import DAY, opened, write


def test_an_optional_column_may_be_absent_in_older_files(tmp_path: Path) -> None:
    write(tmp_path / "2026-03-01.parquet")
    write(tmp_path / "2026-03-02.parquet", liked=1)
    events = {"path": "{date}.parquet", "columns": {"is_like": "liked"}}
    log = opened(tmp_path, events=events)
    assert ["is_like" in f.columns for f in log.every_file("events")] == [False, True]
    # a name that no file has is a wrong name
    events["columns"] = {"is_like": "likd"}
    with pytest.raises(
        ValueError, match=r"no column 'likd'; it has .*Set events\.columns\.is_like"
    ):
        opened(tmp_path, events=events)


@pytest.mark.parametrize("path", ["{date}.parquet", "*.parquet"])
def test_a_column_may_be_renamed_from_file_to_file(tmp_path: Path, path: str) -> None:
    write(tmp_path / "2026-03-01.parquet", item_id=None, watch_seconds=None, sku=7, ms=4000)
    write(tmp_path / "2026-03-02.parquet", item_id=None, product=8)
    first, events = DAY - timedelta(1), {"path": path, "columns": {"item_id": "product"}}
    with pytest.raises(ValueError, match=r"03-01\.parquet: no column 'product'.*list both names"):
        list(opened(tmp_path, events=events).files_of_days("events", first, first))
    columns = {
        "item_id": ["product", "sku"],
        "watch_seconds": {"column": "watch_seconds", "formerly": ["ms"]},
    }
    files = list(opened(tmp_path, events={"path": path, "columns": columns}).every_file("events"))
    names = [[f.columns[n].column for n in ("item_id", "watch_seconds")] for f in files]
    assert names == [["sku", "ms"], ["product", "watch_seconds"]]


def test_a_required_column_may_not(tmp_path: Path) -> None:
    first = DAY - timedelta(1)
    for column, changed in (
        ("watch_seconds", {"watch_seconds": None, "watched": 3}),
        ("item_id", {"item_id": None}),
    ):
        missing = rf"2026-03-01\.parquet: no column '{column}'"
        write(tmp_path / "2026-03-01.parquet", **changed)
        write(tmp_path / "2026-03-02.parquet")
        with pytest.raises(SettingError, match=missing):
            opened(tmp_path, events={"path": "*.parquet"})
        # where each day has its own file, it stops that day alone
        log = opened(tmp_path, events={"path": "{date}.parquet"})
        assert len(list(log.files_of_days("events", DAY, DAY))) == 1
        with pytest.raises(SettingError, match=f"{missing}.*Other files of events.path have it"):
            list(log.files_of_days("events", first, DAY))
        # a column that no file has is a wrong name
        write(tmp_path / "2026-03-02.parquet", **changed)
        declared = {"events": {"path": "{date}.parquet"}, "feedback": {"kind": "video"}}
        with pytest.raises(SettingError, match=f"no column '{column}'"):
            opened(tmp_path, **declared)


def test_columns_may_stand_in_the_path(tmp_path: Path) -> None:
    write(tmp_path / "log" / "surface=feed" / "a.csv")
    log = opened(tmp_path, events={"path": "log", "columns": {"surface": "surface"}})
    (file,) = log.every_file("events")
    assert file.columns["surface"].column == "surface"
    assert file.file.path_columns == {"surface": "feed"}


def test_a_date_beside_a_time_of_day_is_a_column_too(tmp_path: Path) -> None:
    write(tmp_path / "log.csv", event_time=None, day="2026-03-02", at="10:00")
    columns = {"event_time": {"column": "at", "date": "day"}}
    (file,) = opened(tmp_path, events={"path": "log.csv", "columns": columns}).every_file("events")
    assert file.columns["event_time"].names == ("day", "at")
    columns["event_time"]["date"] = "dat"
    with pytest.raises(ValueError, match=r"no column 'dat'.*Set events\.columns\.event_time"):
        opened(tmp_path, events={"path": "log.csv", "columns": columns})
