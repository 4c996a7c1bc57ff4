"""Dagster's event log in SQLite, storing the events of a range of days at once.

An ingest of 192 days plans and records some 3,000 partitions. Dagster hands their events over in
batches (`DAGSTER_EVENT_BATCH_SIZE`), which its storage in Postgres writes at once, and its storage
in SQLite one by one, in two transactions each.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage

BATCH_SIZE = "DAGSTER_EVENT_BATCH_SIZE"
MOST_EVENTS = "1000"
"""Events of a batch; a statement with more would exceed SQLite's number of parameters."""
OF_PARTITIONS = {
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
}
"""Events that there is one of for each partition of a run."""


class BatchedSqliteEventLog(SqliteEventLogStorage):
    """Dagster's own storage, in its own place and layout, with batches in two transactions."""

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "BatchedSqliteEventLog":
        """Made by Dagster from `dagster.yaml`; `base_dir` is the DAGSTER_HOME."""
        home = Path(config_value["base_dir"])
        return cls(base_dir=str(home / "history" / "runs"), inst_data=inst_data)

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events: those of partitions at once, the others one by one.

        Dagster stores all of them one by one if this raises.
        """
        kept = [event for event in events if event.dagster_event_type in OF_PARTITIONS]
        if kept:
            insert = self.prepare_insert_event_batch(kept)
            # the index of all runs first: if it fails, the run's own file is untouched
            with self.index_transaction() as connection:
                rows = connection.execute(insert.returning(SqlEventLogStorageTable.c.id)).fetchall()
                ids = sorted(row[0] for row in rows)
                self._store_asset_event_tags(connection, kept, ids)
                last = {
                    e.get_dagster_event().asset_key: (e, n) for e, n in zip(kept, ids, strict=True)
                }
                for event, number in last.values():
                    self._store_asset_event(connection, event, number)
            with self.run_connection(kept[0].run_id) as connection:
                connection.execute(insert)
        super().store_event_batch([e for e in events if e.dagster_event_type not in OF_PARTITIONS])
