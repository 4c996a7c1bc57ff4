"""The session dataset as Spark writes it, against the one that DuckDB's sessions make.

What runs on Spark needs the extra `spark-local` and Java, and skips without.
"""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from assets.session_dataset import session_dataset
from onerec.artifacts import ArtifactStore, read_json
from onerec.schema import SESSION_DATASET, SPLITS
from onerec.session_dataset.reader import read_sessions
from resources.warehouse import Warehouse, WarehouseError
from tests.assets.test_session_dataset import launchpad
from tests.sql import delivered, random_log

DAY = random_log.DAYS[-1]


def dataset_of(engine: str) -> Path:
    """The directory of the artifact, made on an engine."""
    home = delivered.built_home(engine)
    delivered.materialize(home, [session_dataset], DAY, config=launchpad())
    return ArtifactStore(str(home / "artifacts")).latest("session_dataset", str(DAY)).path


@pytest.mark.slow
def test_the_tasks_of_spark_write_the_dataset_that_duckdb_makes() -> None:
    written, streamed = dataset_of("spark"), dataset_of("duckdb")
    for split in SPLITS:
        found, wanted = (
            read_sessions(directory, [split], SESSION_DATASET.names)
            .cast(SESSION_DATASET)
            .combine_chunks()
            for directory in (written, streamed)
        )
        assert found.equals(wanted), split
        assert set(found.column("split").to_pylist()) == {split}
    assert read_json(written / "stats.json") == read_json(streamed / "stats.json")
    files = list(written.glob("split=*/*.parquet"))
    assert sum(pq.read_metadata(f).num_rows for f in files) == len(
        read_sessions(streamed, SPLITS, ["session_id"])
    )
    made_by = {pq.read_metadata(f).created_by for f in files}
    assert all("parquet-mr" in name for name in made_by), made_by


@pytest.mark.slow
def test_users_are_not_erased_from_views_alone() -> None:
    warehouse = delivered.resources(delivered.built_home("spark"))["warehouse"]
    assert isinstance(warehouse, Warehouse)
    with pytest.raises(WarehouseError, match="tables of another engine"):
        warehouse.erase_users(["user 0"])


def test_a_day_is_handed_over_once(tmp_path: Path) -> None:
    """A file of the lake is named after its day's rows: only a corrected day is written again."""
    import datetime

    import duckdb

    from resources.lake import Lake

    home = delivered.copy_of_built_home(tmp_path)
    lake, every = Lake(tmp_path / "lake", "onerec"), (random_log.DAYS[0], DAY)
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        assert lake.publish_raw(connection, *every) == random_log.DAYS
        assert lake.publish_raw(connection, *every) == []
        connection.execute(
            "update raw.deliveries set fingerprint = 'another' "
            f"where table_name = 'raw_events' and delivered_on = date '{DAY}'"
        )
        assert lake.publish_raw(connection, *every) == [DAY]
        held = connection.execute(
            "select delivered_on, count(*) from raw.raw_events group by all order by 1"
        ).fetchall()
    events = pq.ParquetDataset(tmp_path / "lake" / "raw" / "raw_events").read()
    days = [datetime.date.fromisoformat(str(d)) for d in events.column("delivered_on").to_pylist()]
    assert [(day, days.count(day)) for day in random_log.DAYS] == held
