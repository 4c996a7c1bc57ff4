"""One's own data as the YAML file describes it: files, columns, days."""

import os
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from onerec.config import SettingError
from onerec.config.feedback import FEEDBACK, Condition
from onerec.datasets.own import GAP_DAYS, SLIVER, OwnLog, main_days, open_source

DAY = date(2026, 3, 2)
COLUMNS = {"user_id": 1, "item_id": 2, "event_time": "2026-03-02T10:00:00Z", "watch_seconds": 3}


def write(path: Path, **changed: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame([{k: v for k, v in {**COLUMNS, **changed}.items() if v is not None}])
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)


def opened(directory: Path, **sections: Any) -> OwnLog:
    path = directory / "my_data.yaml"
    path.write_text(yaml.safe_dump(sections))
    return open_source(data_dir=None, config=path)


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


def test_a_damaged_file_of_a_day_stops_that_day_alone(tmp_path: Path) -> None:
    for day in ("2026-03-01", "2026-03-02"):
        write(tmp_path / f"{day}.parquet")
    os.truncate(tmp_path / "2026-03-02.parquet", 300)
    log = opened(tmp_path, events={"path": "{date}.parquet"})
    assert log.feedback.kind == "video"
    assert log.days_of_files("events")[-1] == DAY
    first = DAY - timedelta(1)
    assert len(list(log.files_of_days("events", first, first))) == 1
    with pytest.raises(ValueError, match=r"2026-03-02\.parquet: cannot be read as Parquet"):
        list(log.files_of_days("events", DAY, DAY))
    os.truncate(tmp_path / "2026-03-01.parquet", 300)  # nothing is left to know the columns by
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        opened(tmp_path, events={"path": "{date}.parquet"})
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        opened(tmp_path, events={"path": "*.parquet"})


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


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ({}, "video"),
        ({"watch_seconds": None, "event_type": "view"}, "shop"),
        ({"watch_seconds": None, "rating": 4}, "ratings"),
        ({"watch_seconds": None}, "actions"),
        ({"event_type": "view"}, "video"),
    ],
)
def test_the_columns_say_the_kind_of_log(
    tmp_path: Path, columns: dict[str, Any], kind: str
) -> None:
    write(tmp_path / "log.csv", **columns, seen_on="web")
    log = opened(tmp_path, events={"path": "log.csv"})
    assert log.feedback == FEEDBACK[kind]
    note = log.feedback_note()
    if kind == "video":
        assert note is None
    else:
        assert f"kind {kind}" in (note or "")
        assert "not used: seen_on" in (note or "")
    declared = opened(tmp_path, events={"path": "log.csv"}, feedback={"kind": "actions"})
    assert declared.feedback == FEEDBACK["actions"]
    assert declared.feedback_note() is None


def test_a_declaration_replaces_what_the_kind_says(tmp_path: Path) -> None:
    write(tmp_path / "log.csv", watch_seconds=None, event_type="view")
    feedback = {
        "watched": {"event_type": ["view", "buy"]},
        "signals": {"bought": {"event_type": "buy"}, "many": {"quantity_at_least": 3}},
    }
    log = opened(tmp_path, events={"path": "log.csv"}, feedback=feedback)
    assert log.feedback.watched == (Condition(event_type=("view", "buy")),)
    assert log.feedback.positive == FEEDBACK["shop"].positive
    assert [s.name for s in log.feedback.signals] == ["bought", "many"]
    assert log.feedback.signals[1].definition() == "an event with quantity >= 3"


@pytest.mark.parametrize(
    ("feedback", "message"),
    [
        ({"kind": "music"}, r"feedback\.kind='music': .*'video', 'ratings', 'shop' or 'actions'"),
        (
            {"positive": {"rating": 4}},
            r"feedback\.positive\.0\.rating=4: no such key; .*rating_at_",
        ),
        ({"positive": {"event_type": "a' or 1=1"}}, r"event_type.*pattern"),
        ({"watched": {"watched": True}}, r"feedback\.watched='watched': is known later"),
        ({"positive": {}}, "is empty; use one of every_event, event_type"),
        ({"signals": {"continued": {"flag": "is_like"}}}, "stands in"),
        ({"signals": {"Buy!": {"flag": "is_like"}}}, "pattern"),
        ({"signals": {"buy": {"when": {"flag": "is_like"}, "of_block": "all"}}}, "of_block='all'"),
    ],
)
def test_a_wrong_declaration_is_named(
    tmp_path: Path, feedback: dict[str, Any], message: str
) -> None:
    write(tmp_path / "log.csv")
    with pytest.raises(SettingError, match=message):
        opened(tmp_path, events={"path": "log.csv"}, feedback=feedback)


def test_a_declaration_that_contradicts_the_kind_of_the_columns_is_named(tmp_path: Path) -> None:
    write(tmp_path / "log.csv", watch_seconds=None, event_type="view")
    purchases = list(FEEDBACK["shop"].positive[0].event_type or ())
    with pytest.raises(SettingError, match=r"feedback\.negative='event_type .*name it once"):
        _ = opened(
            tmp_path,
            events={"path": "log.csv"},
            feedback={"negative": {"event_type": purchases}},
        ).feedback


