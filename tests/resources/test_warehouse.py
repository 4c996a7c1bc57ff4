"""Erasing users and compacting, on a real file."""

import tempfile
from datetime import date
from pathlib import Path

import duckdb
import pytest

from onerec.config import SessionConfig
from onerec.session_dataset.splits import SplitDays
from resources.dbt import session_dbt
from resources.warehouse import Warehouse, WarehouseError
from tests.other_user import without_rights


def filled(tmp_path: Path) -> Warehouse:
    warehouse = Warehouse(path=str(tmp_path / "it's a warehouse.duckdb"))
    with duckdb.connect(warehouse.path) as connection:
        connection.execute("create schema raw")
        connection.execute(
            "create table raw.raw_events as select (n % 10)::varchar as user_id, n, "
            "md5(n::varchar) || md5((n + 1)::varchar) as text from range(200_000) t(n)"
        )
        connection.execute("create table sessions as select 3 as user_id, 1 as n")
        connection.execute("create table items as select '3' as item_id")
        connection.execute(
            "create view of_user as select * from raw.raw_events where user_id = '3'"
        )
    return warehouse


def test_a_user_is_in_no_table_and_in_no_byte_of_the_file(tmp_path: Path) -> None:
    warehouse = filled(tmp_path)
    assert warehouse.erase_users(["3", "nobody"]) == {
        "main.sessions": 1,
        "raw.raw_events": 20_000,
    }
    warehouse.compact()
    with warehouse.connect(read_only=True) as connection:
        assert connection.execute("select count(*) from of_user").fetchall() == [(0,)]
        assert connection.execute("select count(*) from raw.raw_events").fetchall() == [(180_000,)]
        assert connection.execute("select item_id from items").fetchall() == [("3",)]
    assert warehouse.erase_users(["3"]) == {}


def test_titles_are_the_newest_up_to_a_day_and_none_before_there_are_any(tmp_path: Path) -> None:
    warehouse = filled(tmp_path)
    assert warehouse.titles(date(2026, 6, 2)).num_rows == 0
    with warehouse.connect() as connection:
        connection.execute(
            "create table stg_items as select * from (values ('a', 'old', date '2026-06-01'), "
            "('a', 'new', date '2026-06-03'), ('b', null, date '2026-06-02')) "
            "t(item_id, title, valid_from)"
        )
    found = {
        day: {r["item_id"]: r["title"] for r in warehouse.titles(date(2026, 6, day)).to_pylist()}
        for day in (1, 2, 3)
    }
    assert found == {1: {"a": "old"}, 2: {"a": "old", "b": None}, 3: {"a": "new", "b": None}}


def test_compacting_gives_the_space_of_deleted_rows_back(tmp_path: Path) -> None:
    warehouse = filled(tmp_path)
    with warehouse.connect() as connection:
        connection.execute("delete from raw.raw_events where n >= 1000")
    before, after = warehouse.compact()
    assert after < before / 3
    with warehouse.connect(read_only=True) as connection:
        rows = connection.execute("select count(*), sum(n) from raw.raw_events").fetchall()
    assert rows == [(1000, 999 * 1000 // 2)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["it's a warehouse.duckdb"]


def test_days_are_removed_of_users_logs_and_of_published_tables_only(tmp_path: Path) -> None:
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    days = "date '2026-06-01' + n::int as"
    with warehouse.connect() as connection:
        connection.execute("create schema raw")
        for table, columns in {
            "raw.raw_events": f"{days} delivered_on, 'u' as user_id",
            "raw.raw_items": f"{days} delivered_on",
            "raw.deliveries": f"{days} delivered_on",
            "sessions": f"{days} session_date, 'u' as user_id",
            "session_days": f"{days} session_date",
            "recommendations": f"{days} partition_date, 'u' as user_id",
        }.items():
            connection.execute(f"create table {table} as select {columns} from range(10) t(n)")
    days_to_keep = {"log_before": date(2026, 6, 4), "published_before": date(2026, 6, 8)}
    gone = {"main.recommendations": 7, "main.sessions": 3, "raw.raw_events": 3}
    assert warehouse.remove_days(**days_to_keep, dry_run=True) == gone
    assert warehouse.remove_days(**days_to_keep, dry_run=False) == gone
    assert warehouse.remove_days(**days_to_keep, dry_run=False) == {}
    with warehouse.connect(read_only=True) as connection:
        left = connection.execute("select min(session_date), count(*) from sessions").fetchall()
    assert left == [(date(2026, 6, 4), 7)]


def test_sessions_of_an_earlier_version_are_refused_with_the_remedy(tmp_path: Path) -> None:
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    warehouse.require_ready()  # there is none yet
    with duckdb.connect(warehouse.path) as connection:
        connection.execute("create table sessions as select 'u|2026-06-01|1' as session_id")
    dbt = session_dbt(tmp_path / "dbt", Path(warehouse.path))
    days = SplitDays(date(2026, 6, 1), date(2026, 6, 2), None)
    remedy = "sessions have no column session_number.* rm '.*warehouse.duckdb'.* ingest the days"
    with pytest.raises(WarehouseError, match=remedy):
        dbt.write_sessions(warehouse, tmp_path, days, SessionConfig())
    with pytest.raises(WarehouseError, match=remedy):
        warehouse.require_ready()
    with duckdb.connect(warehouse.path) as connection:
        connection.execute("alter table sessions add column session_number bigint")
    warehouse.require_ready()


def test_a_path_with_the_word_lock_in_it_is_no_lock(tmp_path: Path) -> None:
    file = tmp_path / "blocks" / "warehouse.duckdb"
    file.parent.mkdir()
    file.write_bytes(b"no database" * 1000)
    warehouse = Warehouse(path=str(file), lock_wait_seconds=0.01)
    with pytest.raises(WarehouseError, match=r"cannot be opened.*Restore it"), warehouse.connect():
        pass


def test_a_warehouse_of_another_user_is_not_to_be_moved_away(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:  # that every user may enter
        Path(directory).chmod(0o755)
        warehouse = Warehouse(path=f"{directory}/w.duckdb")
        with warehouse.connect():
            pass
        with (
            without_rights(Path(warehouse.path)),
            pytest.raises(WarehouseError, match="This user has to be able to read and write it"),
            warehouse.connect(read_only=True),
        ):
            pass
