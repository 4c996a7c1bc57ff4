"""A range of days is recorded in batches, and the record is that of Dagster's own storage."""

import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage

from onerec_dagster.dagster_home import FILE
from onerec_dagster.event_log import BATCH_SIZE, MOST_EVENTS, BatchedSqliteEventLog
from resources.settings import CHECKOUT

DAYS = [str(date(2026, 1, 1) + timedelta(days=n)) for n in range(40)]
RANGE = {
    "dagster/asset_partition_range_start": DAYS[0],
    "dagster/asset_partition_range_end": DAYS[-1],
}


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition(DAYS[0], end_offset=0),
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def landed() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 3}, tags={"source": "files"})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DAGSTER_HOME with the settings of the checkout."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv(BATCH_SIZE, MOST_EVENTS)
    (tmp_path / FILE).write_text((CHECKOUT / FILE).read_text())
    return tmp_path


def recorded(instance: dg.DagsterInstance, run_id: str) -> dict[str, Any]:
    """What the log of all runs and the run's own file know."""
    planned = instance.event_log_storage.get_event_records(
        dg.EventRecordsFilter(dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, landed.key)
    )
    asset = instance.get_asset_records([landed.key])[0].asset_entry
    records = instance.fetch_materializations(landed.key, limit=1000, ascending=True).records
    last = instance.get_latest_materialization_event(landed.key)
    assert last is not None
    own = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    return {
        "planned": sorted(str(r.partition_key) for r in planned if r.run_id == run_id),
        "last run": asset.last_run_id == run_id,
        "partitions": [r.partition_key for r in records],
        "rows": {r.asset_materialization.metadata["rows"].value for r in records},
        "latest": last.get_dagster_event().partition,
        "tags": instance.event_log_storage.get_event_tags_for_asset(
            landed.key, {"dagster/partition": DAYS[7]}
        ),
        "of the run": [e.get_dagster_event().partition for e in own],
        "materialized": sorted(instance.get_materialized_partitions(landed.key)),
    }


def test_the_record_is_that_of_dagster_s_own_storage(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for batch in (MOST_EVENTS, "0"):
        monkeypatch.setenv(BATCH_SIZE, batch)
        with dg.DagsterInstance.get() as instance:
            assert isinstance(instance.event_log_storage, BatchedSqliteEventLog)
            result = dg.materialize([landed], instance=instance, tags=RANGE)
            found.append(recorded(instance, result.run_id))
            instance.wipe_assets([landed.key])
    assert found[0]["partitions"] == found[0]["of the run"] == found[0]["materialized"] == DAYS
    assert found[0]["latest"] == DAYS[-1]
    assert found[0]["planned"] == DAYS
    assert found[0]["last run"]
    assert found[0] == found[1]


def test_the_log_that_dagster_made_before_is_read(home: Path) -> None:
    (home / FILE).write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.get() as instance:
        assert type(instance.event_log_storage) is SqliteEventLogStorage
        dg.materialize([landed], instance=instance, tags=RANGE)
    (home / FILE).write_text((CHECKOUT / FILE).read_text())
    with dg.DagsterInstance.get() as instance:
        assert sorted(instance.get_materialized_partitions(landed.key)) == DAYS


def test_a_batch_takes_a_few_transactions(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = SqliteEventLogStorage._connect

    def counted(storage: SqliteEventLogStorage, shard: str) -> Any:
        opened.append(shard)
        return real(storage, shard)

    monkeypatch.setattr(SqliteEventLogStorage, "_connect", counted)
    numbers = {}
    for batch in (MOST_EVENTS, "0"):
        monkeypatch.setenv(BATCH_SIZE, batch)
        with dg.DagsterInstance.get() as instance:
            opened.clear()
            dg.materialize([landed], instance=instance, tags=RANGE)
            numbers[batch] = len(opened)
    # each partition is planned and recorded, in the run's file and in the index of all runs
    assert numbers["0"] - numbers[MOST_EVENTS] == 4 * (len(DAYS) - 1)


def test_a_page_that_watches_a_run_gets_its_events(home: Path) -> None:
    # the UI learns of events from the modification of the run's file
    arrived: list[str] = []
    with dg.DagsterInstance.get() as instance:
        first = dg.materialize([landed], instance=instance, partition_key=DAYS[0])
        run = instance.get_run_by_id(first.run_id)
        assert run is not None
        instance.watch_event_logs(run.run_id, None, lambda entry, _: arrived.append(entry.message))
        for number in range(3):
            instance.report_engine_event(f"event {number}", run)
            patience = time.monotonic() + 20
            while not any(f"event {number}" in text for text in arrived):
                assert time.monotonic() < patience, "the event did not arrive"
                time.sleep(0.05)
