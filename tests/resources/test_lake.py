"""Files of the lake: whole ones, whatever a run that ended left."""

from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from onerec import schema
from resources import landing_tables
from resources.lake import Lake
from resources.parts import Delivery, table_part

DAY = date(2026, 6, 1)


def land(connection: duckdb.DuckDBPyConnection, user: str) -> None:
    rows = pa.table({"user_id": [user], "item_id": ["i"], "event_time": ["2026-06-01 10:00:00"]})
    for table, contract in landing_tables.DATED.items():
        kept = rows.select([n for n in rows.column_names if n in contract.names])
        part = table_part(kept, contract, table, DAY)
        landing_tables.land(connection, table, Delivery(days=[DAY], parts=[part]))
    nothing = table_part(schema.PRIOR_HISTORY.empty_table(), schema.PRIOR_HISTORY, "history", None)
    landing_tables.land_prior_history(connection, Delivery(days=[], parts=[nothing]))


def test_what_a_run_that_ended_left_is_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path, "onerec")
    days = tmp_path / "raw" / "raw_events"

    def replace(aside: Path, file: Path) -> Path:
        if file.parent.parent == days and file.name != "columns.parquet":
            raise KeyboardInterrupt
        return aside.rename(file)

    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        land(connection, "u")
        monkeypatch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            lake.publish_raw(connection, DAY, DAY)
        monkeypatch.undo()
        land(connection, "corrected")
        assert lake.publish_raw(connection, DAY, DAY) == [DAY]
    # Spark reads every file whose name does not begin so
    read = [f for f in days.rglob("*") if f.is_file() and f.name[0] not in "._"]
    assert sorted(f.suffix for f in read) == [".parquet", ".parquet"]
