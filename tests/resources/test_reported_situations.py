"""Situations of the kind that users of recommender libraries report: data taken, or refused with
the remedy, and never taken wrongly without a word."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
import yaml

from onerec.config import SettingError
from resources.file_source import FileSource, open_source
from resources.proposal.yaml_file import Proposal, propose
from tests.resources.own_files import DAY, NOON_MS, events_frame, opened, section

TIMES = pd.date_range("2026-03-01 08:00", periods=400, freq="11min")


def log() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": [f"u{k % 40}" for k in range(400)],
            "item_id": [f"i{k % 30}" for k in range(400)],
            "event_time": TIMES.strftime("%Y-%m-%d %H:%M:%S"),
            "watch_seconds": [5 + k % 50 for k in range(400)],
        }
    )


def items() -> pd.DataFrame:
    return pd.DataFrame({"item_id": [f"i{k}" for k in range(30)], "title": "a title"})


def proposed(directory: Path, **tables: pd.DataFrame) -> tuple[dict, Proposal]:
    (directory / "data").mkdir(exist_ok=True)
    for name, table in tables.items():
        table.to_csv(directory / "data" / f"{name}.csv", index=False)
    proposal = propose(str(directory / "data"), directory)
    (directory / "my.yaml").write_text(proposal.text)
    return yaml.safe_load(proposal.text), proposal


def rows_read(directory: Path) -> int:
    source = open_source("own", data_dir=None, config=directory / "my.yaml")
    assert isinstance(source, FileSource)
    days = pd.date_range(source.first_day, source.last_delivered_day)
    return sum(source.events(day.date()).num_rows for day in days)


@pytest.mark.parametrize("written", ["{}%", "{}/100"])
def test_shares_are_no_watch_times(tmp_path: Path, written: str) -> None:
    shares = log().rename(columns={"watch_seconds": "watched"})
    shares["watched"] = [written.format(v) for v in shares["watched"]]
    settings, proposal = proposed(tmp_path, events=shares, items=items())
    assert "watch_seconds" not in settings["events"]["columns"]
    assert "# not used: watched" in proposal.text


def test_lists_of_categories_are_proposed_and_vectors_have_no_decimals(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    lists = items().assign(category=[["a", "b"]] * 30)
    lists.to_parquet(tmp_path / "data" / "items.parquet")
    vectors = items()[["item_id"]].assign(vector=[[0.1 * k, 0.2] for k in range(30)])
    vectors.to_parquet(tmp_path / "data" / "vectors.parquet")
    settings, _ = proposed(tmp_path, events=log())
    assert settings["items"]["columns"]["category"] == "category"
    assert settings["item_vectors"].keys() == {"path", "columns"}


def test_two_ways_to_write_times_in_one_column_are_both_named(tmp_path: Path) -> None:
    mixed = log()
    mixed.loc[::2, "event_time"] = TIMES[::2].strftime("%d/%m/%Y %H:%M:%S")
    settings, _ = proposed(tmp_path, events=mixed, items=items())
    assert settings["events"]["timestamp_format"] == ["%d/%m/%Y %H:%M:%S", "iso"]
    assert rows_read(tmp_path) == 400


def test_columns_in_another_order_or_added_later_are_one_log(tmp_path: Path) -> None:
    parts = {"log1": log()[:100], "log2": log()[100:200][log().columns[::-1]]}
    later = log()[200:].assign(is_like=1)
    settings, proposal = proposed(tmp_path, **parts, log3=later, items=items())
    assert settings["events"]["path"] == "data/log*.csv"
    assert settings["events"]["columns"]["is_like"] == "is_like"
    assert not [note for note in proposal.notes if "not used" in note]
    assert rows_read(tmp_path) == 400


def test_tables_that_are_numbered_are_no_parts_of_one_log(tmp_path: Path) -> None:
    users = log()[["user_id"]].drop_duplicates().assign(plan=["a", "b"] * 20)
    events = log().assign(plan="a")
    settings, _ = proposed(tmp_path, table_1=events, table_2=users, items=items())
    assert settings["events"]["path"] == "data/table_1.csv"


def test_a_second_log_of_other_names_is_not_left_out_without_a_remedy(tmp_path: Path) -> None:
    old = log()[:100].rename(columns={"item_id": "product_id"})
    _, proposal = proposed(tmp_path, new=log()[100:], old=old, items=items())
    (note,) = [note for note in proposal.notes if "old.csv" in note]
    assert "users, items and times too" in note
    assert "[name, other]" in note


def test_json_beside_csv_is_looked_at_by_init(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    lines = [json.dumps(row) + "\n" for row in log().to_dict("records")]
    (tmp_path / "data" / "events.json").write_text("".join(lines))
    assert proposed(tmp_path, items=items())[0]["events"]["path"] == "data/events.json"
    assert rows_read(tmp_path) == 400


@pytest.mark.parametrize(
    ("zones", "said"),
    [(["Europe/Berlin"], "time_zone: Europe/Berlin"), (["Asia/Tokyo", "UTC"], "# WRONG DAYS")],
)
def test_a_column_of_time_zones_is_not_passed_over(
    tmp_path: Path, zones: list[str], said: str
) -> None:
    zoned = log().assign(tz=zones * (400 // len(zones)))
    _, proposal = proposed(tmp_path, events=zoned, items=items())
    assert said in proposal.text


@pytest.mark.parametrize(
    ("times", "is_warned"),
    [(str, True), (lambda t: t.isoformat() + "Z", False), (lambda t: int(t.timestamp()), False)],
)
def test_a_zone_beside_times_without_one_is_warned_about(
    tmp_path: Path, times: Callable, is_warned: bool
) -> None:
    frame = events_frame([times(t) for t in TIMES], TimeZone="Asia/Tokyo")
    frame.to_csv(tmp_path / "log.csv", index=False)
    notes = opened(tmp_path, events=section("log.csv")).notes()
    assert any("column 'TimeZone' is not read" in note for note in notes) == is_warned
    zoned = opened(tmp_path, events=section("log.csv", time_zone="Asia/Tokyo")).notes()
    assert not any("TimeZone" in note for note in zoned)


@pytest.mark.parametrize(("name", "is_zone"), [("country", False), ("tz", True)])
def test_countries_are_no_time_zones(tmp_path: Path, name: str, is_zone: bool) -> None:
    _, proposal = proposed(tmp_path, events=log().assign(**{name: "Japan"}), items=items())
    assert ("  time_zone: Japan" in proposal.text) == is_zone


def test_a_damaged_first_file_of_days_leaves_the_others_their_notes(tmp_path: Path) -> None:
    for day in ("2026-03-01", "2026-03-02"):
        frame = events_frame([f"{day} 12:00:00"], TimeZone="Asia/Tokyo")
        frame.to_csv(tmp_path / f"{day}.csv", index=False)
    (tmp_path / "2026-03-01.csv").write_text("uid,vid,ts,play_ms,liked,TimeZone\n1,2\n")
    source = opened(tmp_path, events=section("{date}.csv"))
    assert not any("TimeZone" in note for note in source.notes())
    assert source.events(DAY).num_rows == 1


def test_flags_are_no_ids(tmp_path: Path) -> None:
    events_frame([NOON_MS] * 2, uid=[True, False]).to_parquet(tmp_path / "log.parquet")
    with pytest.raises(ValueError, match="'uid' is no id but a flag: name the column of the ids"):
        opened(tmp_path, events=section("log.parquet")).events(DAY)


def test_zeros_for_unknown_times_are_called_so(tmp_path: Path) -> None:
    frame = events_frame([*(int(t.timestamp()) for t in TIMES), 0])
    frame.to_csv(tmp_path / "log.csv", index=False)
    source = opened(tmp_path, events=section("log.csv", timestamp_unit="s"))
    (note,) = [note for note in source.notes() if "rejected" in note]
    assert note.startswith("1 of 401 rows are rejected")
    assert "a zero is no time" in note
    assert source.first_day == date(2026, 3, 1)


def test_several_rows_of_a_user_are_no_table_of_users(tmp_path: Path) -> None:
    twice = pd.DataFrame({"user_id": [f"u{k % 40}" for k in range(80)], "plan": "pro"})
    settings, proposal = proposed(tmp_path, events=log(), items=items(), users=twice)
    assert "users" not in settings
    assert any("80 rows of 40 users: write one row for each" in note for note in proposal.notes)


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("~/log.csv", "~ and variables are not filled in"),
        ("$HOME/log.csv", "~ and variables are not filled in"),
        ("data\\log.csv", "Part directories by /"),
        (" log.csv ", "It has blanks around it"),
        ("%DATA%/log.csv", "~ and variables are not filled in"),
        ("{date:%Y%m%d}.csv", "A relative path starts beside the YAML file"),
        ("lgo.csv", "A relative path starts beside the YAML file"),
        ("/nowhere/log.csv", "found at /nowhere/log.csv. Correct it"),
        ("memory://nowhere/log.csv", "found at memory://nowhere/log.csv. Correct it"),
    ],
)
def test_a_path_that_leads_nowhere_says_what_is_likely_wrong(
    tmp_path: Path, path: str, remedy: str
) -> None:
    events_frame([NOON_MS]).to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(SettingError, match=f"events.path=.*{remedy}"):
        opened(tmp_path, events=section(path))
