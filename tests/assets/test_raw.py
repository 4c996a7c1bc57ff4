"""Ingest: what is delivered lands as it is, once, whatever is wrong with it."""

import json
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import duckdb
import pyarrow as pa
import pytest

from assets import raw
from onerec import schema
from resources.warehouse import Warehouse, WarehouseError
from tests.sql.delivered import deliver, failures, materialize

DAY, NEXT, THIRD = (date(2026, 6, d) for d in (1, 2, 3))
EVENT = {
    "user_id": "u",
    "item_id": "i",
    "event_time": "2026-06-01 10:00:00",
    "watch_seconds": "3",
}


def event(**changed: object) -> dict:
    return {**EVENT, **changed}


def read(home: Path, query: str) -> list[tuple]:
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        return connection.sql(query).fetchall()


def land_events(home: Path, rows: list[dict] | pa.Table, **options) -> dg.ExecuteInProcessResult:
    deliver(home / "delivered", f"events-{DAY}", rows)
    checks = dg.AssetSelection.assets(raw.raw_events)
    return materialize(home, checks, DAY, **options)


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict:
    (found,) = result.asset_materializations_for_node(asset)
    return {k: v.value for k, v in found.metadata.items()}


def test_columns_land_typed_and_absent_ones_as_null(tmp_path: Path) -> None:
    time = datetime(2026, 6, 1, 23, 30, 0, 5, tzinfo=UTC)
    table = pa.table(
        {
            "user_id": pa.array([7]),
            "item_id": pa.array(["a"]).dictionary_encode(),
            "event_time": pa.array([time], pa.timestamp("us", tz="Europe/Paris")),
            "watch_seconds": pa.array([0.1]),
            "is_like": pa.array([True]),
            "network": pa.array(["wifi"]),
        }
    )
    result = land_events(tmp_path, table)
    assert read(
        tmp_path,
        "select user_id, item_id, event_time, watch_seconds, is_like, is_share, unreadable, "
        "delivered_on, event_date from raw.raw_events",
    ) == [("7", "a", time.replace(tzinfo=None), 0.1, True, None, None, DAY, DAY)]
    found = metadata(result, "raw_events")
    assert found["ignored columns"] == "network"
    assert found["dagster/partition_row_count"] == 1


def test_of_values_that_do_not_fit_the_text_is_kept_and_of_them_only(tmp_path: Path) -> None:
    bad = event(watch_seconds="much", is_like="perhaps")
    rows = [event(is_like=None, is_share=None), bad, event(is_share="1")]
    land_events(tmp_path, rows)
    found = read(
        tmp_path,
        "select watch_seconds, is_like, is_share, unreadable from raw.raw_events "
        "order by delivered_row",
    )
    (good, bad, shared) = found
    assert (good, shared) == ((3.0, None, None, None), (3.0, None, True, None))
    assert bad[:3] == (None, None, None)
    kept = {name: value for name, value in json.loads(bad[3]).items() if value is not None}
    assert kept == {"watch_seconds": "much", "is_like": "perhaps"}


def test_a_missing_required_column_is_named_and_changes_nothing(tmp_path: Path) -> None:
    land_events(tmp_path, [event()])
    without = [{k: v for k, v in event().items() if k != "event_time"}]
    result = land_events(tmp_path, without, succeeds=False)
    message = failures(result)
    assert "'event_time' is missing" in message
    assert "column mapping" in message
    assert read(tmp_path, "select watch_seconds from raw.raw_events") == [(3.0,)]


def test_a_truncated_file_is_named_and_changes_nothing(tmp_path: Path) -> None:
    land_events(tmp_path, [event()])
    file = deliver(tmp_path / "delivered", f"events-{DAY}", [event(watch_seconds="9")] * 50)
    file.write_bytes(file.read_bytes()[:-20])
    result = materialize(tmp_path, [raw.raw_events], DAY, succeeds=False)
    assert f"raw_events[{DAY}]: the source could not deliver" in failures(result)
    assert read(tmp_path, "select watch_seconds from raw.raw_events") == [(3.0,)]


def test_a_second_delivery_replaces_the_first(tmp_path: Path) -> None:
    first, again = (land_events(tmp_path, [event(), event(item_id="j")]) for _ in range(2))
    # the order breaks ties in time, so that another order is another delivery
    turned = land_events(tmp_path, [event(item_id="j"), event()])
    corrected = land_events(tmp_path, [event(watch_seconds="4")])
    assert read(tmp_path, "select item_id, watch_seconds from raw.raw_events") == [("i", 4.0)]
    versions = [
        r.asset_materializations_for_node("raw_events")[0].tags["dagster/data_version"]
        for r in (first, again, turned, corrected)
    ]
    assert versions[0] == versions[1]
    assert len(set(versions)) == 3


def test_a_range_of_days_is_one_run(tmp_path: Path) -> None:
    for day in (DAY, NEXT):
        deliver(tmp_path / "delivered", f"events-{day}", [event(item_id=str(day))])
    materialize(tmp_path, [raw.raw_events], DAY, NEXT)
    assert read(tmp_path, "select item_id, delivered_on from raw.raw_events order by 2") == [
        (str(DAY), DAY),
        (str(NEXT), NEXT),
    ]


def test_an_empty_day_is_legal_and_flagged(tmp_path: Path) -> None:
    result = land_events(tmp_path, schema.EVENTS.empty_table())
    assert metadata(result, "raw_events")["empty days"] == str(DAY)
    checks = {c.check_name: c for c in result.get_asset_check_evaluations()}
    assert checks[raw.EARLIER_DAYS].passed
    check = checks["day_is_not_empty"]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN


