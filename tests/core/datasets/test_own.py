"""One's own Parquet and CSV files: mapped, day by day, with nothing lost on the way."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from onerec.datasets import open_source
from onerec.datasets.own import OwnSource

DAY = date(2026, 3, 2)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
NOON_MS = int(NOON.timestamp() * 1000)
DAY_MS = 86_400_000
MAPPING = {
    "user_id": "uid",
    "item_id": "vid",
    "event_time": "ts",
    "watch_seconds": {"column": "play_ms", "scale": 0.001},
    "is_like": "liked",
}


def opened(directory: Path, **sections: Any) -> OwnSource:
    path = directory / "my_data.yaml"
    path.write_text(yaml.safe_dump(sections))
    source = open_source("own", data_dir=None, config=path)
    assert isinstance(source, OwnSource)
    return source


def events_frame(times: list[Any], **columns: Any) -> pd.DataFrame:
    n = len(times)
    values = {"uid": range(n), "vid": range(100, 100 + n), "ts": times, "play_ms": 1500}
    return pd.DataFrame(values | {"liked": 0} | columns)


def section(path: str, unit: str | None = "ms", **more: Any) -> dict[str, Any]:
    return {"path": path, "columns": MAPPING, "timestamp_unit": unit, **more}


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_one_file_with_a_mapping(tmp_path: Path, ending: str) -> None:
    frame = events_frame([NOON_MS, NOON_MS + DAY_MS, NOON_MS + 2 * DAY_MS], liked=[1, 0, 1])
    path = tmp_path / f"log.{ending}"
    frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)
    source = opened(tmp_path, events=section(path.name))
    assert (source.first_day, source.last_day) == (DAY, date(2026, 3, 4))
    table = source.events(DAY)
    assert table.to_pylist() == [
        {
            "user_id": "0",
            "item_id": "100",
            "event_time": NOON,
            "watch_seconds": 1.5,
            "is_like": True,
        }
    ]
    empty = source.events(date(2026, 3, 9))
    assert (empty.num_rows, empty.column_names) == (0, table.column_names)


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        ([NOON_MS // 1000], "s"),
        ([NOON_MS / 1000 + 0.25], "s"),
        ([NOON_MS * 1000], "us"),
        ([NOON], None),
        ([NOON.replace(tzinfo=None)], None),
        (["2026-03-02T12:00:00Z"], "iso"),
        (["2026-03-02 14:00:00+02:00"], None),
        ([pd.Timestamp("2026-03-02 13:00", tz="Europe/Paris")], None),
        ([DAY], None),
    ],
)
def test_every_spelling_of_a_time(tmp_path: Path, times: list[Any], unit: str | None) -> None:
    events_frame(times).to_parquet(tmp_path / "log.parquet")
    source = opened(tmp_path, events=section("log.parquet", unit))
    (row,) = source.events(source.first_day).to_pylist()
    assert row["event_time"].date() == DAY
    assert source.first_day == source.last_day == DAY


def test_a_large_log_is_read_by_its_statistics(tmp_path: Path) -> None:
    frame = events_frame([NOON_MS + i * DAY_MS // 4 for i in range(40)])
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "log.parquet", row_group_size=4)
    source = opened(tmp_path, events=section("log.parquet"))
    counts = [len(source.events(date.fromordinal(DAY.toordinal() + d))) for d in range(11)]
    assert counts == [2, 4, 4, 4, 4, 4, 4, 4, 4, 4, 2]


def test_rows_without_a_day_come_with_the_first_day(tmp_path: Path) -> None:
    times = [NOON_MS, NOON_MS + DAY_MS, None, "soon", -5, 0, 99_999_999_999_999, 1e30]
    frame = events_frame([str(t) if t is not None else None for t in times])
    frame.to_csv(tmp_path / "log.csv", index=False)
    source = opened(tmp_path, events=section("log.csv"))
    assert (source.first_day, source.last_day) == (DAY, date(2026, 3, 3))
    first = source.events(DAY)
    assert len(first) + len(source.events(date(2026, 3, 3))) == len(frame)
    delivered = dict(
        zip(first["user_id"].to_pylist(), first["event_time"].to_pylist(), strict=True)
    )
    assert delivered["3"] == "soon"
    assert delivered["2"] is None
    assert delivered["0"].startswith("2026-03-02 12:00:00")
    # The same in Parquet, where the condition is pushed down.
    numbers = events_frame([NOON_MS, NOON_MS + DAY_MS, -5, 0, 99_999_999_999_999])
    numbers.to_parquet(tmp_path / "log.parquet")
    source = opened(tmp_path, events=section("log.parquet"))
    assert len(source.events(source.first_day)) == 4
    assert source.last_day == date(2026, 3, 3)


def test_values_that_do_not_fit_are_delivered_as_text(tmp_path: Path) -> None:
    frame = events_frame([NOON_MS] * 4).astype(object)
    frame["play_ms"] = ["1500", "much", "-3", None]
    frame["liked"] = ["TRUE", "0", "perhaps", None]
    frame["uid"] = ["a", None, "c", "d"]
    frame.to_csv(tmp_path / "log.csv", index=False)
    table = opened(tmp_path, events=section("log.csv")).events(DAY)
    assert table["watch_seconds"].to_pylist() == ["1.5", "much", "-0.003", None]
    assert table["is_like"].to_pylist() == ["true", "false", "perhaps", None]
    assert table["user_id"].to_pylist() == ["a", None, "c", "d"]


def test_ids_that_a_null_made_floats_are_written_whole(tmp_path: Path) -> None:
    frame = events_frame([NOON_MS] * 2, uid=[12_345_678_901.0, None])
    frame.to_parquet(tmp_path / "log.parquet")
    table = opened(tmp_path, events=section("log.parquet")).events(DAY)
    assert table["user_id"].to_pylist() == ["12345678901", None]


def test_dictionary_columns_and_an_empty_file_of_a_day(tmp_path: Path) -> None:
    frame = events_frame(["2026-03-02T12:00:00Z"]).astype({"ts": "category", "uid": "category"})
    frame.to_parquet(tmp_path / "2026-03-02.parquet")
    frame.iloc[:0].to_parquet(tmp_path / "2026-03-03.parquet")
    source = opened(tmp_path, events=section("{date}.parquet", None))
    assert source.events(DAY).to_pylist()[0]["event_time"] == NOON
    assert source.events(DAY).to_pylist()[0]["user_id"] == "0"
    assert source.events(source.last_day).num_rows == 0


def test_a_ragged_csv_row_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("uid,vid,ts,play_ms,liked\n1,2,3,4,0\n1,2\n")
    with pytest.raises(ValueError, match=r"log\.csv: cannot be read as CSV.*Row #3"):
        opened(tmp_path, events=section("log.csv"))


def test_files_of_one_log_may_differ_in_types(tmp_path: Path) -> None:
    events_frame([NOON_MS]).to_parquet(tmp_path / "a.parquet")
    events_frame([NOON_MS], play_ms=["much"]).to_parquet(tmp_path / "b.parquet")
    table = opened(tmp_path, events=section("*.parquet")).events(DAY)
    assert table["watch_seconds"].to_pylist() == ["1.5", "much"]


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{date}.csv", "2026-03-0{}.csv"),
        ("log/day={date:%Y%m%d}/*.csv", "log/day=2026030{}/part-0.csv"),
        ("log/{date}", "log/2026-03-0{}/part-0.csv"),
        ("../*/{date:%Y/%m/%d}/x-*.csv", "2026/03/0{}/x-1.csv"),
    ],
)
def test_a_file_per_day_is_delivered_whole(tmp_path: Path, pattern: str, name: str) -> None:
    for number in (2, 3):
        path = tmp_path / name.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        events_frame([NOON_MS, "soon", None]).to_csv(path, index=False)
    source = opened(tmp_path, events=section(pattern))
    assert (source.first_day, source.last_day) == (DAY, date(2026, 3, 3))
    assert len(source.events(DAY)) == len(source.events(date(2026, 3, 3))) == 3
    missing = source.events(date(2026, 3, 4))
    assert missing.num_rows == 0
    assert missing.column_names == source.events(DAY).column_names
    assert sorted(source.items(DAY)["item_id"].to_pylist()) == ["100", "101", "102"]


def test_catalogue_history_and_vectors(tmp_path: Path) -> None:
    events_frame([NOON_MS, NOON_MS + DAY_MS]).to_parquet(tmp_path / "log.parquet")
    pd.DataFrame(
        {
            "item_id": [1, 2, 3, 4],
            "caption": ["a", None, "c", "d"],
            "len_ms": [1000, 2000, None, 4000],
            "published_at": ["2026-03-01", "2026-03-03T01:00:00", None, "never"],
        }
    ).to_csv(tmp_path / "items.csv", index=False)
    pd.DataFrame({"user_id": ["0", "0"], "item_id": ["1", "2"], "good": [1, 0]}).to_csv(
        tmp_path / "history.csv", index=False
    )
    pd.DataFrame({"item_id": [1, 2], "vector": [[1.0, 2.0], [3.0, 4.0]]}).to_parquet(
        tmp_path / "vectors.parquet"
    )
    source = opened(
        tmp_path,
        events=section("log.parquet"),
        items={
            "path": "items.csv",
            "columns": {
                "title": "caption",
                "duration_seconds": {"column": "len_ms", "scale": 0.001},
            },
        },
        prior_history={"path": "history.csv", "columns": {"is_positive": "good"}},
        item_vectors={"path": "vectors.parquet"},
        stages={"sessions": {"session_mode": "user_day"}},
        preset="tiny",
    )
    items = source.items(DAY).to_pylist()
    assert [i["item_id"] for i in items] == ["1", "3", "4"]
    assert items[0]["duration_seconds"] == 1.0
    assert items[2]["published_at"] == "never"
    assert len(source.items(date(2026, 3, 3))) == 4
    assert source.prior_history().to_pylist() == [
        {"user_id": "0", "position": 0, "item_id": "1", "is_positive": True},
        {"user_id": "0", "position": 1, "item_id": "2", "is_positive": False},
    ]
    vectors = source.item_vectors()
    assert vectors is not None
    assert vectors.to_pylist()[1] == {"item_id": "2", "vector": [3.0, 4.0]}
    np.savez(tmp_path / "v.npz", item_ids=np.array([5]), item_vectors=np.ones((1, 3)))
    other = opened(tmp_path, events=section("log.parquet"), item_vectors={"path": "v.npz"})
    supplied = other.item_vectors()
    assert supplied is not None
    assert supplied.to_pylist() == [{"item_id": "5", "vector": [1.0, 1.0, 1.0]}]
    assert other.items(DAY).to_pylist() == [{"item_id": "100"}]


def test_a_catalogue_per_day_is_the_newest_by_then(tmp_path: Path) -> None:
    events_frame([NOON_MS]).to_parquet(tmp_path / "log.parquet")
    for day, ids in (("2026-03-02", ["1"]), ("2026-03-04", ["1", "2"])):
        pd.DataFrame({"item_id": ids}).to_csv(tmp_path / f"items_{day}.csv", index=False)
    source = opened(tmp_path, events=section("log.parquet"), items={"path": "items_{date}.csv"})
    counts = [len(source.items(date(2026, 3, d))) for d in (1, 2, 3, 4)]
    assert counts == [0, 1, 1, 2]


def test_titles_in_any_bytes_and_any_length(tmp_path: Path) -> None:
    events_frame([NOON_MS]).to_parquet(tmp_path / "log.parquet")
    rows = b'item_id,title\n1,caf\xe9\n2,"two\nlines"\n3,' + b"x" * 2_000_000 + b"\n"
    (tmp_path / "items.csv").write_bytes(rows)
    items = opened(tmp_path, events=section("log.parquet"), items={"path": "items.csv"})
    titles = items.items(DAY)["title"].to_pylist()
    assert titles[:2] == ["caf\ufffd", "two\nlines"]
    assert len(titles[2]) == 2_000_000
    latin = {"path": "items.csv", "encoding": "latin-1"}
    named = opened(tmp_path, events=section("log.parquet"), items=latin).items(DAY)
    assert named["title"][0].as_py() == "caf\u00e9"


def test_any_file_system(tmp_path: Path) -> None:
    import fsspec

    path = tmp_path / "log.parquet"
    events_frame([NOON_MS]).to_parquet(path)
    fsspec.filesystem("memory").pipe_file("/own/log.parquet", path.read_bytes())
    for url in ("memory://own/log.parquet", "memory://own", "memory://own/*.parquet"):
        assert len(opened(tmp_path, events=section(url)).events(DAY)) == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"events": {"path": "log.csv", "columns": {"usr": "uid"}}}, "events.columns.usr='uid'"),
        ({"event": {}}, "event={}: no such key; use events, items"),
        ({"events": {"columns": {}}}, "events.path: is missing"),
        ({"events": section("log.csv", "minutes")}, "events.timestamp_unit='minutes'"),
        ({"events": section("none.csv")}, "events.path='none.csv': no Parquet or CSV file"),
        ({"last_day": "2020-01-01", "first_day": "2021-01-01"}, "last_day 2020-01-01 lies before"),
        ({"last_day": "2020-01-01", "open_ended": True}, "exclude each other"),
        ({"events": {"path": "log.csv"}}, "log.csv: no column 'user_id'; it has uid, vid"),
        ({"items": {"path": "log.csv"}}, "no column 'item_id'.*Set items.columns.item_id"),
        ({"events": section("nothere://x/y")}, "nothere"),
    ],
)
def test_a_wrong_file_says_what_to_do(tmp_path: Path, changes: dict, named: str) -> None:
    events_frame([NOON_MS]).to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(ValueError, match=named):
        opened(tmp_path, **({"events": section("log.csv")} | changes))


def test_no_config_no_yaml_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"CONFIG=my_data\.yaml"):
        open_source("own", data_dir=None, config=None)
    path = tmp_path / "my.yaml"
    with pytest.raises(ValueError, match="no such file"):
        open_source("own", data_dir=None, config=path)
    for text in ("{", "- 1", ""):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"my\.yaml"):
            open_source("own", data_dir=None, config=path)


def test_times_without_a_unit_and_without_any_day(tmp_path: Path) -> None:
    events_frame([NOON_MS]).to_parquet(tmp_path / "log.parquet")
    with pytest.raises(ValueError, match=r"log.parquet: events.timestamp_unit=None.*s, ms or us"):
        _ = opened(tmp_path, events=section("log.parquet", None)).first_day
    events_frame([0, 0]).to_parquet(tmp_path / "log.parquet")
    with pytest.raises(ValueError, match="set first_day and last_day"):
        _ = opened(tmp_path, events=section("log.parquet")).first_day
    fixed = opened(tmp_path, events=section("log.parquet"), first_day=DAY, open_ended=True)
    assert (fixed.first_day, fixed.last_day) == (DAY, None)
    assert len(fixed.events(DAY)) == 2


@pytest.mark.parametrize("left", [0, 30, 200])
def test_a_truncated_parquet_file_is_named(tmp_path: Path, left: int) -> None:
    path = tmp_path / "log.parquet"
    events_frame([NOON_MS]).to_parquet(path)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ValueError, match=r"log\.parquet: cannot be read as Parquet.*copy it again"):
        opened(tmp_path, events=section("log.parquet"))


def test_damage_inside_a_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    frame = events_frame(list(range(NOON_MS, NOON_MS + 5_000)), play_ms=np.arange(5_000) % 977)
    frame.to_parquet(path)
    content = bytearray(path.read_bytes())
    content[8:4_000] = b"\xff" * 3_992
    path.write_bytes(bytes(content))
    source = opened(tmp_path, events=section("log.parquet"), first_day=DAY, last_day=DAY)
    with pytest.raises(ValueError, match=r"log\.parquet: cannot be read"):
        source.events(DAY)
