"""Lines of JSON are read as CSV and Parquet are, wherever their keys and kinds of values differ."""

import gzip
import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
import yaml

from onerec.config import SettingError
from onerec.datasets import late_keys
from resources.file_source import FileSource, open_source
from resources.proposal.yaml_file import propose
from tests.resources.own_files import DAY, NOON_MS, events_frame, kept_text, opened, section

COLUMNS = {"user_id": "user.id", "item_id": "item", "event_time": "at"}
ROW = {"user": {"id": 7}, "item": "i1", "at": "2026-03-02 12:00:00", "watch_seconds": 3}


def write_lines(file: Path, rows: list[Any]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(directory: Path, **columns: Any) -> list[dict[str, Any]]:
    events = {"path": "log.jsonl", "columns": COLUMNS | columns}
    return opened(directory, events=events).events(DAY).to_pylist()


@pytest.mark.parametrize("name", ["log.jsonl", "log.ndjson.gz", "log.json"])
def test_the_same_rows_as_in_csv(tmp_path: Path, name: str) -> None:
    odd = {"uid": ["007", "1.0", "", "\u00e9\u00e8", "a,b"], "play_ms": [1.5, None, -3, 1e9, 20]}
    frame = events_frame([NOON_MS + k for k in range(5)], **odd)
    frame.to_csv(tmp_path / "log.csv", index=False)
    frame.to_json(tmp_path / name, orient="records", lines=True, force_ascii=False)
    as_csv = opened(tmp_path, events=section("log.csv")).events(DAY)
    as_json = opened(tmp_path, events=section(name)).events(DAY)
    assert as_json.drop_columns("file").equals(as_csv.drop_columns("file"))


def test_numbers_texts_and_records_of_records(tmp_path: Path) -> None:
    ids = [7, "7", 7.0, "07", 12345678901234567890123, None, True]
    rows = [ROW | {"user": {"id": value}, "a.b": {"c/d": n}} for n, value in enumerate(ids)]
    write_lines(tmp_path / "log.jsonl", [*rows, {**ROW, "user": {}}, {**ROW, "user": None}])
    found = read(tmp_path, event_id="a.b.c/d")
    users = ["7", "7", "7", "07", "12345678901234567890123", None, "true", None, None]
    assert [row["user_id"] for row in found] == users
    assert [row["event_id"] for row in found] == [*map(str, range(7)), None, None]


def test_a_value_that_does_not_fit_is_kept_for_the_rejected_row(tmp_path: Path) -> None:
    write_lines(tmp_path / "log.jsonl", [ROW, ROW | {"watch_seconds": "much"}])
    events = {"path": "log.jsonl", "columns": COLUMNS}
    kept = kept_text(opened(tmp_path, events=events).events(DAY))
    assert kept == [{}, {"watch_seconds": "much"}]


def test_lists_are_texts_vectors_and_no_ids(tmp_path: Path) -> None:
    write_lines(tmp_path / "log.jsonl", [ROW, ROW | {"item": "i2"}])
    items = [
        {"item_id": "i1", "category": ["a", "b"], "v": [0.5, 1]},
        {"item_id": "i2", "v": [2, 3]},
    ]
    write_lines(tmp_path / "items.jsonl", items)
    vectors = {"path": "items.jsonl", "columns": {"vector": "v"}}
    events = {"path": "log.jsonl", "columns": COLUMNS}
    source = opened(tmp_path, events=events, items={"path": "items.jsonl"}, item_vectors=vectors)
    assert source.items(DAY)["category"].to_pylist() == ["a,b", None]
    supplied = source.item_vectors()
    assert supplied is not None
    assert supplied["vector"].to_pylist() == [[0.5, 1.0], [2.0, 3.0]]
    write_lines(tmp_path / "log.jsonl", [ROW, ROW | {"item": ["i1", "i2"]}])
    with pytest.raises(ValueError, match="line 2: item holds a list, write a row for each element"):
        read(tmp_path)


def test_a_record_names_its_field_in_the_remedy(tmp_path: Path) -> None:
    write_lines(tmp_path / "log.jsonl", [ROW])
    with pytest.raises(
        ValueError,
        match=re.escape(
            "line 1: user holds a record, name the field of it that is meant, user.id say"
        ),
    ):
        read(tmp_path, user_id="user")
    with pytest.raises(SettingError, match=re.escape("it has user, user.id, item, at")):
        read(tmp_path, user_id="uid")


def test_a_key_with_a_point_is_read_beside_a_key_of_its_beginning(tmp_path: Path) -> None:
    rows = [{"event": "view", "event.kind": "purchase"}, {"event": {"kind": "cart"}}]
    write_lines(tmp_path / "log.jsonl", [ROW | row for row in rows])
    kinds = [row["event_type"] for row in read(tmp_path, event_type="event.kind")]
    assert kinds == ["purchase", "cart"]


def test_blank_lines_hold_nothing_and_count(tmp_path: Path) -> None:
    lines = ["", json.dumps(ROW), "  \t", "", json.dumps(ROW)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\r\n\n")
    assert len(read(tmp_path)) == 2
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, "5"]))
    with pytest.raises(ValueError, match="line 6 is no JSON record"):
        read(tmp_path)