def land_items(home: Path, day: date, titles: dict[str, str | None]) -> None:
    rows = [{"item_id": i, "title": t} for i, t in titles.items()]
    deliver(home / "delivered", f"items-{day}", rows)
    materialize(home, [raw.raw_items], day)


def catalogue(home: Path, day: date) -> dict[str, str | None]:
    rows = read(
        home,
        "select item_id, arg_max(title, delivered_on) from raw.raw_items "
        f"where delivered_on <= '{day}' group by item_id",
    )
    return dict(rows)


def test_only_changed_items_are_stored(tmp_path: Path) -> None:
    land_items(tmp_path, DAY, {"a": "1", "b": "1"})
    land_items(tmp_path, NEXT, {"a": "1", "b": "2", "c": "1"})
    land_items(tmp_path, THIRD, {"a": "1", "b": "1", "c": "1"})
    stored = read(tmp_path, "select delivered_on, item_id from raw.raw_items order by all")
    assert stored == [(DAY, "a"), (DAY, "b"), (NEXT, "b"), (NEXT, "c"), (THIRD, "b")]
    assert catalogue(tmp_path, NEXT) == {"a": "1", "b": "2", "c": "1"}
    assert catalogue(tmp_path, THIRD) == {"a": "1", "b": "1", "c": "1"}


def test_a_corrected_catalogue_leaves_later_days_as_delivered(tmp_path: Path) -> None:
    land_items(tmp_path, DAY, {"a": "1", "b": "1"})
    land_items(tmp_path, NEXT, {"a": "1", "b": "1"})
    land_items(tmp_path, THIRD, {"a": "1", "b": "1"})
    land_items(tmp_path, DAY, {"a": "corrected", "b": "1"})
    assert catalogue(tmp_path, DAY) == {"a": "corrected", "b": "1"}
    assert catalogue(tmp_path, NEXT) == {"a": "1", "b": "1"}
    assert catalogue(tmp_path, THIRD) == {"a": "1", "b": "1"}
    land_items(tmp_path, NEXT, {"a": "corrected", "b": "1"})
    land_items(tmp_path, THIRD, {"a": "corrected", "b": "1"})
    assert catalogue(tmp_path, THIRD) == {"a": "corrected", "b": "1"}


def test_titles_that_are_long_or_not_utf8_land(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    titles = pa.array([b"caf\xe9", long.encode(), "\N{SNOWMAN}".encode(), None], pa.binary())
    table = pa.table({"item_id": ["a", "b", "c", "d"], "title": titles})
    deliver(tmp_path / "delivered", f"items-{DAY}", table)
    materialize(tmp_path, [raw.raw_items], DAY)
    found = [title for (title,) in read(tmp_path, "select title from raw.raw_items order by all")]
    assert found[0] == "caf?"
    assert set(found[1:]) == {long, "\N{SNOWMAN}", None}


def test_a_warehouse_of_the_text_landing_is_named(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute("create schema raw")
        connection.execute("create table raw.raw_events (user_id varchar, delivered_on date)")
    deliver(tmp_path / "delivered", f"events-{DAY}", [event()])
    result = materialize(tmp_path, [raw.raw_events], DAY, succeeds=False)
    assert "remove the warehouse file" in failures(result)


def test_prior_history_is_replaced(tmp_path: Path) -> None:
    row = {"user_id": "u", "position": 0, "item_id": "i", "is_positive": True}
    for positions in ((0, 1), (0,)):
        rows = [{**row, "position": p} for p in positions]
        deliver(tmp_path / "delivered", "prior_history", rows)
        materialize(tmp_path, [raw.raw_prior_history], None)
    found = read(
        tmp_path, "select user_id, position, item_id, is_positive from raw.raw_prior_history"
    )
    assert found == [("u", 0, "i", True)]


def test_a_held_file_is_waited_for_and_then_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_FIRST_LOCK_WAIT_SECONDS", "_LONGEST_LOCK_WAIT_SECONDS"):
        monkeypatch.setattr(f"resources.warehouse.{name}", 0.05)  # said before the first pause
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"), lock_wait_seconds=2)
    with warehouse.connect():
        pass
    hold = "import duckdb,sys; c=duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, warehouse.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"held"
        with pytest.raises(WarehouseError, match=r"w\.duckdb was held .* 2 seconds: close"):
            warehouse.require_ready()
        assert "another process holds" in caplog.text
        holder.communicate(b"\n")
    with warehouse.connect(read_only=True) as connection:
        assert connection.execute("select 1").fetchall() == [(1,)]


def test_reading_what_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    warehouse = Warehouse(path=str(tmp_path / "none.duckdb"))
    with pytest.raises(WarehouseError, match="materialise raw_events first"):
        warehouse.connect(read_only=True).__enter__()


def test_connections_close_when_the_block_raises(tmp_path: Path) -> None:
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"))
    with pytest.raises(ZeroDivisionError), warehouse.connect():
        raise ZeroDivisionError
    with warehouse.connect(read_only=True):  # another mode: fails while the first is open
        pass


def test_published_tables_replace_their_day(tmp_path: Path) -> None:
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    for day, users in ((DAY, ["a", "b"]), (NEXT, ["c"]), (DAY, ["d"])):
        assert warehouse.replace_partition(
            "recommendations", day, pa.table({"user_id": users})
        ) == len(users)
    rows = read(tmp_path, "select partition_date, user_id from recommendations order by all")
    assert rows == [(DAY, "d"), (NEXT, "c")]
    with pytest.raises(ValueError, match="use one of recommendations, semantic_ids"):
        warehouse.replace_partition("users; drop table x", DAY, pa.table({"a": [1]}))
