"""Days that no run has ingested: the next run for a single day lands and builds them first."""

import dataclasses
from datetime import date
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from assets import raw, sessions
from onerec.config import SessionConfig
from tests.sql import delivered, random_log
from tests.sql.test_session_sql import examples, expected

FIRST, SKIPPED, ALSO_SKIPPED, LAST = random_log.DAYS
INGEST = [raw.raw_events, raw.raw_items, sessions.session_sql]


def read(home: Path, query: str) -> list[tuple]:
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        return connection.sql(query).fetchall()


def recorded(result: dg.ExecuteInProcessResult, asset: str) -> list[date]:
    """Days of which the run recorded a partition of an asset."""
    key = dg.AssetKey(asset)
    events = [e for e in result.all_events if e.is_step_materialization and e.asset_key == key]
    return sorted(date.fromisoformat(str(e.partition)) for e in events)


def night(
    home: Path, day: date, window_days: int = 13, settings: SessionConfig = random_log.CONFIG
) -> dg.ExecuteInProcessResult:
    config = random_log.run_config(settings).to_config_dict()["ops"]
    config["session_sql"]["config"]["window_days"] = window_days
    window = {"config": {"window_days": window_days}}
    config |= {"raw_events": window, "raw_items": window}
    return delivered.materialize(home, INGEST, day, config=dg.RunConfig(config))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A home where the log lies, and nothing was ingested."""
    for name, rows in random_log.deliveries().items():
        delivered.deliver(tmp_path / "delivered", name, rows)
    delivered.materialize(tmp_path, [raw.raw_prior_history], None)
    return tmp_path


@pytest.fixture
def home(log: Path) -> Path:
    """The same with the first day ingested."""
    night(log, FIRST)
    return log


def test_skipped_days_are_landed_and_built_by_the_next_night(home: Path) -> None:
    result = night(home, LAST)
    whole = delivered.built_home()
    for query in (
        "from session_examples order by session_id",
        "from rejected_events order by all",
        "from stg_items order by item_id, valid_from",
        "from session_days order by session_date",
    ):
        assert read(home, query) == read(whole, query), query
    for asset in ("raw_events", "raw_items"):
        assert recorded(result, asset) == [SKIPPED, ALSO_SKIPPED, LAST], asset
    for asset in ("base_events", "sessions", "session_days"):  # late rows reopened the first day
        assert recorded(result, asset) == [FIRST, SKIPPED, ALSO_SKIPPED, LAST], asset


def test_days_before_the_window_stay_out(log: Path) -> None:
    result = night(log, LAST, window_days=2)
    assert recorded(result, "raw_events") == [SKIPPED, ALSO_SKIPPED, LAST]
    assert recorded(result, "sessions") == [SKIPPED, ALSO_SKIPPED, LAST]
    days = read(log, "select distinct session_date from sessions order by all")
    assert days == [(SKIPPED,), (ALSO_SKIPPED,), (LAST,)]


def test_a_day_without_sessions_is_built_too(home: Path) -> None:
    delivered.deliver(home / "delivered", f"events-{SKIPPED}", [])
    night(home, ALSO_SKIPPED)
    found = read(home, "select session_date, num_sessions > 0 from session_days order by all")
    assert found == [(FIRST, True), (SKIPPED, False), (ALSO_SKIPPED, True)]
    # nothing but the day that has late rows is left to be built by the next night
    assert recorded(night(home, LAST), "sessions") == [ALSO_SKIPPED, LAST]


def test_days_that_were_built_with_other_settings_are_built_again(home: Path) -> None:
    changed = dataclasses.replace(random_log.CONFIG, watched_min_seconds=5.0, session_gap_minutes=9)
    result = night(home, SKIPPED, settings=changed)
    assert recorded(result, "sessions") == [FIRST, SKIPPED]
    later = {f"events-{day}": [] for day in (ALSO_SKIPPED, LAST)}
    assert examples(home) == expected(changed, later)[0]
    assert recorded(night(home, SKIPPED, settings=changed), "sessions") == [SKIPPED]


def cut_off(file: Path) -> bytes:
    """Damage a file; what it held."""
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    return whole


def test_a_catalogue_that_comes_late_builds_its_day_again(home: Path) -> None:
    file = home / "delivered" / f"items-{SKIPPED}.parquet"
    whole = cut_off(file)
    result = night(home, ALSO_SKIPPED)
    assert recorded(result, "raw_items") == [ALSO_SKIPPED]
    assert SKIPPED in recorded(result, "sessions")  # events of its new items are rejected
    file.write_bytes(whole)
    assert SKIPPED in recorded(night(home, LAST), "sessions")
    for query in ("from session_examples order by session_id", "from rejected_events order by all"):
        assert read(home, query) == read(delivered.built_home(), query)


def test_a_damaged_day_stops_its_own_run_alone(home: Path) -> None:
    file = home / "delivered" / f"events-{SKIPPED}.parquet"
    whole = cut_off(file)
    result = night(home, ALSO_SKIPPED)
    assert recorded(result, "raw_events") == [ALSO_SKIPPED]
    assert recorded(result, "sessions") == [ALSO_SKIPPED]
    (check,) = [
        c
        for c in result.get_asset_check_evaluations()
        if (c.check_name, c.asset_key) == (raw.EARLIER_DAYS, dg.AssetKey("raw_events"))
    ]
    assert not check.passed
    assert f"{SKIPPED} could not be read" in str(check.description)
    own = delivered.materialize(home, INGEST, SKIPPED, succeeds=False)
    assert f"raw_events[{SKIPPED}]: the source could not deliver" in delivered.failures(own)
    # delivered again, it is landed and built by the next night
    file.write_bytes(whole)
    assert recorded(night(home, LAST), "raw_events") == [SKIPPED, LAST]
    assert read(home, "from session_examples order by session_id") == read(
        delivered.built_home(), "from session_examples order by session_id"
    )
