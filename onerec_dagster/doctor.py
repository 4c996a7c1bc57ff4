"""What is wrong with a data set's state: artifacts, warehouse, what consumers read, runs, disk."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
import duckdb

from onerec.artifacts import ArtifactError, ArtifactStore
from onerec.disk import DiskFullError, require_free_space
from onerec.serving.current import PUBLISH_AGAIN, problem_of_current, read_served
from onerec_dagster.nights import TERMINATE
from onerec_dagster.sensor_health import dead_sensors, silent_daemons
from resources.settings import Settings
from resources.warehouse import RESTORE, Warehouse, WarehouseError

LOCK_WAIT_SECONDS = 2.0
LONG_RUN = timedelta(hours=12)


@dataclass(frozen=True)
class Diagnosis:
    """One examined part of the state.

    Attributes:
        subject: What.
        problem: What is wrong and what to do; empty where nothing is.
    """

    subject: str
    problem: str = ""

    def __str__(self) -> str:
        return f"{'PROBLEM' if self.problem else 'ok':>8}  {self.subject}  {self.problem}".rstrip()


def examine(
    settings: Settings, instance: dg.DagsterInstance, own_run: str | None = None
) -> Iterator[Diagnosis]:
    """Examine everything; damage is found by hashing every file of the current versions.

    Args:
        settings: Of the data set.
        instance: Its Dagster instance.
        own_run: The run that examines, which does not count among those under way.
    """
    store = settings.artifact_store()
    yield from _artifacts(store)
    yield _warehouse(settings)
    yield _consumers(settings, store)
    yield from _runs(instance, own_run)
    yield from _automation(instance)
    yield _disk(settings)


def _artifacts(store: ArtifactStore) -> Iterator[Diagnosis]:
    try:
        assets = {asset: store.partitions(asset) for asset in store.assets()}
    except (ArtifactError, OSError) as error:
        yield Diagnosis("artifacts", str(error))
        return
    for asset, partitions in assets.items():
        damaged = list(_damaged(store, asset, partitions))
        yield Diagnosis(f"artifacts of {asset}: {len(partitions)} partitions", "; ".join(damaged))


def _damaged(store: ArtifactStore, asset: str, partitions: list[str]) -> Iterator[str]:
    for partition in partitions:
        try:
            store.latest(asset, partition).verify()
        except (ArtifactError, OSError) as error:
            yield str(error)


def _warehouse(settings: Settings) -> Diagnosis:
    path = settings.warehouse_path
    warehouse = Warehouse(path=str(path), lock_wait_seconds=LOCK_WAIT_SECONDS)
    try:
        with warehouse.connect(read_only=True) as connection:
            rows = connection.sql(
                "select schema_name || '.' || table_name from duckdb_tables() order by 1"
            ).fetchall()
            for (table,) in rows:
                connection.execute(f"select count(*) from {table}").fetchall()
    except (WarehouseError, OSError) as error:
        return Diagnosis(f"warehouse {path}", str(error))
    except duckdb.Error as error:
        return Diagnosis(f"warehouse {path}", f"it cannot be read: {error}. {RESTORE}")
    return Diagnosis(f"warehouse {path}: {len(rows)} tables")


def _consumers(settings: Settings, store: ArtifactStore) -> Diagnosis:
    root = settings.serving_dir
    if problem := problem_of_current(root):
        return Diagnosis(f"what consumers read in {root}", problem)
    served = read_served(root)
    assert served is not None
    subject = f"what consumers read: {served.day} by {served.model_version}"
    if served.degraded:
        return Diagnosis(subject, f"degraded: {served.degraded}")
    try:
        is_there = store.current_version("recommendations", served.day) is not None
        newest = store.partitions("recommendations")[-1:]
    except (ArtifactError, OSError) as error:
        return Diagnosis(subject, str(error))
    if not is_there:
        remedy = (
            f"its artifact is gone: restore it, or make that nightly run again: rerun {served.day}"
        )
        return Diagnosis(subject, remedy)
    if newest and newest[0] > served.day:
        problem = f"recommendations of {newest[0]} are there and not current: {PUBLISH_AGAIN}"
        return Diagnosis(subject, problem)
    return Diagnosis(subject)


def _runs(instance: dg.DagsterInstance, own_run: str | None) -> Iterator[Diagnosis]:
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    long_ago = datetime.now(UTC) - LONG_RUN
    records = [r for r in instance.get_run_records(started) if r.dagster_run.run_id != own_run]
    stuck = [r.dagster_run.run_id for r in records if r.create_timestamp < long_ago]
    remedy = f"under way for more than {LONG_RUN}: {', '.join(stuck)}: wait, or {TERMINATE}"
    yield Diagnosis(f"runs: {len(records)} under way", remedy if stuck else "")
    storage, orphaned = instance.event_log_storage, set()
    for pool in storage.get_concurrency_keys():
        info = storage.get_concurrency_info(pool)
        for slot in info.claimed_slots:
            run = instance.get_run_by_id(slot.run_id)
            if run is None or run.is_finished:
                orphaned.add(pool)
    remedy = "held by runs that ended; the next command frees them" if orphaned else ""
    yield Diagnosis(f"pools: {', '.join(sorted(orphaned)) or 'free or held by runs'}", remedy)


def _automation(instance: dg.DagsterInstance) -> Iterator[Diagnosis]:
    """Sensors and their daemon; an instance that only commands use has neither."""
    now = datetime.now(UTC)
    dead = [f"{name} {why}" for name, why in sorted(dead_sensors(instance, now).items())]
    yield Diagnosis("sensors", "; ".join(dead))
    silent = list(silent_daemons(instance, now))
    wanted = any(state.is_running for state in instance.all_instigator_state())
    remedy = f"start dagster-daemon: {', '.join(silent)}" if silent and wanted else ""
    yield Diagnosis("daemon", remedy)


def _disk(settings: Settings) -> Diagnosis:
    subject = f"disk of {settings.home}"
    try:
        require_free_space(settings.home, "a nightly run")
    except DiskFullError as error:
        return Diagnosis(subject, str(error))
    return Diagnosis(subject)