def test_a_first_line_of_more_than_a_mebibyte_is_read(tmp_path: Path) -> None:
    write_lines(tmp_path / "log.jsonl", [ROW | {"text": "x" * (3 << 20)}, ROW])
    assert len(read(tmp_path)) == 2
    write_lines(tmp_path / "log.jsonl", [ROW | {"text": "x" * (17 << 20)}])
    with pytest.raises(ValueError, match="line 1 is longer than 16 MiB"):
        read(tmp_path)


def test_lists_in_lists_without_end_are_named(tmp_path: Path) -> None:
    deep = "[" * 200_000 + "]" * 200_000
    (tmp_path / "log.jsonl").write_text(f'{json.dumps(ROW)}\n{{"a": {deep}}}\n')
    with pytest.raises(ValueError, match="line 2 holds lists or records in too many others"):
        read(tmp_path)


LATE = [ROW] * 15_000  # more than the beginning of a file in which names are looked for


def test_a_late_key_is_read_where_it_is_named_and_stops_the_run_else(tmp_path: Path) -> None:
    write_lines(tmp_path / "log.jsonl", [*LATE, ROW | {"is_like": 1, "liked": True}])
    with pytest.raises(ValueError, match="line 15001 has the key is_like, which its first lines"):
        read(tmp_path)
    for name in ("is_like", "liked"):
        likes = [row["is_like"] for row in read(tmp_path, is_like=name)]
        assert likes == [None] * 15_000 + [True]
    assert not any(row["is_like"] for row in read(tmp_path, is_like=None))
    with pytest.raises(SettingError, match=r"events\.columns\.is_like='likd'"):
        read(tmp_path, is_like="likd")


def test_a_key_behind_all_that_is_looked_through_is_read_or_named_in_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_keys, "LOOKED_THROUGH", 1 << 20)  # bytes: as many as names come from
    write_lines(tmp_path / "log.jsonl", [*LATE, ROW | {"Is_Like ": 1}])
    with pytest.raises(
        ValueError,
        match=r"log\.jsonl: line 15001 has the key Is_Like .*columns, \{ is_like: 'Is_Like '",
    ):
        read(tmp_path)
    assert [row["is_like"] for row in read(tmp_path, is_like="Is_Like ")][-2:] == [None, True]
    # in a record, or in a value, it is no column
    rows = [ROW | {"context": {"is_like": 1}}, ROW | {"text": '"is_like": 1'}]
    write_lines(tmp_path / "log.jsonl", [*LATE, *rows])
    assert not any(row["is_like"] for row in read(tmp_path))


def test_a_late_key_is_looked_for_in_the_newest_lines_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lines(tmp_path / "2026-03-02.jsonl", [ROW] * 100)
    write_lines(tmp_path / "2026-03-03.jsonl", [ROW])
    events = {"path": "{date}.jsonl", "columns": COLUMNS | {"is_like": "likd"}}
    with pytest.raises(SettingError, match="likd"):
        opened(tmp_path, events=events)
    monkeypatch.setattr(late_keys, "LOOKED_THROUGH", 1000)  # bytes: the newest file, and no other
    source = opened(tmp_path, events=events)
    assert source.events(DAY)["is_like"].null_count == 100
    (note,) = source.notes()
    assert note.startswith("events.columns.is_like='likd' is in none of the newest")


@pytest.mark.parametrize(
    ("last", "about"),
    [
        ('{"user": {"id": 7}, "item": "i1", ', "line 4 is no JSON record"),
        ("5", "line 4 is no JSON record: '5'. Correct or remove it"),
        ('{"user": {"id": 7}, "item": "' + "x" * 300, "Its end is missing: write or copy"),
    ],
)
def test_a_broken_line_stops_the_run_as_a_torn_row_does(
    tmp_path: Path, last: str, about: str
) -> None:
    (tmp_path / "log.jsonl").write_text(f"{json.dumps(ROW)}\n\n{json.dumps(ROW)}\n{last}")
    with pytest.raises(ValueError, match=re.escape(about)):
        read(tmp_path)


@pytest.mark.parametrize("text", ['[{"user_id": 1}]', '{\n  "user_id": 1\n}'])
def test_json_that_is_no_lines_says_how_to_write_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(ValueError, match=re.escape("jq -c '.[]'")):
        read(tmp_path)


