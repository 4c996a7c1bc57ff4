"""One's own data as the YAML file describes it: damaged files, feedback, wrong settings."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from onerec.config import SettingError
from onerec.config.feedback import FEEDBACK, Condition
from onerec.datasets.own import open_source
from tests.core.datasets.small_log import DAY, opened, write


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
