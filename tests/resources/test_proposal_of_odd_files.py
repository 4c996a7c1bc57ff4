"""`make init` on files as exports, lakes and spreadsheets write them: its proposal reads them."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from onerec.config import SettingError
from resources.file_source import FileSource
from resources.proposal.yaml_file import propose
from tests.resources.own_files import kept_text
from tests.resources.test_proposal import columns, opened, proposed

FIRST = datetime(2025, 6, 1, 9, 5, tzinfo=UTC)
TIMES = [FIRST + timedelta(hours=7 * k) for k in range(40)]  # to 2025-06-12
DAYS = range((TIMES[-1].date() - FIRST.date()).days + 1)
ITEMS = [f"i{k}" for k in range(7)]


def log(**more: Any) -> pd.DataFrame:
    users, items = [f"u{k % 9}" for k in range(40)], [ITEMS[k % 7] for k in range(40)]
    return pd.DataFrame({"user_id": users, "item_id": items, "event_time": TIMES}).assign(**more)


def texts(time_format: str) -> list[str]:
    return [t.strftime(time_format) for t in TIMES]


def write(directory: Path, frame: pd.DataFrame, name: str = "events.csv", **style: Any) -> None:
    path = directory / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, **style)


def catalogue(titles: list[str] | None = None) -> pd.DataFrame:
    titles = titles or [f"title {k}" for k in range(7)]
    return pd.DataFrame({"item_id": ITEMS, "title": titles})


def landed(source: FileSource) -> list[dict[str, Any]]:
    """Rows of all days, of which none could not be read."""
    assert source.first_day == FIRST.date()
    assert source.last_day == TIMES[-1].date()
    tables = [source.events(source.first_day + timedelta(days=n)) for n in DAYS]
    assert not [values for table in tables for values in kept_text(table) if values]
    return [row for table in tables for row in table.to_pylist()]


NO_TIME = log().drop(columns="event_time")
TIME_OF_DAY = [
    ("%Y-%m-%d", "%H:%M:%S", "time"),
    ("%Y%m%d", "%-H%M", "hourmin"),  # 905 is 09:05
    ("%d.%m.%Y", "%I:%M %p", "time"),
]


@pytest.mark.parametrize(("day", "clock", "name"), TIME_OF_DAY)
def test_a_date_and_a_time_of_day_in_two_columns(
    tmp_path: Path, day: str, clock: str, name: str
) -> None:
    write(tmp_path, NO_TIME.assign(**{"date": texts(day), name: texts(clock)}))
    found = proposed(tmp_path)
    assert columns(found["events"])["event_time"] == {"column": name, "date": "date"}
    assert "stages" not in found  # with a time of day, sessions are cut at gaps
    assert [row["event_time"] for row in landed(opened(tmp_path))] == TIMES


def test_the_hour_in_a_column_and_the_day_in_the_path(tmp_path: Path) -> None:
    for day in {t.date() for t in TIMES}:
        rows = [k for k, t in enumerate(TIMES) if t.date() == day]
        hours = [TIMES[k].hour for k in rows]
        write(tmp_path, NO_TIME.iloc[rows].assign(hour=hours), f"log/dt={day}/part-0.parquet")
    found = proposed(tmp_path)
    assert found["events"]["path"] == "data/log/dt={date}/part-0.parquet"
    assert columns(found["events"])["event_time"] == {"column": "hour", "date": "dt"}
    assert [row["event_time"] for row in landed(opened(tmp_path))] == [
        t.replace(minute=0) for t in TIMES
    ]


@pytest.mark.parametrize(
    ("time_format", "proposal", "is_guess"),
    [
        ("%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M", True),  # as %m/%d it would be a log of eleven months
        ("%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M", True),
        ("%d.%m.%y %H:%M", "%d.%m.%y %H:%M", False),
        ("%a %b %d %H:%M:%S +0000 %Y", "%a %b %d %H:%M:%S %z %Y", False),
        ("%Y-%m-%d %H:%M:%S.000+00", None, False),
    ],
)
def test_times_in_words(
    tmp_path: Path, time_format: str, proposal: str | None, is_guess: bool
) -> None:
    early = log(event_time=texts(time_format))
    write(tmp_path, early)
    assert proposed(tmp_path)["events"].get("timestamp_format") == proposal
    assert [row["event_time"] for row in landed(opened(tmp_path))] == TIMES
    text = (tmp_path / "my_data.yaml").read_text()
    assert ("could be the other way round" in text) == is_guess
    assert ("name no zone" in text) == ("%z" not in time_format and "+00" not in time_format)


def test_times_of_several_styles_in_one_column(tmp_path: Path) -> None:
    seconds = [str(t.timestamp()) for t in TIMES]
    styles = [seconds, texts("%a, %d %b %Y %H:%M:%S GMT"), texts("%Y-%m-%d %H:%M:%S,000+00")]
    write(tmp_path, log(event_time=[styles[k % 3][k] for k in range(40)]))
    events = proposed(tmp_path)["events"]
    assert events["timestamp_format"] == ["%a, %d %b %Y %H:%M:%S %Z", "iso"]
    assert [row["event_time"] for row in landed(opened(tmp_path))] == TIMES


@pytest.mark.parametrize(
    "time_format", ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S UTC", "%m/%d/%Y %I:%M:%S %p"]
)
def test_a_first_row_with_a_time_is_no_header(tmp_path: Path, time_format: str) -> None:
    write(tmp_path, log(event_time=texts(time_format)), header=False)
    found = proposed(tmp_path)["events"]
    assert found["names"] == ["column_1", "column_2", "column_3"]
    assert [row["event_time"] for row in landed(opened(tmp_path))] == TIMES


@pytest.mark.parametrize(
    "header", [[], ["user_id", "item_id", "event_time"], ["userId", "movie", "time"]]
)
def test_cells_parted_by_two_colons(tmp_path: Path, header: list[str]) -> None:
    rows = log(event_time=[int(t.timestamp()) for t in TIMES]).astype(str).to_numpy().tolist()
    (tmp_path / "data").mkdir()
    lines = ["::".join(row) for row in ([header] if header else []) + rows]
    (tmp_path / "data" / "log.dat").write_text("\n".join(lines))
    (tmp_path / "data" / "README").write_text("of movies")
    with pytest.raises(SettingError, match=r"name them: make init DATA='.*data/\*\.dat'"):
        propose(str(tmp_path / "data"), tmp_path)
    events = proposed(tmp_path, "data/*.dat")["events"]
    user, item, time = header or ["column_1", "column_2", "column_3"]
    assert (events["format"], events["delimiter"]) == ("csv", ":")
    assert events["names"] == [user, "_1", item, "_2", time]
    assert columns(events) == {"user_id": user, "item_id": item, "event_time": time}
    assert [row["event_time"] for row in landed(opened(tmp_path))] == TIMES


def test_a_colon_in_a_cell_between_two_colons_names_what_to_do(tmp_path: Path) -> None:
    write(tmp_path, log())
    titles = [f"{k}::Title {k}{': more' if k == 5 else ''}::Drama" for k in range(9)]
    (tmp_path / "data" / "movies.txt").write_text("\n".join(titles))
    (note,) = [n for n in propose(str(tmp_path / "data"), tmp_path).notes if "movies.txt" in n]
    assert "put another delimiter between the cells, sed 's/::/\\t/g'" in note


@pytest.mark.parametrize(
    ("style", "proposal"),
    [
        ({"sep": "^"}, {"delimiter": "^"}),
        ({"sep": "\x01"}, {"delimiter": "\x01"}),
        ({"encoding": "utf-16-le"}, {"encoding": "utf-16-le"}),
        ({"encoding": "latin-1"}, {"encoding": "cp1252"}),
        ({"doublequote": False, "escapechar": "\\"}, {"escape": "\\"}),
    ],
)
def test_how_a_csv_file_is_written(
    tmp_path: Path, style: dict[str, str], proposal: dict[str, str]
) -> None:
    titles = [f'der "erste", \u00fcber {k}' for k in range(7)]
    write(tmp_path, log())
    write(tmp_path, catalogue(titles), "items.csv", **style)
    items = proposed(tmp_path)["items"]
    assert {key: items.get(key) for key in ("delimiter", "encoding", "escape")} == (
        {"delimiter": None, "encoding": None, "escape": None} | proposal
    )
    source = opened(tmp_path)
    assert source.items(source.first_day)["title"].to_pylist() == titles


@pytest.mark.parametrize(
    ("before", "number"),
    [
        ("sep=;\n", 1),
        ("# of the shop; June\n# ---\n\n", 2),
        ("Report of June\n\nall shops\n", 2),
        ("#", 0),  # before the name of the first column
    ],
)
def test_lines_before_the_table(tmp_path: Path, before: str, number: int) -> None:
    write(tmp_path, log().rename(columns={"user_id": "user"}), sep=";")
    path = tmp_path / "data" / "events.csv"
    path.write_text(before + path.read_text())
    assert proposed(tmp_path)["events"].get("skip_rows", 0) == number
    assert len(landed(opened(tmp_path))) == len(TIMES)


def test_quotes_that_are_text(tmp_path: Path) -> None:
    write(tmp_path, log())
    titles = ['"Heroes', *(f"title {k}" for k in range(6))]
    rows = [f"{i}\t{title}" for i, title in zip(ITEMS, titles, strict=True)]
    (tmp_path / "data" / "items.tsv").write_text("\n".join(["item_id\ttitle", *rows]))
    assert proposed(tmp_path)["items"]["quote"] == ""
    source = opened(tmp_path)
    assert source.items(source.first_day)["title"].to_pylist() == titles


WATCHED = [1200.5 + 7 * k for k in range(40)]


@pytest.mark.parametrize(
    ("numbers", "delimiter", "decimal", "rating"),
    [
        ([f"{w:.1f}".replace(".", ",") for w in WATCHED], ";", ",", None),
        ([f"{w:.3f}".replace(".", ",") for w in WATCHED], ";", ",", None),
        ([f"{w:,.1f}" for w in WATCHED], ",", ".", None),
        ([f"{w:,.1f}".replace(",", "\u202f").replace(".", ",") for w in WATCHED], ";", ",", None),
        ([f"{w:,.1f}".replace(",", "\u00a0") for w in WATCHED], ",", ".", None),
        ([f"{w:,.1f}".replace(",", "'") for w in WATCHED], ",", ".", None),
    ],
)
def test_numbers_with_commas(
    tmp_path: Path, numbers: list[str], delimiter: str, decimal: str, rating: None
) -> None:
    write(tmp_path, log(watch_seconds=numbers), sep=delimiter)
    assert proposed(tmp_path)["events"]["decimal"] == decimal
    assert [row["watch_seconds"] for row in landed(opened(tmp_path))] == WATCHED


@pytest.mark.parametrize(
    ("written", "scale", "stars"),
    [
        (["4.5/5", "2/5"], None, [4.5, 2.0]),
        (["\u2605" * 4 + "\u2606", "\u2605" * 2], None, [4.0, 2.0]),
        (["4.0 out of 5 stars", "1.0 out of 5 stars"], None, [4.0, 1.0]),
        (["80%", "100%"], 0.05, [4.0, 5.0]),
        ([8, 10], 0.5, [4.0, 5.0]),
    ],
)
def test_ratings_on_other_scales_and_in_words(
    tmp_path: Path, written: list[Any], scale: float | None, stars: list[float]
) -> None:
    write(tmp_path, log(rating=[written[k % 2] for k in range(40)]))
    source = columns(proposed(tmp_path)["events"])["rating"]
    assert source == ("rating" if scale is None else {"column": "rating", "scale": scale})
    assert [row["rating"] for row in landed(opened(tmp_path))][:2] == pytest.approx(stars)


def test_thumbs_say_what_is_positive(tmp_path: Path) -> None:
    write(tmp_path, log(rating=[(1, -1)[k % 2] for k in range(40)]))
    found = proposed(tmp_path)["feedback"]
    assert found["positive"] == found["watched"] == {"rating_at_least": 1}
    assert found["negative"] == {"rating_below": 0}
    assert [signal.name for signal in opened(tmp_path).log.feedback.signals] == ["liked"]


def test_a_column_that_does_not_fit_its_name_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, log(rating=["good", "bad", "fair", "none"] * 10))
    assert columns(proposed(tmp_path)["events"])["rating"] is None
    assert opened(tmp_path).log.feedback.kind == "actions"
    assert len(landed(opened(tmp_path))) == 40


def test_codes_of_events_are_left_to_the_user(tmp_path: Path) -> None:
    write(tmp_path, log(behavior_type=[1 + k % 4 for k in range(40)]))
    assert "event_type" not in columns(proposed(tmp_path)["events"])
    text = (tmp_path / "my_data.yaml").read_text()
    assert "# event_type: behavior_type # 4 different values, e.g. 1, 2, 3: if these are" in text


def test_words_of_events_are_seen_without_a_header(tmp_path: Path) -> None:
    kinds, groups = ["pv", "cart", "pv", "buy"], [k % 5 for k in range(40)]
    frame = log(group=groups, kind=[kinds[k % 4] for k in range(40)])
    seconds = [int(t.timestamp()) for t in TIMES]
    order = ["user_id", "item_id", "group", "kind", "event_time"]
    write(tmp_path, frame.assign(event_time=seconds)[order], header=False)
    events = columns(proposed(tmp_path)["events"])
    assert events["event_type"] == "column_4"
    assert "rating" not in events  # the group: few numbers of which some are 4


def test_a_catalogue_with_duplicates_beside_vectors_as_text(tmp_path: Path) -> None:
    write(tmp_path, log())
    write(tmp_path, pd.concat([catalogue(), catalogue()[:3]]), "items.csv")
    vectors = [json.dumps([0.25 * k, 1.0, -3.5, 1e-3, 12345.678, 7.0]) for k in range(7)]
    write(tmp_path, pd.DataFrame({"item_id": ITEMS, "emb": vectors}), "vectors.csv")
    found = proposed(tmp_path)
    assert found["items"]["path"] == "data/items.csv"
    assert columns(found["item_vectors"]) == {"item_id": "item_id", "vector": "emb"}
    assert "7 of them are in the first rows" in (tmp_path / "my_data.yaml").read_text()
    read = opened(tmp_path).item_vectors()
    assert read is not None
    assert read["vector"].to_pylist()[1][:3] == [0.25, 1.0, -3.5]


def test_of_daily_vectors_the_newest_are_named(tmp_path: Path) -> None:
    write(tmp_path, log())
    for day in (1, 2):
        vectors = pd.DataFrame({"item_id": ITEMS, "emb": [[0.5, float(day)]] * 7})
        write(tmp_path, vectors, f"vectors/2025-06-0{day}.parquet")
    assert proposed(tmp_path)["item_vectors"]["path"] == "data/vectors/2025-06-02.parquet"
    read = opened(tmp_path).item_vectors()
    assert read is not None
    assert read["vector"].to_pylist() == [[0.5, 2.0]] * 7


@pytest.mark.parametrize("ids", [lambda k: float(k), lambda k: f"{k}.0"])
def test_ids_that_a_gap_made_floats_meet_those_of_the_catalogue(
    tmp_path: Path, ids: Callable[[int], Any]
) -> None:
    write(tmp_path, log(item_id=[ids(k % 7) for k in range(40)]))
    write(tmp_path, pd.DataFrame({"item_id": range(7), "title": "a title"}), "items.csv")
    assert proposed(tmp_path)["items"]["path"] == "data/items.csv"
    source = opened(tmp_path)
    assert {row["item_id"] for row in landed(source)} == {*map(str, range(7))}


def test_exports_of_mongodb(tmp_path: Path) -> None:
    path = tmp_path / "data" / "events.jsonl"
    path.parent.mkdir()
    lines = [
        {"_id": {"$oid": f"{k:024x}"}, "userId": {"$oid": user}, "itemId": {"$oid": item},
         "at": {"$date": time.isoformat()}}
        for k, (user, item, time) in enumerate(log().itertuples(index=False))
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, lines)))
    found = columns(proposed(tmp_path)["events"])
    assert found["item_id"] == "itemId.$oid"
    assert len(landed(opened(tmp_path))) == 40


def test_a_catalogue_with_a_column_of_vectors_is_both(tmp_path: Path) -> None:
    write(tmp_path, log())
    vectors = pd.Series([[0.5, float(k)] if k else [] for k in range(7)])
    write(tmp_path, catalogue().assign(emb=vectors), "items.parquet")
    found = proposed(tmp_path)
    assert columns(found["items"]) == {"item_id": "item_id", "title": "title"}
    assert found["item_vectors"]["path"] == found["items"]["path"] == "data/items.parquet"
    assert columns(found["item_vectors"]) == {"item_id": "item_id", "vector": "emb"}
    assert "not used" not in (tmp_path / "my_data.yaml").read_text()
    read = opened(tmp_path).item_vectors()
    assert read is not None
    assert len(read) == 7


@pytest.mark.parametrize(
    "lists",
    [
        ["['a','b']", "[]"] * 4,
        ["[]"] * 8,
        ["[1, 2]", "[3]", "[1, 4, 5]", "[2, 3]"] * 2,  # of ids: a vector has one length
    ],
)
def test_lists_that_are_no_vectors_leave_a_catalogue_as_it_is(
    tmp_path: Path, lists: list[str]
) -> None:
    write(tmp_path, log())
    write(tmp_path, catalogue().assign(tags=lists[:7]), "items.csv")
    found = proposed(tmp_path)
    assert columns(found["items"])["title"] == "title"
    assert "item_vectors" not in found
    assert len(opened(tmp_path).items(FIRST.date())) == 7


def test_the_glob_of_some_files_finds_no_others(tmp_path: Path) -> None:
    write(tmp_path, log()[:20], "events_a.csv")
    write(tmp_path, log()[20:], "events_b.csv")
    write(tmp_path, catalogue(), "items.csv")
    (tmp_path / "data" / "latest.csv").symlink_to("events_b.csv")
    (tmp_path / "data" / "loop").symlink_to(".")
    assert proposed(tmp_path)["events"]["path"] == "data/events_*.csv"
    assert len(landed(opened(tmp_path))) == 40


def test_columns_that_are_called_alike_are_left_out(tmp_path: Path) -> None:
    frame = log(x=1, y=2)
    write(tmp_path, frame.rename(columns={"y": "x"}))
    assert columns(proposed(tmp_path)["events"])["user_id"] == "user_id"
    assert len(landed(opened(tmp_path))) == 40
    (note,) = propose(str(tmp_path / "data"), tmp_path).notes
    assert "several columns are called x: rename those you mean" in note
    write(tmp_path, NO_TIME.assign(x=1, y=2).rename(columns={"x": "user_id"}))
    with pytest.raises(SettingError, match="several columns are called user_id"):
        propose(str(tmp_path / "data"), tmp_path)


def test_a_header_among_the_rows_hides_no_flag(tmp_path: Path) -> None:
    write(tmp_path, log(is_like=[k % 2 for k in range(40)]))
    path = tmp_path / "data" / "events.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *rows[:20], header, *rows[20:]]))
    assert columns(proposed(tmp_path)["events"])["is_like"] == "is_like"


NESTED = log(user_id=[{"id": f"u{k % 9}"} for k in range(40)])
LISTS = log(item_id=[ITEMS[k % 5 : k % 5 + 2] for k in range(40)])


@pytest.mark.parametrize(
    ("name", "frame", "said"),
    [
        ("a.csv", log()[:0], "a.csv has a header and no row"),
        (
            "a.csv",
            log(event_time=[46_174.4 + k for k in range(40)]),
            r"no column that can be event_time: column 'event_time' holds '46\d+\.4': as a "
            "spreadsheet's number of a day it is 2026-",
        ),
        ("a.csv", log(event_time=texts("%H:%M")), "a time of day has no date"),
        (
            "a.csv",
            log(event_time=[f"week {k}" if k % 4 else str(t) for k, t in enumerate(TIMES)]),
            "25% of the values in column 'event_time' are times, and others are not, e.g. 'week ",
        ),
        ("a.csv", log(event_time=""), "column 'event_time' is empty"),
        (
            "a.parquet",
            NESTED,
            r"STRUCT\(id VARCHAR\): write the field that is it to a ",
        ),
        ("a.parquet", LISTS, r"VARCHAR\[\]: write a row for each element"),
    ],
)
def test_where_there_is_no_log_the_reason_is_named(
    tmp_path: Path, name: str, frame: pd.DataFrame, said: str
) -> None:
    write(tmp_path, frame, name)
    with pytest.raises(SettingError, match=said):
        propose(str(tmp_path / "data"), tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("log.jsonl", '{"user_id": 1}\n{"user_id"\n', "line 2 is no JSON record"),
        ("log.csv", '{"user_id": 1}', "is JSON: set format: json"),
        ("log.csv", "user_id,item_id,event_time\n1,2,3,\n", "rows end with a delimiter ','"),
        ("log.csv", "user_id,item_id,event_time\n1,2,3\n(1 row)\n", "it is no row of the table"),
    ],
)
def test_a_log_that_cannot_be_read_is_said_also_where_another_table_can(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    write(tmp_path, catalogue(), "items.csv")
    (tmp_path / "data" / name).write_text(content)
    with pytest.raises(SettingError, match=said):
        propose(str(tmp_path / "data"), tmp_path)