def test_csv_that_is_called_json_says_so(tmp_path: Path) -> None:
    events_frame([NOON_MS]).to_csv(tmp_path / "log.jsonl", index=False)
    with pytest.raises(ValueError, match=r"line 1 is no JSON record.*set format: csv"):
        read(tmp_path)


def test_of_files_of_days_a_broken_one_stops_its_own_day(tmp_path: Path) -> None:
    write_lines(tmp_path / "2026-03-02.json", [ROW])
    (tmp_path / "2026-03-03.json").write_text(json.dumps(ROW) + "\n{")
    source = opened(tmp_path, events={"path": "{date}.json", "columns": COLUMNS})
    assert source.events(DAY).num_rows == 1
    with pytest.raises(ValueError, match="line 2 is no JSON record"):
        source.events(date(2026, 3, 3))


def test_json_beside_other_files_is_a_note_about_them(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    events_frame([NOON_MS]).to_csv(tmp_path / "log" / "a.csv", index=False)
    (tmp_path / "log" / "manifest.json").write_text('{"rows": 1}')
    source = opened(tmp_path, events=section("log"))
    assert source.events(DAY).num_rows == 1
    assert any("manifest.json" in note for note in source.notes())


@pytest.mark.parametrize("name", ["errors.jsonl", "more.ndjson.gz", "manifest.json.gz"])
def test_lines_of_json_beside_tables_are_named_and_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "log").mkdir()
    frame = events_frame([NOON_MS])
    frame.to_parquet(tmp_path / "log" / "a.parquet")
    frame.to_json(tmp_path / "log" / name, orient="records", lines=True)
    source = opened(tmp_path, events=section("log"))
    assert source.events(DAY).num_rows == 1
    assert any(name in note for note in source.notes())


def test_a_day_with_a_manifest_only_has_no_rows(tmp_path: Path) -> None:
    for day in ("2026-03-02", "2026-03-03"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "manifest.json").write_text('{"rows": 1}')
    events_frame([NOON_MS]).to_csv(tmp_path / "2026-03-02" / "a.csv", index=False)
    source = opened(tmp_path, events=section("{date}"))
    assert source.events(DAY).num_rows == 1
    assert source.events(date(2026, 3, 3)).num_rows == 0


def test_init_takes_a_log_with_records_that_it_cannot_name(tmp_path: Path) -> None:
    odd = {"context": {}, "a": {"b": {"c": {"d": {"e": 1}}}}, "event": "view", "event.time": 1}
    rows = [
        {"user_id": f"u{k % 40}", "item_id": f"i{k % 30}", "ts": f"2026-03-01 10:{k % 60:02}:00"}
        | odd
        for k in range(300)
    ]
    write_lines(tmp_path / "log.jsonl", rows)
    text = propose(str(tmp_path / "log.jsonl"), tmp_path).text
    assert yaml.safe_load(text)["events"]["columns"].keys() >= {"user_id", "item_id", "event_time"}
    assert "event_type: event #" in text


def test_init_finds_lines_of_json_beside_tables_behind_a_url(tmp_path: Path) -> None:
    rows = [
        {"user_id": f"u{k % 40}", "item_id": f"i{k % 30}", "ts": f"2026-03-01 10:{k % 60:02}:00"}
        for k in range(300)
    ]
    memory = fsspec.filesystem("memory")
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    memory.pipe(f"{tmp_path}/log.json.gz", gzip.compress(lines))
    memory.pipe(
        f"{tmp_path}/items.csv",
        b"item_id,title\n" + b"".join(b"i%d,a title\n" % k for k in range(30)),
    )
    settings = yaml.safe_load(propose(f"memory:/{tmp_path}", tmp_path).text)
    assert settings["events"]["path"] == f"memory://{tmp_path}/log.json.gz"


def test_init_proposes_fields_of_records(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    times = pd.date_range("2026-03-01", periods=300, freq="20min")
    rows = [
        {"user": {"id": k % 40, "geo": {"city": "x"}}, "video_id": f"v{k % 30}", "ts": str(at)}
        | ({"watch_seconds": 20} if k % 2 else {})
        for k, at in enumerate(times)
    ]
    with gzip.open(tmp_path / "data" / "log.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    text = propose(str(tmp_path / "data"), tmp_path).text
    assert yaml.safe_load(text)["events"] == {
        "path": "data/log.jsonl.gz",
        "columns": {
            "user_id": "user.id",
            "item_id": "video_id",
            "event_time": "ts",
            "watch_seconds": "watch_seconds",
        },
    }
    (tmp_path / "my.yaml").write_text(text)
    source = open_source("own", data_dir=None, config=tmp_path / "my.yaml")
    assert isinstance(source, FileSource)
    assert source.events(date(2026, 3, 1)).num_rows == 72
