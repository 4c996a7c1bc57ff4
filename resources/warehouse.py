"""The warehouse: one DuckDB file, opened late and closed soon.

DuckDB lets one process write, and a reader blocks a writer, so every asset and check that opens the
file is in the Dagster pool `warehouse`. The bounded wait for the lock covers a
notebook or a command line that holds the file. SQL that serves storage lives here; what a session
is lives in `dbt_sessions/`.
"""

import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dagster as dg
import duckdb
import pyarrow as pa
from pydantic import Field

from onerec import schema
from onerec.disk import disk_named
from resources import landing_tables
from resources.duckdb_memory import memory_limit
from resources.landing_tables import Landing
from resources.parts import Delivery
from resources.session_stream import ListLengths, stream_sessions

log = logging.getLogger("onerec.warehouse")
"""Below `onerec`: Dagster keeps what its loggers say in the run's log, and commands print it."""
RESTORE = "Restore it, or move it away: the next nightly run ingests the days of its window again"
"""What to do with a damaged warehouse."""
PARTITIONED = ("recommendations", "semantic_ids")
"""Tables that Python stages publish beside their artifacts, day by day."""

_DATED_TABLES = """
    select schema_name, table_name, min_by(column_name, preference) as day_column
    from duckdb_columns()
    join duckdb_tables() using (schema_name, table_name)
    join (
        values ('partition_date', 0), ('session_date', 1), ('delivered_on', 2)
    ) as days (column_name, preference) using (column_name)
    where (schema_name, table_name) not in (
        ('raw', 'raw_items'), ('raw', 'deliveries'), ('main', 'session_days'),
        ('main', 'rejected_items')
    )
    group by all
    order by all
"""
"""Tables that hold rows of a day, and the column that names it."""

_FIRST_LOCK_WAIT_SECONDS = 0.05
_LONGEST_LOCK_WAIT_SECONDS = 2.0


