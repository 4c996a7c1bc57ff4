"""One's own Parquet and CSV files of events: mapped, typed, day by day, with nothing lost."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.resources.own_files import (
    DAY,
    DAY_MS,
    MAPPING,
    NEXT,
    NOON,
    NOON_MS,
    events_frame,
    kept_text,
    opened,
    section,
)


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "csv.bz2", "csv.xz", "parquet"])
def test_one_file_with_a_mapping(tmp_path: Path, ending: str) -> None:
    frame = events_frame([NOON_MS, NOON_MS + DAY_MS, NOON_MS + 2 * DAY_MS], liked=[1, 0, 1])
    path = tmp_path / f"log.{ending}"
    frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)
    source = opened(tmp_path, events=section(path.name, timestamp_unit="ms"))
    assert (source.first_day, source.last_day) == (DAY, date(2026, 3, 4))
    (row,) = source.events(DAY).to_pylist()
    assert {name: value for name, value in row.items() if value is not None} == {
        "user_id": "0",
        "item_id": "100",
        "event_time": NOON,
        "watch_seconds": 1.5,
        "is_like": True,
        "file": str(path),
        "delivered_row": 0,
        "delivered_on": DAY,
        "event_date": DAY,
    }
    assert source.events(date(2026, 3, 9)).num_rows == 0


def test_days_of_a_large_log_are_complete(tmp_path: Path) -> None:
    frame = events_frame([NOON_MS + i * DAY_MS // 4 for i in range(40)])
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "log.parquet", row_group_size=4)
    source = opened(tmp_path, events=section("log.parquet"))
    counts = [len(source.events(DAY + timedelta(d))) for d in range(11)]
    assert counts == [2, 4, 4, 4, 4, 4, 4, 4, 4, 4, 2]


BAD_TIMES = [None, "soon", "-5", "0", "99999999999999", "1e30"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_without_a_day_come_with_the_first_day(tmp_path: Path, kind: str) -> None:
    frame = events_frame([str(NOON_MS), str(NOON_MS + DAY_MS), *BAD_TIMES])
    path = tmp_path / f"log.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    for more in ({}, {"first_day": DAY}, {"first_day": DAY, "last_day": NEXT}):
        source = opened(tmp_path, events=section(path.name, timestamp_unit="ms"), **more)
        assert (source.first_day, source.last_day) == (DAY, NEXT)
        first = source.events(DAY)
        assert first["user_id"].to_pylist() == ["0", "2", "3", "4", "5", "6", "7"]
        assert len(source.events(NEXT)) == 1
        assert kept_text(first)[2] == {"event_time": "soon"}
        assert kept_text(first)[0] == kept_text(first)[1] == {}  # null is null, and no text


def test_a_sliver_in_another_unit_neither_stretches_the_log_nor_vanishes(tmp_path: Path) -> None:
    times = [NOON_MS + n * DAY_MS // 10 for n in range(30)]
    times[3], times[17] = times[3] // 1000, times[17] // 1000
    events_frame(times).to_csv(tmp_path / "log.csv", index=False)
    for more in ({}, {"first_day": DAY}):
        source = opened(tmp_path, events=section("log.csv", timestamp_unit="ms"), **more)
        assert (source.first_day, source.last_day) == (DAY, date(2026, 3, 5))
        days = [DAY + timedelta(d) for d in range(4)]
        assert sum(len(source.events(day)) for day in days) == 30
        assert {"3", "17"} <= set(source.events(DAY)["user_id"].to_pylist())
        (note,) = source.notes()
        assert note.startswith("2 of 30 rows are rejected.")
        assert f"column 'ts' holds a value that is no usable time: '{times[17]}'" in note
        assert "leave it out" in note
    # which is the remedy that works
    source = opened(tmp_path, events=section("log.csv"))
    assert source.notes() == []
    assert [len(source.events(day)) for day in days] == [5, 10, 10, 5]


def test_days_of_a_wrong_clock_are_told_and_rejected(tmp_path: Path) -> None:
    times = [NOON + timedelta(hours=n) for n in range(200)]
    times[5] = times[5].replace(year=2001)
    events_frame(times).to_parquet(tmp_path / "log.parquet")
    source = opened(tmp_path, events=section("log.parquet"))
    assert source.first_day == DAY
    (lost,) = [r for r in source.events(DAY).to_pylist() if r["event_date"] < DAY]
    assert (lost["user_id"], lost["delivered_on"]) == ("5", DAY)
    (note,) = source.notes()
    assert "1 rows lie far from the rest" in note
    assert note.endswith("set first_day: 2001-03-02")
    # a first day that is set leaves earlier rows out, and they are counted
    source = opened(tmp_path, events=section("log.parquet"), first_day=DAY)
    assert len(source.events(DAY)) == 11
    assert source.rows_outside() == 1


def test_values_that_do_not_fit_leave_the_others_alone(tmp_path: Path) -> None:
    frame = events_frame([NOON_MS] * 4).astype(object)
    frame["play_ms"] = ["1500", "much", "-3", None]
    frame["liked"] = ["TRUE", "0", "perhaps", None]
    frame["uid"] = ["a", None, "c", "nan"]
    frame.to_csv(tmp_path / "log.csv", index=False)
    table = opened(tmp_path, events=section("log.csv")).events(DAY)
    assert table["watch_seconds"].to_pylist() == [1.5, None, -0.003, None]
    assert table["is_like"].to_pylist() == [True, False, None, None]
    assert table["user_id"].to_pylist() == ["a", None, "c", None]
    assert kept_text(table) == [{}, {"watch_seconds": "much"}, {"is_like": "perhaps"}, {}]


def test_files_of_one_log_may_differ_in_types_and_columns(tmp_path: Path) -> None:
    events_frame([NOON_MS]).drop(columns="liked").to_parquet(tmp_path / "a.parquet")
    turned = events_frame([NOON.isoformat()], play_ms=["much"], liked=["yes"], extra=1)
    turned[turned.columns[::-1]].to_parquet(tmp_path / "b.parquet")
    pd.DataFrame(columns=["uid"]).to_csv(tmp_path / "c.csv", index=False)
    (tmp_path / "c.csv").write_bytes(b"")
    events_frame([NOON], uid=["x"]).to_parquet(tmp_path / "d.parquet")
    table = opened(tmp_path, events=section("*.*[tv]")).events(DAY)
    assert table["event_time"].to_pylist() == [NOON] * 3
    assert table["user_id"].to_pylist() == ["0", "0", "x"]
    assert table["watch_seconds"].to_pylist() == [1.5, None, 1.5]
    assert table["is_like"].to_pylist() == [None, True, False]
    assert kept_text(table)[1] == {"watch_seconds": "much"}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_keep_their_order_in_files_and_of_files(tmp_path: Path, kind: str) -> None:
    draw = np.random.default_rng(0).permutation(5_000)
    for number, rows in enumerate(np.array_split(draw, 3)):
        frame = events_frame([NOON] * len(rows), uid=rows)
        path = tmp_path / f"part-{number}.{kind}"
        if kind == "csv":
            frame.to_csv(path, index=False)
        else:
            pq.write_table(pa.Table.from_pandas(frame), path, row_group_size=300)
    table = opened(tmp_path, events=section(f"*.{kind}")).events(DAY)
    assert table["delivered_row"].to_pylist() == sorted(table["delivered_row"].to_pylist())
    assert [int(u) for u in table["user_id"].to_pylist()] == draw.tolist()


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{date}.csv", "2026-03-0{}.csv"),
        ("log/day={date:%Y%m%d}/*.csv", "log/day=2026030{}/part-0.csv"),
        ("log/{date}", "log/2026-03-0{}/part-0.csv"),
        ("../*/{date:%Y/%m/%d}/x-*.csv", "2026/03/0{}/x-1.csv"),
        ("year={date:%Y}/month={date:%-m}/day={date:%-d}/*.csv", "year=2026/month=3/day={}/a.csv"),
        ("log/{date}-*.csv", "log/2026-03-0{}-0.csv"),
    ],
)
def test_a_file_per_day_is_delivered_whole(tmp_path: Path, pattern: str, name: str) -> None:
    for number in (2, 3):
        path = tmp_path / name.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        events_frame([NOON_MS, "soon", None]).to_csv(path, index=False)
    source = opened(tmp_path, events=section(pattern))
    assert (source.first_day, source.last_day) == (DAY, NEXT)
    assert len(source.events(DAY)) == len(source.events(NEXT)) == 3
    assert source.events(NEXT)["event_date"].to_pylist() == [DAY, None, None]
    assert source.events(date(2026, 3, 4)).num_rows == 0
    assert sorted(source.items(DAY)["item_id"].to_pylist()) == ["100", "101", "102"]


def test_the_day_begins_at_midnight_of_the_log_s_zone(tmp_path: Path) -> None:
    texts = ["2026-03-02 23:30:00", "2026-03-03T00:30:00", "2026-03-02T22:30:00Z"]
    events_frame(texts).to_csv(tmp_path / "log.csv", index=False)
    berlin = opened(tmp_path, events=section("log.csv"), time_zone="Europe/Berlin")
    assert berlin.events(DAY)["event_time"].to_pylist() == [
        datetime(2026, 3, 2, 22, 30, tzinfo=UTC),
        datetime(2026, 3, 2, 22, 30, tzinfo=UTC),
    ]
    assert berlin.events(NEXT)["user_id"].to_pylist() == ["1"]
    # files may write UTC, and the days still be Berlin's
    utc = section("log.csv", time_zone="UTC")
    mixed = opened(tmp_path, events=utc, time_zone="Europe/Berlin")
    assert len(mixed.events(NEXT)) == 2


def test_date_and_time_of_day_in_two_columns(tmp_path: Path) -> None:
    frame = events_frame([NOON.time()] * 2, day=[DAY, NEXT])
    columns = {**MAPPING, "event_time": {"column": "ts", "date": "day"}}
    for path in (tmp_path / "log.parquet", tmp_path / "log.csv"):
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
        source = opened(tmp_path, events={"path": path.name, "columns": columns})
        assert source.events(DAY)["event_time"].to_pylist() == [NOON]
        assert source.last_day == NEXT


def test_columns_of_the_path(tmp_path: Path) -> None:
    for surface in ("home", "search"):
        path = tmp_path / "log" / f"surface={surface}" / "a.parquet"
        path.parent.mkdir(parents=True)
        events_frame([NOON_MS]).to_parquet(path)
    source = opened(tmp_path, events=section("log"))
    assert source.events(DAY)["surface"].to_pylist() == ["home", "search"]


@pytest.mark.parametrize(
    ("times", "more", "said"),
    [
        (["10:00:00"], {}, "'10:00:00': a time of day has no date.*date: "),
        (["06/01/2026 9:05 PM"], {}, r"timestamp_format, e\.g\. '%m/%d/%Y %I:%M %p'"),
        (["31.12.2025 21:05:01"], {}, r"timestamp_format, e\.g\. '%d\.%m\.%Y %H:%M:%S'"),
        (["soon"], {"timestamp_format": "%Y"}, "does not fit events.timestamp_format: %Y"),
        ([1_780_308_000], {"timestamp_unit": "ms"}, "timestamp_unit='ms' it lies before 1971"),
        (["yesterday" * 60], {}, r"yest\w*\.\.\..*write ISO 8601"),
        ([0], {}, "'0': as a number since 1970 it lies before 1971"),
        (["Jun 08, 2026 12:59 PM"], {}, r"ISO 8601\. Set .*'%b %d, %Y %I:%M %p'"),
        (["Wed, 03 Jun 2026 19:43:10 GMT"], {}, r"'%a, %d %b %Y %H:%M:%S %Z'"),
        (["08/Jun/2026:19:42:20 +0000"], {}, r"'%d/%b/%Y:%H:%M:%S %z'"),
        (["Wed Jun 03 19:43:10 UTC 2026"], {}, r"'%a %b %d %H:%M:%S %Z %Y'"),
        (["08-Jun-26 12.59.39.000000 PM"], {}, r"'%d-%b-%y %I\.%M\.%S\.%f %p'"),
        (["2026-06-08 19.42.20"], {}, r"'%Y-%m-%d %H\.%M\.%S'"),
        (["2099-06-08 19:42:20"], {}, "lies after tomorrow"),
    ],
)
@pytest.mark.parametrize("pattern", ["log.csv", "{date}.csv"])
def test_a_log_without_usable_times_says_why(
    tmp_path: Path, times: list, more: dict, said: str, pattern: str
) -> None:
    path = tmp_path / pattern.format(date=DAY)
    events_frame(times * 20).to_csv(path, index=False)
    source = opened(tmp_path, events=section(pattern, **more))
    with pytest.raises(ValueError, match=rf"{path.name}: column 'ts' holds no.*{said}") as error:
        source.require_times(DAY)
    assert len(str(error.value)) < 700
    if pattern == "log.csv":
        with pytest.raises(ValueError, match=said):
            _ = opened(tmp_path, events=section(pattern, **more)).first_day


def test_a_log_of_no_row_at_all(tmp_path: Path) -> None:
    events_frame([]).to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(ValueError, match=r"path='log\.csv': no row has a time.*without rows\?"):
        _ = opened(tmp_path, events=section("log.csv")).first_day


def test_any_file_system_and_any_file_name(tmp_path: Path) -> None:
    import fsspec

    path = tmp_path / "log [1] 'x' ;.parquet"
    events_frame([NOON_MS], **{"a \"b' ; c": 1}).to_parquet(path)
    fsspec.filesystem("memory").pipe_file("/own/log.parquet", path.read_bytes())
    for url in (path.name, "memory://own/log.parquet", "memory://own", "memory://own/*.parquet"):
        table = opened(tmp_path, events=section(url)).events(DAY)
        assert table["event_time"].to_pylist() == [NOON]


@pytest.mark.parametrize("left", [30, 200])
def test_a_truncated_parquet_file_is_named(tmp_path: Path, left: int) -> None:
    path = tmp_path / "log.parquet"
    events_frame([NOON_MS]).to_parquet(path)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ValueError, match=r"log\.parquet: cannot be read as Parquet.*copy it again"):
        opened(tmp_path, events=section("log.parquet"))


def test_damage_inside_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    frame = events_frame(list(range(NOON_MS, NOON_MS + 5_000)), play_ms=np.arange(5_000) % 977)
    frame.to_parquet(path)
    content = bytearray(path.read_bytes())
    content[8:4_000] = b"\xff" * 3_992
    path.write_bytes(bytes(content))
    source = opened(tmp_path, events=section("log.parquet"), first_day=DAY, last_day=DAY)
    with pytest.raises(ValueError, match=r"log\.parquet: cannot be read"):
        source.events(DAY)
    (tmp_path / "log.csv").write_text("uid,vid,ts,play_ms,liked\n1,2,3,4,0\n1,2\n")
    source = opened(tmp_path, events=section("log.csv"), first_day=DAY, last_day=DAY)
    with pytest.raises(ValueError, match=r"log\.csv: row 3 .* has 2 columns, the header 5"):
        source.events(DAY)


@pytest.mark.parametrize(
    "text",
    [
        "Jun 02, 2026 12:59 PM",
        "Tue, 02 Jun 2026 12:59:00 GMT",
        "02/Jun/2026:12:59:00 +0000",
        "Tue Jun 02 12:59:00 UTC 2026",
        "02-Jun-26 12.59.00.000000 PM",
        "2026-06-02 12.59.00",
        "2 June 2026 12:59:00",
        "02-Jun-2026 12:59",
        "02.06.2026 12:59",
    ],
)
def test_the_format_that_a_message_proposes_reads_the_value(tmp_path: Path, text: str) -> None:
    events_frame([text] * 3).to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(ValueError, match=r"timestamp_format, e\.g\. '") as error:
        _ = opened(tmp_path, events=section("log.csv")).first_day
    proposed = str(error.value).split("e.g. '")[1].rstrip("'")
    source = opened(tmp_path, events=section("log.csv", timestamp_format=proposed))
    times = source.events(date(2026, 6, 2))["event_time"].to_pylist()
    assert times == [datetime(2026, 6, 2, 12, 59, tzinfo=UTC)] * 3


def test_column_names_count_without_case_and_blanks_unless_they_are_mapped(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {" User_ID": ["a"], "ITEM_ID ": ["x"], "Event_Time": [NOON_MS], "Watch_Seconds": [2.5]}
    )
    frame["Is_Like"] = 1
    frame.to_csv(tmp_path / "log.csv", index=False)
    (row,) = opened(tmp_path, events={"path": "log.csv"}).events(DAY).to_pylist()
    assert (row["user_id"], row["item_id"], row["watch_seconds"]) == ("a", "x", 2.5)
    assert row["is_like"]
    mapped = {"path": "log.csv", "columns": {"user_id": "user_id"}}
    with pytest.raises(ValueError, match="Names count to the letter: it is ' User_ID' there"):
        opened(tmp_path, events=mapped)


def test_columns_that_differ_in_case_only_are_not_guessed(tmp_path: Path) -> None:
    frame = pd.DataFrame({"User_ID": ["a"], "USER_ID": ["b"], "item_id": ["x"]})
    frame.assign(event_time=NOON_MS, watch_seconds=2.5).to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(ValueError, match=r"user_id=None: .*each of 'USER_ID', 'User_ID': name"):
        opened(tmp_path, events={"path": "log.csv"})
    named = {"path": "log.csv", "columns": {"user_id": "User_ID"}}
    assert opened(tmp_path, events=named).events(DAY)["user_id"].to_pylist() == ["a"]


@pytest.mark.parametrize("path", ["log/*.csv", "log/{date}.csv", "log", "log/2026-03-02.csv"])
def test_directories_with_brackets_in_their_names(tmp_path: Path, path: str) -> None:
    home = tmp_path / "data [v2]" / "a*b"
    (home / "log").mkdir(parents=True)
    events_frame([NOON_MS]).to_csv(home / "log" / "2026-03-02.csv", index=False)
    assert len(opened(home, events=section(path)).events(DAY)) == 1


def test_ids_of_bytes_stay_apart_and_ids_of_several_fields_are_refused(tmp_path: Path) -> None:
    table = pa.table(
        {
            "user_id": pa.array([b"\xff\x01", b"\xfe\x01", b"plain"]),
            "item_id": ["x"] * 3,
            "event_time": [NOON] * 3,
            "watch_seconds": pa.array([timedelta(seconds=5)] * 3, pa.duration("ms")),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    found = opened(tmp_path, events={"path": "log.parquet"}).events(DAY)
    assert found["user_id"].to_pylist() == ["ff01", "fe01", "plain"]
    assert found["watch_seconds"].to_pylist() == [5.0] * 3  # a time span, not 5,000 of something
    nested = table.set_column(1, "item_id", pa.array([{"id": 1}] * 3))
    pq.write_table(nested, tmp_path / "log.parquet")
    source = opened(tmp_path, events={"path": "log.parquet"})
    with pytest.raises(ValueError, match=r"column 'item_id' is no id but a STRUCT.*of its own"):
        source.events(DAY)


def test_days_that_the_path_does_not_write_are_named(tmp_path: Path) -> None:
    for name in ("2026-03-02", "2026-3-3"):
        path = tmp_path / "log" / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        events_frame([NOON_MS]).to_csv(path, index=False)
    source = opened(tmp_path, events=section("log/{date}.csv"))
    (note,) = [n for n in source.notes() if "hold no day" in n]
    assert "2026-3-3.csv" in note
    assert "{date:%-m}" in note
    with pytest.raises(ValueError, match=r"no file's path holds a day as it is written.*%-m"):
        opened(tmp_path, events=section("log/{date:%Y%m%d}.csv"))


def test_a_second_format_of_times_is_proposed_beside_the_first_and_works(tmp_path: Path) -> None:
    both = [NOON.isoformat(), "02.03.2026 12:00:00"]
    events_frame(both).to_csv(tmp_path / "log.csv", index=False)
    (note,) = [n for n in opened(tmp_path, events=section("log.csv")).notes() if "rejected" in n]
    assert "1 of 2 rows are rejected" in note
    assert "['iso', '%d.%m.%Y %H:%M:%S']" in note
    formats = ["iso", "%d.%m.%Y %H:%M:%S"]
    source = opened(tmp_path, events=section("log.csv", timestamp_format=formats))
    assert source.events(DAY)["event_time"].to_pylist() == [NOON, NOON]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("46083.5", "spreadsheet's number of a day it is 2026-03-02"),
        ("2026-03-02 12:00:00 BST", "the zone 'BST' is not known, or means several"),
        ("02/03/2026, 12:00:00", r"e\.g\. '%m/%d/%Y, %H:%M:%S'"),
        ("[02/Mar/2026:12:00:00 +0000]", r"e\.g\. '\[%d/%b/%Y:%H:%M:%S %z\]'"),
        ("2026-061", "'%Y-%j'"),
        ("ts", "the header stands again among the rows"),
    ],
)
def test_times_of_other_programs_are_known_by_their_look(
    tmp_path: Path, value: str, said: str
) -> None:
    events_frame([value] * 2).to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(ValueError, match=rf"log\.csv: .*{said}"):
        opened(tmp_path, events=section("log.csv")).require_times()


def test_a_column_whose_name_is_a_time_is_warned_about(tmp_path: Path) -> None:
    times = [f"2026-03-02T{hour}:00:00Z" for hour in (10, 11, 12)]
    frame = events_frame(times, liked="no")
    frame.to_csv(tmp_path / "log.csv", index=False, header=False)
    names = {"user_id": "0", "item_id": "100", "event_time": times[0]}
    source = opened(tmp_path, events={"path": "log.csv", "columns": names})
    (note,) = [n for n in source.notes() if "no header" in n]
    assert "log.csv: a column is called '0', which is a value" in note
    assert "events.names: [...]" in note
    columns = {"user_id": "uid", "item_id": "vid", "event_time": "ts"}
    named = {"path": "log.csv", "columns": columns, "names": [*columns.values(), "ms", "like"]}
    assert not [n for n in opened(tmp_path, events=named).notes() if "no header" in n]


def test_numbers_of_another_epoch_are_warned_about(tmp_path: Path) -> None:
    ticks = 621_355_968_000_000_000 + NOON_MS * 10_000  # .NET
    events_frame([ticks]).to_csv(tmp_path / "log.csv", index=False)
    (note,) = [n for n in opened(tmp_path, events=section("log.csv")).notes() if "ends on" in n]
    assert "the log ends on 1989" in note or "the log ends on 1990" in note


def test_a_whole_file_of_another_unit_is_named_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    events_frame([NOON_MS]).to_csv(tmp_path / "log" / "a.csv", index=False)
    events_frame([NOON_MS // 1000]).to_csv(tmp_path / "log" / "b.csv", index=False)
    source = opened(tmp_path, events=section("log", timestamp_unit="ms"))
    (note,) = [n for n in source.notes() if "rejected" in n]
    assert "1 of 1 rows" in note
    assert "b.csv" in note


def test_flags_of_a_language_and_event_types_of_numbers(tmp_path: Path) -> None:
    events_frame([NOON_MS] * 2, liked=["ja", "nein"], kind=[3.0, 1.0]).to_csv(
        tmp_path / "log.csv", index=False
    )
    columns = MAPPING | {
        "is_like": {"column": "liked", "true_values": ["ja"]},
        "event_type": "kind",
    }
    source = opened(
        tmp_path,
        events={"path": "log.csv", "columns": columns},
        feedback={"kind": "shop", "watched": {"event_type": [3]}},
    )
    landed = source.events(DAY)
    assert landed["is_like"].to_pylist() == [True, False]
    assert landed["event_type"].to_pylist() == ["3", "1"]
    assert source.log.feedback.watched[0].event_type == ("3",)


def test_lists_are_no_ids(tmp_path: Path) -> None:
    frame = events_frame([NOON_MS], vid=[["a", "b"]])
    frame.to_parquet(tmp_path / "log.parquet")
    source = opened(tmp_path, events=section("log.parquet"))
    with pytest.raises(ValueError, match=r"column 'vid' is no id but a list.*a row for each"):
        source.events(DAY)


def test_lines_before_the_header_are_skipped(tmp_path: Path) -> None:
    text = events_frame([NOON_MS]).to_csv(index=False)
    (tmp_path / "log.csv").write_text(f"\nReport of today\n\n{text}")
    with pytest.raises(ValueError, match=r"header seems to be line 2 with text: set skip_rows: 1"):
        opened(tmp_path, events=section("log.csv"))
    assert len(opened(tmp_path, events=section("log.csv", skip_rows=1)).events(DAY)) == 1


def test_a_catalogue_beside_the_events_is_named(tmp_path: Path) -> None:
    events_frame([NOON_MS]).to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "b.csv").write_text("sku,title\n1,x\n")
    with pytest.raises(ValueError, match=r"b\.csv: no column 'uid'.*name only those there"):
        opened(tmp_path, events=section("*.csv"))
