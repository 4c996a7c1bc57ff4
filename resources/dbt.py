"""dbt: where its project is, when its manifest is parsed, how a build is reported to Dagster."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, chdir, contextmanager
from datetime import date
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource, DbtProject, asset_utils
from dagster_dbt.core.dbt_event_iterator import DbtDagsterEventType, DbtEventIterator
from packaging.version import Version
from pydantic import Field

from onerec.config import SessionConfig
from onerec.session_dataset.splits import SplitDays
from onerec.session_dataset.writer import WrittenSessions, write_session_dataset
from resources.duckdb_memory import memory_limit
from resources.session_stream import ListLengths
from resources.settings import CHECKOUT, Settings
from resources.table_metadata import KeptColumns, columns_key, with_row_counts
from resources.warehouse import Warehouse

PROJECT_DIR = CHECKOUT / "dbt_sessions"
# At every build of the whole project it says that this is what it does
asset_utils.logger.addFilter(lambda record: "dbt subsetted execution" not in record.getMessage())
BUILD = "build"
"""The directory of builds in that of the project's manifest."""
LARGEST_LOG_BYTES = 2**20
"""dbt keeps its log in up to six files of this size."""
_SOURCES = {".sql", ".yml"}
_MADE_OF = "manifest_sources.sha256"
Days = tuple[date, date]
"""The first and the last day of a build."""


class SessionDbt(DbtCliResource):
    """dbt on the warehouse: what the profile needs and what a build reports."""

    warehouse_path: str = Field(description="The DuckDB file that dbt builds in")
    target_dir: str = Field(description="Where a build leaves compiled SQL, logs and run results")
    threads: int = Field(default=2, description="DuckDB threads of a build")
    memory_limit: str = Field(default=memory_limit(), description="DuckDB memory of a build")
    column_metadata: bool = Field(
        default=True,
        description=("Row counts, column types and column lineage of every table"),
    )

    def cli(self, args: Any, **options: Any) -> Any:
        """`DbtCliResource.cli` on this warehouse; the invocation has no adapter."""
        Path(self.warehouse_path).parent.mkdir(parents=True, exist_ok=True)
        with self._profile():
            return super().cli(args, **options)

    @cached_property
    def _cli_version(self) -> Version:
        """dbt's version, without a process that prints it."""
        return Version(metadata.version("dbt-core"))

    def _initialize_dbt_core_adapter(self, args: Any) -> Any:
        """Nothing: it takes seconds, most commands need none, and dbt would start after it."""

    def _adapter(self, args: list[str]) -> Any:
        """The adapter with which dagster-dbt describes what was built."""
        with self._profile():
            return super()._initialize_dbt_core_adapter(args)

    def _profile(self) -> AbstractContextManager[None]:
        """What profiles.yml reads: in dbt's process, and in this one for the adapter."""
        return environment(
            ONEREC_SQL="duckdb",
            ONEREC_WAREHOUSE=self.warehouse_path,
            ONEREC_DUCKDB_THREADS=str(self.threads),
            ONEREC_DUCKDB_MEMORY=self.memory_limit,
            DBT_LOG_FILE_MAX_BYTES=str(LARGEST_LOG_BYTES),
        )

    def build(
        self, context: dg.AssetExecutionContext, variables: Mapping[str, Any], days: Days
    ) -> Iterator[DbtDagsterEventType]:
        """Build and test the selected models of some days with some dbt variables.

        Unit tests are left to the test suite: they would prove the same in every nightly run.
        """
        # dbt would wait without saying so, and its error would not say for what
        warehouse = Warehouse(path=self.warehouse_path, memory_limit=self.memory_limit)
        warehouse.require_ready()
        # one directory for every build: the pool lets one run at a time, and none piles up
        target = Path(self.target_dir) / BUILD
        with these_days(days):
            invocation = self.cli(build_command(variables), context=context, target_path=target)
        if not self.column_metadata:
            yield from invocation.stream()
            return
        # tables can be described once dbt has let go of the file; tests have nothing to describe
        tables, tests, failure = [], [], None
        try:
            for event in invocation.stream():
                (tables if isinstance(event, dg.Output) else tests).append(event)
        except Exception as error:
            failure = error
        try:
            described = self._described(tables, warehouse, variables, invocation, target)
        except Exception:
            if failure is not None:  # what failed first is what is to be mended
                raise failure from None
            raise
        yield from described
        yield from tests
        if failure:
            raise failure

    def _described(
        self,
        tables: list[Any],
        warehouse: Warehouse,
        variables: Mapping[str, Any],
        invocation: Any,
        target: Path,
    ) -> list[Any]:
        """The outputs of a build with row counts, column types and lineage."""
        with warehouse.connect(read_only=True) as connection:
            counted = with_row_counts(tables, invocation.manifest, connection)
            key = columns_key(invocation.manifest, variables, connection)
        kept = KeptColumns(target / "columns.json", key)
        described = kept.added_to(counted)
        if described is None:
            described = self._with_columns(counted, invocation, build_command(variables))
            kept.keep(described)
        return described

    def _with_columns(
        self, tables: Sequence[dg.Output], invocation: Any, command: list[str]
    ) -> list[Any]:
        """The outputs of a build with column types and lineage, as dagster-dbt finds them."""
        invocation.adapter = self._adapter(command)
        described = DbtEventIterator(iter(tables), invocation)
        # its threads change the working directory at once, and so may leave this process elsewhere
        with chdir(Path.cwd()):
            events = list(described.fetch_column_metadata())
        # it would keep the warehouse open in this process
        invocation.adapter.cleanup_connections()
        invocation.adapter.connections.close_all_connections()
        return events

    def run_models(self, variables: Mapping[str, Any], days: Days) -> None:
        """Build the models of some days alone, outside of a run and without tests.

        Raises:
            DagsterDbtCliRuntimeError: A model failed; the message is dbt's.
        """
        command = ["run", "--quiet", *_with_variables(variables)]
        with these_days(days):
            self.cli(command, target_path=Path(self.target_dir) / "inspection").wait()

    def write_sessions(
        self, warehouse: Warehouse, directory: Path, days: SplitDays, config: SessionConfig
    ) -> WrittenSessions:
        """Write the session dataset of a day into a directory; see `write_session_dataset`."""
        lengths = ListLengths(config.history_length, config.session_items)
        with warehouse.sessions(days.first, days.test_day, lengths) as batches:
            return write_session_dataset(
                batches, days.test_day, directory, valid_day=days.valid_day
            )