class WarehouseError(Exception):
    """The warehouse cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class DeliveredDay:
    """A day of the log.

    Attributes:
        day: Which.
        fingerprint: Of what was delivered of it, late rows and its catalogue included.
        is_built: Its sessions were built from that.
        is_built_alike: And with the settings asked for.
    """

    day: date
    fingerprint: str
    is_built: bool
    is_built_alike: bool


class Warehouse(dg.ConfigurableResource):
    """The DuckDB file."""

    path: str = Field(description="The DuckDB file")
    threads: int = Field(default=2, description="Threads of one connection")
    memory_limit: str = Field(default=memory_limit(), description="Memory of one connection")
    lock_wait_seconds: float = Field(
        default=120.0, description="How long to wait while another process holds the file"
    )

    @contextmanager
    def connect(self, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that is closed whatever happens.

        Raises:
            WarehouseError: There is no file to read, or another process held it too long.
            DiskFullError: There is no room; the message names the disk.
        """
        connection = self._wait_for_lock(read_only)
        try:
            # days are UTC days: a text without an offset must not be read in the machine's zone
            connection.execute("set TimeZone = 'UTC'")
            with disk_named(Path(self.path).parent, "the warehouse"):
                yield connection
        finally:
            connection.close()

    def require_ready(self) -> None:
        """Wait until no other process holds the file, for a program that waits in silence.

        Raises:
            WarehouseError: Another process held it too long, or an earlier version made its tables.
        """
        with self.connect() as connection:
            self._require_this_version(connection)

    def _require_this_version(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Refuse sessions without what this version joins them by, built as their days may be."""
        older = connection.execute(
            "select table_name from duckdb_columns() "
            "where schema_name = 'main' and table_name in ('sessions', 'int_events_sessionized') "
            "group by table_name having not bool_or(column_name = 'session_number') order by all"
        ).fetchall()
        if older:
            raise WarehouseError(
                f"{self.path}: {' and '.join(name for (name,) in older)} have no column "
                "session_number, so an earlier version made the warehouse: rm "
                f"'{self.path}'*, then ingest the days again"
            )

    def _wait_for_lock(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        file = Path(self.path)
        if read_only and not file.exists():
            raise WarehouseError(
                f"the warehouse {file} does not exist yet: materialise raw_events first"
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        config = {"threads": self.threads, "memory_limit": self.memory_limit}
        deadline = time.monotonic() + self.lock_wait_seconds
        pause, said = _FIRST_LOCK_WAIT_SECONDS, False
        while True:
            try:
                return duckdb.connect(str(file), read_only=read_only, config=config)
            except duckdb.IOException as error:
                if not _is_lock(error):
                    remedy = (
                        "This user has to be able to read and write it"
                        if "Permission denied" in str(error)
                        else RESTORE
                    )
                    raise WarehouseError(
                        f"the warehouse {file} cannot be opened: {error}. {remedy}"
                    ) from error
                if time.monotonic() + pause > deadline:
                    raise WarehouseError(
                        f"the warehouse {file} was held by another process for "
                        f"{self.lock_wait_seconds:g} seconds: close the notebook, command line or "
                        f"run that has it open, or raise lock_wait_seconds ({error})"
                    ) from error
            if pause == _LONGEST_LOCK_WAIT_SECONDS and not said:
                said = True
                log.warning(
                    "another process holds %s: waiting up to %g s", file, self.lock_wait_seconds
                )
            # jitter, so that waiting processes do not all come back at the same moment
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_LOCK_WAIT_SECONDS)

    def land(self, table: str, delivery: Delivery) -> dict[date, Landing]:
        """Replace days of a landing table by what was delivered, typed, in one transaction.

        `raw_items` keeps only rows that are new or differ from what earlier days delivered. Days
        after the delivered ones keep the catalogue they were delivered with, also when an earlier
        day is corrected later.

        Args:
            table: A key of `DATED`.
            delivery: What was delivered; one day for `raw_items`.

        Raises:
            ValueError: A file cannot be read, or no row of a day has a usable time.
            OldLandingError: The table was made by an earlier version.
        """
        with self.connect() as connection, _transaction(connection):
            return landing_tables.land(connection, table, delivery)

    def land_prior_history(self, delivery: Delivery) -> Landing:
        """Replace the prior history by what was delivered, typed, in one transaction."""
        with self.connect() as connection, _transaction(connection):
            return landing_tables.land_prior_history(connection, delivery)

    def num_delivered(self, table: str, first: date, last: date) -> dict[date, int]:
        """Rows delivered per day, of the days that were delivered."""
        with self.connect(read_only=True) as connection:
            rows = connection.execute(
                "select delivered_on, num_rows from raw.deliveries where table_name = $table "
                "and delivered_on between $first and $last order by delivered_on",
                {"table": table, "first": first, "last": last},
            ).fetchall()
        return dict(rows)

    def fingerprints(self, table: str, first: date, last: date) -> dict[date, str | None]:
        """The fingerprint of what is landed for each day of a range, without days that never were;
        None for a day that an earlier version landed."""
        with self.connect() as connection:
            if not _exists(connection, "raw", "deliveries"):
                return {}
            landing_tables.create_deliveries(connection)
            rows = connection.execute(
                "select delivered_on, fingerprint from raw.deliveries where table_name = $table "
                "and delivered_on between $first and $last",
                {"table": table, "first": first, "last": last},
            ).fetchall()
        return dict(rows)

    def delivered_days(self, first: date, last: date, built_with: str) -> list[DeliveredDay]:
        """The delivered days of a range, oldest first, and which of them are built as they are.

        Args:
            first: First day of the range.
            last: Last day of it.
            built_with: The variable of the session SQL that stands for the settings.
        """
        with self.connect(read_only=True) as connection:
            days, built = "delivered_days", "built.fingerprint"
            join = "left join session_days as built on days.event_date = built.session_date"
            if not _exists(connection, "main", "session_days"):  # before the first build
                days = (
                    "(select delivered_on as event_date, min(fingerprint) filter "
                    "(table_name = 'raw_events') || '/' || coalesce(min(fingerprint) filter "
                    "(table_name = 'raw_items'), '') as fingerprint from raw.deliveries "
                    "group by all having bool_or(table_name = 'raw_events'))"
                )
                built, join = "null", ""
            rows = connection.execute(
                f"select event_date, days.fingerprint, {built} from {days} as days {join} "
                "where event_date between $first and $last order by event_date",
                {"first": first, "last": last},
            ).fetchall()
        return [
            DeliveredDay(
                day=day,
                fingerprint=fingerprint,
                is_built=(built_from or "").partition("|")[0] == fingerprint,
                is_built_alike=built_from == f"{fingerprint}|{built_with}",
            )
            for day, fingerprint, built_from in rows
        ]

    def sessions_per_day(self, first: date, last: date) -> dict[date, int]:
        """Number of sessions of each day that was built, oldest first; 0 for a day without any."""
        with self.connect(read_only=True) as connection:
            rows = connection.execute(
                "select session_date, num_sessions from session_days "
                "where session_date between $first and $last order by session_date",
                {"first": first, "last": last},
            ).fetchall()
        return dict(rows)

    @contextmanager
    def sessions(
        self, first: date, last: date, lengths: ListLengths
    ) -> Iterator[Iterator[pa.RecordBatch]]:
        """Sessions of some days in batches; see `stream_sessions`.

        The connection stays open inside the block: write the batches, do not compute on them.

        Raises:
            WarehouseError: There is no file, or an earlier version made its tables.
        """
        with self.connect(read_only=True) as connection:
            self._require_this_version(connection)
            yield stream_sessions(connection, first, last, lengths)

    def catalogue(self, day: date) -> pa.Table:
        """Items first seen up to a day, as they looked at its end; withdrawn ones as they did last.

        Returns:
            The columns of `schema.ITEMS`, `first_seen` and `withdrawn_on` (date32; null for an item
            that is still in the catalogue), in the order of (first_seen, item_id).

        Raises:
            WarehouseError: No catalogue was built yet, or the file cannot be used.
        """
        with self.connect(read_only=True) as connection:
            if not _exists(connection, "main", "stg_items"):
                raise WarehouseError(f"{self.path} has no catalogue yet: run the job ingest first")
            rows = connection.sql(
                "select item_id, duration_seconds, title, category, author_id, published_at, "
                "features, first_seen, case when is_withdrawn then valid_from end as withdrawn_on "
                "from stg_items where valid_from <= $day and first_seen <= $day "
                "qualify row_number() over (partition by item_id order by valid_from desc) = 1 "
                "order by first_seen, item_id",
                params={"day": day},
            ).to_arrow_table()
        first_seen = pa.field("first_seen", pa.date32(), nullable=False)
        withdrawn_on = pa.field("withdrawn_on", pa.date32())
        return rows.cast(schema.ITEMS.append(first_seen).append(withdrawn_on))

    def withdrawn_items(self, first: date, last: date) -> dict[date, tuple[int, int]]:
        """For each delivered day of the catalogue: items withdrawn, and rows delivered."""
        with self.connect(read_only=True) as connection:
            rows = connection.execute(
                "select delivered_on, count(*) filter (items.is_withdrawn), any_value(num_rows) "
                "from raw.deliveries as days left join raw.raw_items as items "
                "using (delivered_on) where table_name = 'raw_items' "
                "and delivered_on between $first and $last "
                "group by delivered_on order by delivered_on",
                {"first": first, "last": last},
            ).fetchall()
        return {day: (withdrawn, delivered) for day, withdrawn, delivered in rows}

    def titles(self, day: date) -> pa.Table:
        """`item_id` and `title` of the items first seen up to a day; none before the first run."""
        with self.connect(read_only=True) as connection:
            if not _exists(connection, "main", "stg_items"):
                return pa.table({"item_id": pa.array([], pa.string()), "title": []})
            return connection.sql(
                "select item_id, title from stg_items where valid_from <= $day "
                "qualify row_number() over (partition by item_id order by valid_from desc) = 1",
                params={"day": day},
            ).to_arrow_table()

    def erase_users(self, users: Sequence[str]) -> dict[str, int]:
        """Delete the users' rows from every table with a column `user_id`; rows by table.

        Raises:
            WarehouseError: The tables are those of another engine.
        """
        erased: dict[str, int] = {}
        with self.connect() as connection, _transaction(connection):
            if _has_lake(connection):
                raise WarehouseError(
                    f"{self.path} shows tables of another engine: delete the users' rows there and "
                    "in the lake's raw/ files, see docs/scaling.md"
                )
            tables = connection.execute(
                "select schema_name, table_name from duckdb_columns() join duckdb_tables() "
                "using (schema_name, table_name) where column_name = 'user_id' order by all"
            ).fetchall()
            for names in tables:
                table = ".".join(f'"{name}"' for name in names)
                deleted = connection.execute(
                    f"delete from {table} where user_id::varchar in (select unnest($users))",
                    {"users": list(users)},
                ).fetchall()
                if deleted[0][0]:
                    erased[".".join(names)] = deleted[0][0]
        return erased

    def remove_days(
        self, *, log_before: date, published_before: date, dry_run: bool
    ) -> dict[str, int]:
        """Delete users' rows of days before one, and tables that nightly runs before one published.

        The catalogue and the record of deliveries stay: they grow with what changed alone.

        Args:
            log_before: The first day of the log that stays.
            published_before: The first nightly run whose published tables stay.
            dry_run: Only count.

        Returns:
            Rows by table.
        """
        removed: dict[str, int] = {}
        with self.connect() as connection, _transaction(connection):
            tables = connection.execute(_DATED_TABLES).fetchall()
            for schema_name, name, column in tables:
                table = f'"{schema_name}"."{name}"'
                before = published_before if name in PARTITIONED else log_before
                verb = "select count(*)" if dry_run else "delete"
                rows = connection.execute(
                    f"{verb} from {table} where {column} < $before", {"before": before}
                ).fetchall()
                if rows[0][0]:
                    removed[f"{schema_name}.{name}"] = rows[0][0]
        return removed

    def compact(self) -> tuple[int, int]:
        """Write the file anew, without the pages that deleted rows left; bytes before and after.

        Readers and writers wait as for any writer; the new file takes the place of the old one in
        one step.
        """
        file, aside = Path(self.path), Path(f"{self.path}.compacting")
        aside.unlink(missing_ok=True)
        with self.connect() as connection:
            connection.execute("checkpoint")
            before = file.stat().st_size
            (name,) = connection.execute("select current_database()").fetchall()[0]
            connection.execute(f"attach '{_quoted(aside)}' as compacted")
            connection.execute(f'copy from database "{name}" to compacted')
            connection.execute("detach compacted")
            aside.replace(file)
        return before, file.stat().st_size

    def replace_partition(self, table: str, day: date, rows: pa.Table) -> int:
        """Replace a day of a published table, in one transaction.

        The table gets the columns of `rows` and `partition_date`, the day.

        Args:
            table: One of `PARTITIONED`.
            day: The partition.
            rows: The partition's rows.

        Returns:
            The number of rows written.
        """
        if table not in PARTITIONED:
            raise ValueError(f"table={table!r}: use one of {', '.join(PARTITIONED)}")
        with self.connect() as connection, _transaction(connection):
            connection.register("published", rows)
            connection.execute(
                f"create table if not exists {table} as "
                "select *, cast(null as date) as partition_date from published limit 0"
            )
            # a table of an earlier version lacks what was added since
            there = {row[0] for row in connection.execute(f"describe {table}").fetchall()}
            for name, kind, *_ in connection.execute("describe published").fetchall():
                if name not in there:
                    connection.execute(f"alter table {table} add column {name} {kind}")
            connection.execute(f"delete from {table} where partition_date = $day", {"day": day})
            connection.execute(
                f"insert into {table} by name select *, $day as partition_date from published",
                {"day": day},
            )
        return rows.num_rows


def _is_lock(error: duckdb.IOException) -> bool:
    """Whether another process holds the file; its path, which may hold the word, says nothing."""
    return "Could not set lock" in str(error)


def _exists(connection: duckdb.DuckDBPyConnection, schema_name: str, table: str) -> bool:
    found = connection.execute(
        "select 1 from information_schema.tables "
        "where table_schema = $schema and table_name = $table",
        {"schema": schema_name, "table": table},
    ).fetchall()
    return bool(found)


def _has_lake(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether tables of users are views of another engine's files."""
    found = connection.execute(
        "select 1 from duckdb_views() where not internal and sql ilike '%read_parquet(%' limit 1"
    ).fetchall()
    return bool(found)


def _quoted(path: Path) -> str:
    """A path inside a SQL text."""
    return str(path).replace("'", "''")


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.begin()
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()
