"""The session SQL on Spark: the same dbt project with the target `spark`, tables in a lake.

`ONEREC_SQL=spark` chooses it; docs/scaling.md says what else changes.
"""

import json
import os
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource
from dagster_dbt.core.dbt_event_iterator import DbtDagsterEventType
from pydantic import Field

from onerec.config import SessionConfig
from onerec.session_dataset.splits import SplitDays
from onerec.session_dataset.writer import WrittenSessions, count_sessions, take_over_files
from resources.dbt import (
    PROJECT_DIR,
    Days,
    SessionDbt,
    build_command,
    dbt_executable,
    environment,
    these_days,
)
from resources.lake import Lake
from resources.warehouse import Warehouse

_VIEWS = "config.materialized:view"
_TABLES = ("table", "incremental")


class SparkSessionDbt(SessionDbt):
    """dbt on a Spark Thrift endpoint, and the lake through which DuckDB sees its tables.

    What is not of the warehouse itself, `run_models` for an inspection, stays DuckDB's.
    """

    lake: str = Field(description="A directory that this process and Spark reach by this path")
    spark_schema: str = Field(default="onerec", description="Schema of the tables")
    raw_schema: str = Field(default="raw", description="Schema of the landed rows")
    host: str = Field(default="localhost", description="Of the Thrift endpoint")
    port: int = Field(default=10000, description="Of the Thrift endpoint")

    @property
    def files(self) -> Lake:
        return Lake(Path(self.lake), self.spark_schema)

    def spark_cli(self, args: list[str], **options: Any) -> Any:
        """dbt with the target `spark`; `cli` is DuckDB's."""
        with environment(
            ONEREC_SQL="spark",
            ONEREC_LAKE=self.lake,
            ONEREC_SPARK_SCHEMA=self.spark_schema,
            ONEREC_RAW_SCHEMA=self.raw_schema,
            ONEREC_SPARK_HOST=self.host,
            ONEREC_SPARK_PORT=str(self.port),
        ):
            return DbtCliResource.cli(self, args, **options)

    def build(
        self, context: dg.AssetExecutionContext, variables: Mapping[str, Any], days: Days
    ) -> Iterator[DbtDagsterEventType]:
        """Hand the landed rows over, build and test on Spark, show what was built in DuckDB.

        Spark computes without a connection to DuckDB being held. The views of the project are made
        in DuckDB by dbt, too, over the tables' files: one SQL for both.
        """
        first, last = days
        self._hand_over(first - timedelta(days=variables["lateness_days"]), last)
        target = Path(self.target_dir) / "build_spark"
        command = build_command(variables)
        with these_days(days):
            invocation = self.spark_cli(command, context=context, target_path=target)
        yield from invocation.stream()
        self._show(variables)

    def write_sessions(
        self, warehouse: Warehouse, directory: Path, days: SplitDays, config: SessionConfig
    ) -> WrittenSessions:
        """See `SessionDbt.write_sessions`; the tasks of Spark write the files.

        Lists are as long as `session_sql` was built with.
        """
        made = directory / "spark"
        arguments = {
            "first": str(days.first),
            "last": str(days.test_day),
            "test_day": str(days.test_day),
            "valid_day": str(days.valid_day or ""),
            "directory": str(made),
        }
        self._run_macro("write_sessions", arguments)
        take_over_files(made, directory)
        return count_sessions(directory)

    def _hand_over(self, first: date, last: date) -> None:
        with self._warehouse().connect() as connection:
            self.files.publish_raw(connection, first, last)
        self._run_macro("register_raw", {})

    def _show(self, variables: Mapping[str, Any]) -> None:
        target = Path(self.target_dir) / "views"
        command = ["run", "--quiet", "--select", _VIEWS, "--vars", _text(variables)]
        with self._warehouse().connect() as connection:
            self.files.show_tables(connection, _tables(Path(self.target_dir) / "build_spark"))
        self.cli(command, target_path=target).wait()

    def _run_macro(self, name: str, arguments: Mapping[str, str]) -> None:
        # a directory of their own: other variables would make dbt parse the project anew
        target = Path(self.target_dir) / "macros_spark"
        command = ["run-operation", name, "--quiet", "--args", json.dumps(dict(arguments))]
        self.spark_cli(command, target_path=target).wait()

    def _warehouse(self) -> Warehouse:
        return Warehouse(path=self.warehouse_path)


def spark_session_dbt(
    target: Path, warehouse_path: Path, lake: Path, **fields: Any
) -> SparkSessionDbt:
    """The resource; `ONEREC_SPARK_HOST`, `_PORT` and `_SCHEMA` say where Spark is."""
    given: dict[str, Any] = {
        "host": os.environ.get("ONEREC_SPARK_HOST"),
        "port": int(os.environ.get("ONEREC_SPARK_PORT") or 0),
        "spark_schema": os.environ.get("ONEREC_SPARK_SCHEMA"),
        "raw_schema": os.environ.get("ONEREC_RAW_SCHEMA"),
    }
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value} | fields
    return SparkSessionDbt(
        project_dir=str(PROJECT_DIR),
        profiles_dir=str(PROJECT_DIR),
        dbt_executable=dbt_executable(),
        warehouse_path=str(warehouse_path),
        target_dir=str(target.resolve()),
        column_metadata=False,
        lake=str(lake),
        **chosen,
    )


def _tables(target: Path) -> list[tuple[str, str | None]]:
    """Names of the project's tables, and the column that each is partitioned by."""
    nodes = json.loads((target / "manifest.json").read_text())["nodes"].values()
    return [
        (node["name"], node["config"].get("partition_by"))
        for node in nodes
        if node["resource_type"] == "model" and node["config"]["materialized"] in _TABLES
    ]


def _text(variables: Mapping[str, Any]) -> str:
    return json.dumps(dict(variables), sort_keys=True)
