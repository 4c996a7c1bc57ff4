"""Own files through landing and session SQL: what is rejected and why, and ties in time."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
import yaml

from assets import raw, sessions
from assets.sessions import SessionLaunchpad
from resources.stores import Source
from tests.sql import delivered, random_log

DAYS = [date(2026, 6, 1), date(2026, 6, 2)]
HEADER = "user_id,item_id,event_time,watch_seconds,is_like\n"
TIES = [f"t,{item},2026-06-01 10:00:00,40,0" for item in ("zebra", "17.0", "ant", "yak")]
LOG = [
    *TIES,
    "nan,ant,2026-06-01 11:00:00,40,0",
    "u,None,2026-06-01 11:00:00,40,0",
    "u,ant,soon,40,0",
    "u,ant,1780308000,much,0",
    "u,ant,2026-06-01T11:00:00Z,-3,0",
    "u,ant,2026-06-02 01:00:00 UTC,40,perhaps",
    "u,018,2026-06-01 11:00:00,40,0",
    "u,ant,2026-06-01 12:00:00 PM,40,yes",
    "u,ant,2026-06-01 12:00:00,39,",
    "u,ant,2026-06-02 13:00:00+02:00,40,0",
    "u,17,20260602T110001Z,40,0",
]


def ingest(
    home: Path, settings: Mapping[str, Any] | None = None, **sections: Any
) -> dg.ExecuteInProcessResult:
    launchpad = SessionLaunchpad(**(asdict(random_log.CONFIG) | dict(settings or {})))
    config = home / "my.yaml"
    config.write_text(yaml.safe_dump(sections))
    own = Source(dataset="own", config=str(config))
    with warnings.catch_warnings():
        # dagster-dbt 0.29.27 uses what Dagster 1.13 deprecates
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        return dg.materialize(
            [raw.raw_events, raw.raw_items, raw.raw_prior_history, sessions.session_sql],
            resources=delivered.resources(home) | {"source": own},
            run_config=dg.RunConfig({"session_sql": launchpad}),
            tags={
                "dagster/asset_partition_range_start": str(DAYS[0]),
                "dagster/asset_partition_range_end": str(DAYS[-1]),
            },
            raise_on_error=False,
        )


def read(home: Path, query: str) -> list[tuple]:
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        return connection.sql(query).fetchall()


@pytest.fixture(scope="module")
def home() -> Path:
    home = delivered.temporary_home()
    (home / "log.csv").write_text(HEADER + "\n".join(LOG))
    (home / "items").mkdir()
    (home / "items" / "a.csv").write_text("item_id,duration_seconds\n17,50\nant,long\nyak,50\n,5\n")
    (home / "items" / "b.csv").write_text("item_id\nzebra\nant\n")
    result = ingest(home, events={"path": "log.csv"}, items={"path": "items"})
    assert result.success, delivered.failures(result)
    return home


def test_every_rejected_row_says_what_where_and_why(home: Path) -> None:
    found = read(
        home,
        "select reason, field, value, row_in_file from rejected_events order by row_in_file",
    )
    assert found == [
        ("missing user_id", "user_id", None, 5),
        ("missing item_id", "item_id", None, 6),
        ("event_time is not a timestamp", "event_time", "soon", 7),
        ("watch_seconds is not a number", "watch_seconds", "much", 8),
        ("watch_seconds is negative", "watch_seconds", "-3.0", 9),
        ("is_like is not a boolean", "is_like", "perhaps", 10),
        ("item_id is not in the catalogue of the day", "item_id", "018", 11),
        ("duplicate of another row: same user, item and event_time", None, None, 13),
    ]
    assert read(home, "select distinct file from rejected_events") == [(str(home / "log.csv"),)]
    assert read(home, "select count(*) from stg_events") == [(len(LOG) - len(found),)]


def test_rejected_items_too(home: Path) -> None:
    found = read(
        home,
        "select reason, field, value, file, row_in_file from rejected_items order by all",
    )
    items = str(home / "items" / "a.csv")
    assert found == [
        ("duration_seconds is not a number", "duration_seconds", "long", items, 2),
        ("missing item_id", "item_id", None, items, 4),
    ]
    # what another file says of the item is taken
    assert read(home, "select duration_seconds from stg_items where item_id = 'ant'") == [(None,)]


def test_ties_in_time_keep_the_delivered_order(home: Path) -> None:
    rows = read(
        home,
        "select item_id, place from int_events_sessionized where user_id = 't' order by position",
    )
    assert [item for item, _ in rows] == ["zebra", "17", "ant", "yak"]
    # a basket of one moment has no order: its targets are a seeded sample
    items = read(home, "select item_ids, target_item_ids from session_examples where user_id = 't'")
    shuffled = [item for item, _ in sorted(rows, key=lambda row: row[1])]
    assert items == [(shuffled, shuffled[:2])]


def test_spellings_of_a_time_are_one_moment(home: Path) -> None:
    found = read(
        home,
        "select event_time::varchar, event_date::varchar from stg_events "
        "where user_id = 'u' order by event_time",
    )
    assert found == [
        ("2026-06-01 12:00:00", "2026-06-01"),
        ("2026-06-02 11:00:00", "2026-06-02"),
        ("2026-06-02 11:00:01", "2026-06-02"),
    ]


def test_a_delivery_that_cannot_be_read_says_so_and_changes_nothing(
    home: Path, tmp_path: Path
) -> None:
    home = delivered.copy_of(home, tmp_path)
    before = read(home, "select count(*) from raw.raw_events")
    days = {"first_day": DAYS[0], "last_day": DAYS[1]}
    for rows, said in (
        ([row.replace("2026-06-01 ", "") for row in TIES * 5], "a time of day has no date"),
        ([*TIES, "1,2"], "row 6 (the header is row 1) has 2 columns, the header 5: '1,2'"),
    ):
        (home / "log.csv").write_text(HEADER + "\n".join(rows))
        result = ingest(home, events={"path": "log.csv"}, items={"path": "items"}, **days)
        assert not result.success
        message = delivered.failures(result)
        assert said in message
        assert str(home / "log.csv") in message
        assert read(home, "select count(*) from raw.raw_events") == before


def test_rows_of_units_are_one_event_where_they_are_declared_so() -> None:
    home = delivered.temporary_home()
    rows = [
        *("u,i,2026-06-01 10:00:00,9,", "u,i,2026-06-01 10:00:00,9,"),
        *("u,i,2026-06-01 10:00:00,9,3", "u,j,2026-06-01 10:00:00,9,2"),
        "v,i,2026-06-01 10:00:00,9,",
    ]
    header = "user_id,item_id,event_time,watch_seconds,quantity\n"
    (home / "log.csv").write_text(header + "\n".join(rows))
    assert ingest(home, {"same_moment": "add_up"}, events={"path": "log.csv"}).success
    found = read(home, "select user_id, item_id, quantity from stg_events order by all")
    assert found == [("u", "i", 5.0), ("u", "j", 2.0), ("v", "i", 1.0)]
    assert read(home, "select count(*) from rejected_events") == [(0,)]


def test_days_and_sessions_end_at_midnight_of_the_log_s_time_zone() -> None:
    home = delivered.temporary_home()
    times = [
        "2026-06-01 23:50:00",
        "2026-06-01 23:59:59",
        "2026-06-02 00:00:00",
        "2026-06-02 00:05",
    ]
    rows = [f"u,i{n},{time},40,0" for n, time in enumerate(times)]
    (home / "log.csv").write_text(HEADER + "\n".join(rows))
    assert ingest(home, events={"path": "log.csv"}, time_zone="Asia/Shanghai").success
    days = read(home, "select cast(event_date as varchar), count(*) from stg_events group by all")
    assert sorted(days) == [("2026-06-01", 2), ("2026-06-02", 2)]
    # 23:50 in Shanghai is 15:50 UTC; ten minutes of silence, and yet a session of its own
    sessions = "select cast(session_date as varchar), cast(started_at as varchar) from sessions"
    assert sorted(read(home, sessions)) == [
        ("2026-06-01", "2026-06-01 15:50:00"),
        ("2026-06-02", "2026-06-01 16:00:00"),
    ]