def test_columns_may_stand_in_the_path(tmp_path: Path) -> None:
    write(tmp_path / "log" / "surface=feed" / "a.csv")
    log = opened(tmp_path, events={"path": "log", "columns": {"surface": "surface"}})
    (file,) = log.every_file("events")
    assert file.columns["surface"].column == "surface"
    assert file.file.path_columns == {"surface": "feed"}


def test_files_of_no_byte_are_left_out(tmp_path: Path) -> None:
    for day in ("2026-03-01", "2026-03-02"):
        (tmp_path / f"dt={day}").mkdir()
        (tmp_path / f"dt={day}" / "part-1.csv").write_bytes(b"")
    write(tmp_path / "dt=2026-03-02" / "part-0.csv")
    log = opened(tmp_path, events={"path": "dt={date}"})
    assert log.days_of_files("events") == [date(2026, 3, 1), DAY]
    found = log.files_of_days("events", date(2026, 3, 1), DAY)
    assert [(Path(f.file.path).name, f.day) for f in found] == [("part-0.csv", DAY)]


def test_a_date_beside_a_time_of_day_is_a_column_too(tmp_path: Path) -> None:
    write(tmp_path / "log.csv", event_time=None, day="2026-03-02", at="10:00")
    columns = {"event_time": {"column": "at", "date": "day"}}
    (file,) = opened(tmp_path, events={"path": "log.csv", "columns": columns}).every_file("events")
    assert file.columns["event_time"].names == ("day", "at")
    columns["event_time"]["date"] = "dat"
    with pytest.raises(ValueError, match=r"no column 'dat'.*Set events\.columns\.event_time"):
        opened(tmp_path, events={"path": "log.csv", "columns": columns})


def test_files_of_unknown_endings_are_named(tmp_path: Path) -> None:
    write(tmp_path / "log" / "part-0")
    with pytest.raises(ValueError, match=r"other endings: .*part-0\. .*set format: csv"):
        opened(tmp_path, events={"path": "log"})
    assert opened(tmp_path, events={"path": "log", "format": "csv"}).skipped == ()
    write(tmp_path / "log" / "a.csv")
    assert [Path(p).name for p in opened(tmp_path, events={"path": "log"}).skipped] == ["part-0"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"events": {"path": "log.csv", "columns": {"usr": "uid"}}}, "events.columns.usr='uid'"),
        ({"event": {}}, "event={}: no such key; use events, items"),
        ({"events": {"columns": {}}}, "events.path=None: is missing"),
        ({"events": {"path": "log.csv", "timestamp_unit": "h"}}, "events.timestamp_unit='h'"),
        ({"events": {"path": "log.csv", "escape": "\\\\"}}, "events.escape='.*at most 1"),
        ({"events": {"path": "log.csv", "delimiter": "::"}}, "use one character.*user, _1, item"),
        (
            {"events": {"path": "log.csv", "columns": {"item_id": "user_id"}}},
            "user_id and item_id are both column 'user_id'",
        ),
        (
            {"events": {"path": "none.csv"}},
            "events.path='none.csv': no Parquet, CSV or JSON-lines file",
        ),
        ({"time_zone": "Berlin"}, "time_zone='Berlin': is no time zone; .*Europe/Berlin"),
        (
            {"last_day": "2020-01-01", "first_day": "2021-01-01"},
            "last_day='2020-01-01': lies before first_day 2021",
        ),
        ({"last_day": "2020-01-01", "open_ended": True}, "exclude each other"),
        ({"items": {"path": "no_id.csv"}}, "no column 'item_id'.*Set items.columns.item_id"),
        ({"events": {"path": "nothere://x/y"}}, "nothere"),
    ],
)
def test_a_wrong_file_says_what_to_do(tmp_path: Path, changes: dict, named: str) -> None:
    write(tmp_path / "log.csv")
    write(tmp_path / "no_id.csv", item_id=None)
    with pytest.raises(SettingError, match=named):
        opened(tmp_path, **({"events": {"path": "log.csv"}} | changes))


def test_no_config_no_yaml_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"CONFIG=my_data\.yaml"):
        open_source(data_dir=None, config=None)
    path = tmp_path / "my.yaml"
    with pytest.raises(ValueError, match="No such file"):
        open_source(data_dir=None, config=path)
    for text in ("{", "- 1", ""):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"my\.yaml"):
            open_source(data_dir=None, config=path)


def test_days_of_a_wrong_clock_are_left_out() -> None:
    week = {DAY + timedelta(d): 1_000 for d in range(7)}
    assert main_days(week) == (DAY, DAY + timedelta(6))
    far = {date(2001, 1, 1): 3, date(2020, 5, 5): 40, date(2030, 1, 1): 7}
    assert main_days(week | far) == (DAY, DAY + timedelta(6))
    # neither a day that holds its share of the rows, nor one that is near
    assert main_days(week | {date(2001, 1, 1): 700})[0] == date(2001, 1, 1)
    assert main_days(week | {DAY - timedelta(GAP_DAYS): 1})[0] == DAY - timedelta(GAP_DAYS)


@given(
    st.dictionaries(
        st.dates(date(1990, 1, 1), date(2030, 1, 1)), st.integers(1, 10_000), min_size=1
    )
)
def test_what_is_left_out_is_a_sliver(rows: dict[date, int]) -> None:
    first, last = main_days(rows)
    assert first in rows
    assert last in rows
    outside = sum(n for day, n in rows.items() if not first <= day <= last)
    assert outside <= SLIVER * sum(rows.values())