def build_command(variables: Mapping[str, Any]) -> list[str]:
    """The dbt command line that builds and tests with some variables."""
    return [
        "build",
        "--exclude-resource-type",
        "unit_test",
        *_with_variables(variables),
    ]


def _with_variables(variables: Mapping[str, Any]) -> list[str]:
    return ["--vars", json.dumps(dict(variables), sort_keys=True)]


def dbt_executable() -> str:
    """dbt beside this Python: `.venv/bin/dagster` is often called without activating `.venv`."""
    beside = Path(sys.executable).with_name("dbt")
    return str(beside) if beside.exists() else shutil.which("dbt") or "dbt"


def dbt_project(target: Path, warehouse_path: Path, variables: Mapping[str, Any]) -> DbtProject:
    """The project, with a manifest in `target` that was made of the project's files.

    The variables are those of a build with the settings as they are: one with others parses again.
    dagster-dbt's own `prepare_if_dev` would parse in every process that loads the code location.
    """
    project = DbtProject(project_dir=PROJECT_DIR, target_path=target.resolve())
    made_of, sources = project.manifest_path.with_name(_MADE_OF), _sources_hash(PROJECT_DIR)
    known = made_of.read_text() if made_of.exists() and project.manifest_path.exists() else None
    if known != sources:
        _parse(target.resolve(), warehouse_path, variables, sources)
    return project


def _sources_hash(project_dir: Path) -> str:
    """Hash of the project's files and of dbt's version.

    Times of files say too little: an image of before, or one that was built before this state was
    first used, has older files than the manifest of another version; a deleted one has none.
    """
    found = hashlib.sha256(metadata.version("dbt-core").encode())
    for file in sorted(project_dir.rglob("*")):
        within = file.relative_to(project_dir)
        if file.suffix in _SOURCES and "target" not in within.parts:
            found.update(f"\n{within}\n".encode() + file.read_bytes())
    return found.hexdigest()


def session_dbt(target: Path, warehouse_path: Path, **fields: Any) -> SessionDbt:
    """The resource for a project that keeps its manifest and logs in `target`."""
    return SessionDbt(
        project_dir=str(PROJECT_DIR),
        profiles_dir=str(PROJECT_DIR),
        dbt_executable=dbt_executable(),
        warehouse_path=str(warehouse_path),
        target_dir=str(target.resolve()),
        **fields,
    )


def session_dbt_of(settings: Settings) -> SessionDbt:
    """The resource of an environment: on DuckDB, or on Spark with `ONEREC_SQL=spark`."""
    target = settings.root / "dbt"
    if settings.sql == "duckdb":
        return session_dbt(target, settings.warehouse_path)
    from resources.spark import spark_session_dbt

    return spark_session_dbt(target, settings.warehouse_path, settings.lake)


def _parse(target: Path, warehouse_path: Path, variables: Mapping[str, Any], sources: str) -> None:
    """Parse aside and move the manifest into place, for processes that load at the same time."""
    target.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix="parse-", dir=target))
    try:
        dbt = session_dbt(target, warehouse_path)
        dbt.cli(["parse", "--quiet", *_with_variables(variables)], target_path=aside).wait()
        (aside / _MADE_OF).write_text(sources)
        (target / BUILD).mkdir(exist_ok=True)
        # the first build goes on from what dbt remembers of this parse
        for name in (f"{BUILD}/partial_parse.msgpack", "manifest.json", _MADE_OF):
            if (made := aside / Path(name).name).exists():
                os.replace(made, target / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def these_days(days: Days) -> AbstractContextManager[None]:
    """The environment that a dbt process gets its days from; see macros/days.sql."""
    return environment(ONEREC_FIRST_DAY=days[0].isoformat(), ONEREC_LAST_DAY=days[1].isoformat())


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Environment variables, as long as the block lasts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
