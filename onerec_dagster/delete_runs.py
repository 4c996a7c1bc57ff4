"""Runs deleted without a trace: Dagster itself leaves output, check results, files, free pages."""

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage

MOST_AT_ONCE = 500
"""Ids of one statement: SQLite has a limit."""
LOCK_WAIT_SECONDS = 5.0


def delete_runs(instance: dg.DagsterInstance, run_ids: Collection[str]) -> None:
    """Delete runs with their events, output, results of checks and, on SQLite, their files.

    Args:
        instance: Where they are recorded.
        run_ids: Runs that have ended.
    """
    for run_id in run_ids:
        # before the run, so that a prune that is killed between the two finds it again
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        instance.delete_run(run_id)
    storage = instance.event_log_storage
    if isinstance(storage, SqlEventLogStorage):
        _delete_check_results(instance, storage)
    if isinstance(storage, SqliteEventLogStorage):
        directory = Path(storage.path_for_shard("index")).parent
        _delete_files(instance, directory)
        _compact(directory / "index.db")


def _delete_check_results(instance: dg.DagsterInstance, storage: SqlEventLogStorage) -> None:
    """Of every run that is no longer there, so of those that were deleted elsewhere, too."""
    runs = AssetCheckExecutionsTable.c.run_id
    with storage.index_connection() as connection:
        query = AssetCheckExecutionsTable.select().with_only_columns(runs).distinct()
        found = {run_id for (run_id,) in connection.execute(query) if run_id}
        gone = sorted(run_id for run_id in found if not instance.has_run(run_id))
        for start in range(0, len(gone), MOST_AT_ONCE):
            chosen = runs.in_(gone[start : start + MOST_AT_ONCE])
            connection.execute(AssetCheckExecutionsTable.delete().where(chosen))


def _delete_files(instance: dg.DagsterInstance, directory: Path) -> None:
    """The emptied event logs of runs, a file each."""
    for file in directory.glob("*.db"):
        if file.stem != "index" and not instance.has_run(file.stem):
            for name in (file.name, f"{file.name}-wal", f"{file.name}-shm", f"{file.name}-journal"):
                (directory / name).unlink(missing_ok=True)


def _compact(file: Path) -> None:
    """Give free pages back, unless another process keeps the file locked: the next prune does."""
    with closing(sqlite3.connect(file, LOCK_WAIT_SECONDS, isolation_level=None)) as database:
        try:
            database.execute("vacuum")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) and "busy" not in str(error):
                raise
