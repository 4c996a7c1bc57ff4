"""A log delivered as files, one per day, and a warehouse built from it once per test process."""

import atexit
import functools
import re
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onerec.datasets import EventSource
from onerec.schema import PRIOR_HISTORY
from resources.stores import Source


@dataclass(frozen=True)
class FileSource:
    """An `EventSource` over `events-<day>.parquet`, `items-<day>.parquet` and so on."""

    directory: Path
    delivers_full_catalogue: bool = False

    @property
    def first_day(self) -> date:
        return date(2026, 6, 1)

    @property
    def last_day(self) -> date | None:
        return None

    def has_arrived(self, day: date) -> bool:
        return (self.directory / f"events-{day}.parquet").exists()

    def events(self, day: date) -> pa.Table:
        return pq.read_table(self.directory / f"events-{day}.parquet")

    def items(self, day: date) -> pa.Table:
        return pq.read_table(self.directory / f"items-{day}.parquet")

    def prior_history(self) -> pa.Table:
        file = self.directory / "prior_history.parquet"
        return pq.read_table(file) if file.exists() else PRIOR_HISTORY.empty_table()

    def item_vectors(self) -> pa.Table | None:
        return None

    def user_attributes(self) -> pa.Table | None:
        file = self.directory / "users.parquet"
        return pq.read_table(file) if file.exists() else None


class FileSourceResource(Source):
    """The resource `source` over a directory of delivered files."""

    dataset: str = "files"

    def open(self) -> EventSource:
        return FileSource(Path(self.data_dir or ""))


def deliver(directory: Path, name: str, rows: list[dict] | pa.Table) -> Path:
    """Write a delivery, e.g. `deliver(d, "events-2026-06-01", rows)`."""
    directory.mkdir(parents=True, exist_ok=True)
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    file = directory / f"{name}.parquet"
    pq.write_table(table, file)
    return file


@functools.cache
def spark_port() -> int:
    """Spark's Thrift server, one for the process; a test that asks skips where it cannot run."""
    from resources.spark_server import missing, thrift_server

    if lacking := missing():
        pytest.skip(f"Spark: {lacking}")
    server = thrift_server(temporary_home())
    port = server.__enter__()
    atexit.register(server.__exit__, None, None, None)
    return port


def is_on_spark(home: Path) -> bool:
    """Whether an environment's SQL runs on Spark."""
    return (home / "lake").exists()


def _session_sql(home: Path) -> object:
    from resources.dbt import session_dbt
    from resources.spark import spark_session_dbt

    target, warehouse = home / "dbt", home / "warehouse.duckdb"
    if not is_on_spark(home):
        return session_dbt(target, warehouse, column_metadata=False)
    name = re.sub(r"\W", "_", home.name.lower())
    schemas = {"spark_schema": f"sessions_{name}", "raw_schema": f"raw_{name}"}
    return spark_session_dbt(target, warehouse, home / "lake", port=spark_port(), **schemas)


def resources(home: Path) -> dict[str, object]:
    """Resources of an environment in a directory; dbt leaves no connection open in this process."""
    from resources.stores import Artifacts
    from resources.warehouse import Warehouse

    return {
        "source": FileSourceResource(data_dir=str(home / "delivered")),
        "warehouse": Warehouse(path=str(home / "warehouse.duckdb"), lock_wait_seconds=5),
        "dbt": _session_sql(home),
        "artifacts": Artifacts(url=str(home / "artifacts")),
    }


def materialize(
    home: Path,
    selection: list[dg.AssetsDefinition] | dg.AssetSelection,
    first: date | None,
    last: date | None = None,
    *,
    more: tuple = (),
    replaced: dict[str, object] | None = None,
    config: dg.RunConfig | None = None,
    succeeds: bool = True,
) -> dg.ExecuteInProcessResult:
    """Materialise assets for a day or a range of days in this process."""
    days: dict[str, object] = {}
    if first and last:
        days["tags"] = {
            "dagster/asset_partition_range_start": str(first),
            "dagster/asset_partition_range_end": str(last),
        }
    elif first:
        days["partition_key"] = str(first)
    with warnings.catch_warnings():
        # dagster-dbt 0.29.27 uses what Dagster 1.13 deprecates
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        result = _run(selection, home, config, days, more, replaced or {})
    assert result.success == succeeds, failures(result)
    return result


def _run(selection, home, config, days, more, replaced) -> dg.ExecuteInProcessResult:
    from assets import raw, session_dataset, session_dataset_checks, sessions

    return dg.materialize(
        [
            raw.raw_events,
            raw.raw_items,
            raw.raw_prior_history,
            raw.raw_events_day_is_not_empty,
            raw.raw_items_day_is_not_empty,
            sessions.session_sql,
            sessions.rejected_share_below_threshold,
            sessions.no_account_dominates_a_day,
            session_dataset.session_dataset,
            session_dataset_checks.session_dataset_suites,
            *more,
        ],
        selection=selection,
        resources=resources(home) | replaced,
        run_config=config,
        raise_on_error=False,
        **days,
    )


def failures(result: dg.ExecuteInProcessResult) -> str:
    """Messages of the failed steps."""
    messages = [
        str(e.step_failure_data.error) + str(e.step_failure_data.user_failure_data)
        for e in result.all_events
        if e.is_step_failure
    ]
    return "\n".join(messages)


def temporary_home() -> Path:
    """A directory that lives as long as the process."""
    home = Path(tempfile.mkdtemp(prefix="onerec-test-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return home


@functools.cache
def built_home(engine: str = "duckdb") -> Path:
    """The log of `tests.sql.random_log`, ingested and built by the assets once. Read only.

    Args:
        engine: duckdb or spark; a test that asks for Spark skips where it cannot run.
    """
    return _build(temporary_home(), engine)


def _build(home: Path, engine: str) -> Path:
    from assets import raw, sessions
    from tests.sql import random_log

    if engine == "spark":
        spark_port()
        (home / "lake").mkdir()
    for name, rows in random_log.deliveries().items():
        deliver(home / "delivered", name, rows)
    first, last = random_log.DAYS[0], random_log.DAYS[-1]
    materialize(home, [raw.raw_prior_history], None)
    materialize(
        home,
        [raw.raw_events, raw.raw_items],
        first,
        last,
    )
    materialize(home, [sessions.session_sql], first, last, config=random_log.run_config())
    return home


def home_to_change(target: Path, engine: str) -> Path:
    """The built environment, to be changed: a copy, and for Spark one built anew."""
    return copy_of_built_home(target) if engine == "duckdb" else _build(target, engine)


def copy_of_built_home(target: Path) -> Path:
    """The built environment, to be changed."""
    return copy_of(built_home(), target)


def copy_of(home: Path, target: Path) -> Path:
    """An environment, to be changed."""
    shutil.copytree(home, target, dirs_exist_ok=True)
    return target
