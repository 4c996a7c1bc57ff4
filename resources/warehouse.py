"""The warehouse: one DuckDB file, opened late and closed soon.

DuckDB lets one process write, and a reader blocks a writer, so every asset and check that opens the
file is in the Dagster pool `warehouse`. The bounded wait here is the second line: it covers a
notebook or a command line that holds the file. SQL that serves storage lives here; what a session
is lives in `dbt_sessions/`.
"""

import random
import time
from collections.abc import Iterator
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
from resources.landing import as_delivered

DATED = {"raw_events": schema.EVENTS, "raw_items": schema.ITEMS}
"""Landing tables that are delivered day by day."""
PARTITIONED = ("recommendations", "semantic_ids")
"""Tables that Python stages publish beside their artifacts, day by day."""

_FIRST_LOCK_WAIT_SECONDS = 0.05
_LONGEST_LOCK_WAIT_SECONDS = 2.0


class WarehouseError(Exception):
    """The warehouse cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Landing:
    """What landing a table did.

    Attributes:
        num_delivered: Rows in the delivery.
        num_stored: Rows kept: all events, but only the items that changed.
        ignored: Delivered columns that the data contract does not know.
        fingerprint: Hash of the stored rows, the same for the same rows in any order.
    """

    num_delivered: int
    num_stored: int
    ignored: tuple[str, ...]
    fingerprint: str


class Warehouse(dg.ConfigurableResource):
    """The DuckDB file."""

    path: str = Field(description="The DuckDB file")
    threads: int = Field(default=2, description="Threads of one connection")
    memory_limit: str = Field(default="1GB", description="Memory of one connection")
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

    def _wait_for_lock(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        file = Path(self.path)
        if read_only and not file.exists():
            raise WarehouseError(
                f"the warehouse {file} does not exist yet: materialise raw_events first"
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        config = {"threads": self.threads, "memory_limit": self.memory_limit}
        deadline = time.monotonic() + self.lock_wait_seconds
        pause = _FIRST_LOCK_WAIT_SECONDS
        while True:
            try:
                return duckdb.connect(str(file), read_only=read_only, config=config)
            except duckdb.IOException as error:
                if "lock" not in str(error).lower():
                    raise WarehouseError(
                        f"the warehouse {file} cannot be opened: {error}"
                    ) from error
                if time.monotonic() + pause > deadline:
                    raise WarehouseError(
                        f"the warehouse {file} was held by another process for "
                        f"{self.lock_wait_seconds:g} seconds: close the notebook, command line or "
                        f"run that has it open, or raise lock_wait_seconds ({error})"
                    ) from error
            # jitter, so that waiting processes do not all come back at the same moment
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_LOCK_WAIT_SECONDS)

    def land(self, table: str, day: date, delivered: pa.Table) -> Landing:
        """Replace a day of a landing table by what was delivered, as text, in one transaction.

        `raw_items` keeps only rows that are new or differ from what earlier days delivered. Days
        after `day` keep the catalogue they were delivered with, also when `day` is corrected later.

        Args:
            table: A key of `DATED`.
            day: The day it was delivered for.
            delivered: Columns of the data contract, in any type.

        Raises:
            ValueError: A required column is missing.
        """
        contract = DATED[table]
        rows, ignored = as_delivered(delivered, contract, f"{table}[{day}]")
        with self.connect() as connection, _transaction(connection):
            _create_landing(connection, table, contract, dated=True)
            if table == "raw_items":
                _replace_changes(connection, table, contract.names, day, rows)
            else:
                connection.register("delivered", rows)
                connection.execute(
                    f"delete from raw.{table} where delivered_on = $day", {"day": day}
                )
                connection.execute(
                    f"insert into raw.{table} by name "
                    "select *, $day as delivered_on from delivered",
                    {"day": day},
                )
            connection.execute(
                "delete from raw.deliveries where table_name = $table and delivered_on = $day",
                {"table": table, "day": day},
            )
            connection.execute(
                "insert into raw.deliveries values ($table, $day, $rows)",
                {"table": table, "day": day, "rows": rows.num_rows},
            )
            stored, fingerprint = _fingerprint(
                connection, f"raw.{table}", "where delivered_on = $day", {"day": day}
            )
        return Landing(
            num_delivered=rows.num_rows,
            num_stored=stored,
            ignored=ignored,
            fingerprint=fingerprint,
        )

    def land_prior_history(self, delivered: pa.Table) -> Landing:
        """Replace the prior history by what was delivered, as text, in one transaction."""
        rows, ignored = as_delivered(delivered, schema.PRIOR_HISTORY, "raw_prior_history")
        with self.connect() as connection, _transaction(connection):
            _create_landing(connection, "raw_prior_history", schema.PRIOR_HISTORY, dated=False)
            connection.execute("delete from raw.raw_prior_history")
            connection.register("delivered", rows)
            connection.execute("insert into raw.raw_prior_history by name select * from delivered")
            stored, fingerprint = _fingerprint(connection, "raw.raw_prior_history", "", {})
        return Landing(
            num_delivered=rows.num_rows,
            num_stored=stored,
            ignored=ignored,
            fingerprint=fingerprint,
        )

    def num_delivered(self, table: str, first: date, last: date) -> dict[date, int]:
        """Rows delivered per day, of the days that were delivered."""
        with self.connect(read_only=True) as connection:
            rows = connection.execute(
                "select delivered_on, num_rows from raw.deliveries where table_name = $table "
                "and delivered_on between $first and $last order by delivered_on",
                {"table": table, "first": first, "last": last},
            ).fetchall()
        return dict(rows)

    def rejections(self, first: date, last: date) -> dict[str, int]:
        """Refused events per reason over some days, the most frequent reason first."""
        with self.connect(read_only=True) as connection:
            rows = connection.execute(
                "select reason, count(*) from rejected_events "
                "where delivered_on between $first and $last group by reason order by 2 desc, 1",
                {"first": first, "last": last},
            ).fetchall()
        return dict(rows)

    @contextmanager
    def session_examples(
        self, first: date, last: date, batch_rows: int = 50_000
    ) -> Iterator[pa.RecordBatchReader]:
        """Sessions of some days in batches, ordered by (started_at, session_id).

        The connection stays open inside the block: write the batches, do not compute on them.
        """
        with self.connect(read_only=True) as connection:
            yield (
                connection.table("session_examples")
                .filter(f"session_date between date '{first}' and date '{last}'")
                .order("started_at, session_id")
                .to_arrow_reader(batch_rows)
            )

    def catalogue(self, day: date) -> pa.Table:
        """Items first seen up to a day, as they looked at its end.

        Returns:
            The columns of `schema.ITEMS` and `first_seen` (date32), in the order of (first_seen,
            item_id).
        """
        with self.connect(read_only=True) as connection:
            rows = connection.sql(
                "select item_id, duration_seconds, title, category, author_id, published_at, "
                "first_seen from stg_items where valid_from <= $day and first_seen <= $day "
                "qualify row_number() over (partition by item_id order by valid_from desc) = 1 "
                "order by first_seen, item_id",
                params={"day": day},
            ).to_arrow_table()
        first_seen = pa.field("first_seen", pa.date32(), nullable=False)
        return rows.cast(schema.ITEMS.append(first_seen))

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
            connection.execute(f"delete from {table} where partition_date = $day", {"day": day})
            connection.execute(
                f"insert into {table} by name select *, $day as partition_date from published",
                {"day": day},
            )
        return rows.num_rows


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.begin()
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _create_landing(
    connection: duckdb.DuckDBPyConnection, table: str, contract: pa.Schema, *, dated: bool
) -> None:
    columns = [f"{name} varchar" for name in contract.names]
    columns += ["delivered_on date not null"] if dated else []
    connection.execute("create schema if not exists raw")
    connection.execute(f"create table if not exists raw.{table} ({', '.join(columns)})")
    connection.execute(
        "create table if not exists raw.deliveries "
        "(table_name varchar not null, delivered_on date not null, num_rows bigint not null)"
    )


def _replace_changes(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    columns: list[str],
    day: date,
    rows: pa.Table,
) -> None:
    """Replace a day's changes, and leave the catalogue of every later day as it was delivered."""
    names = ", ".join(columns)
    same = " and ".join(f"a.{c} is not distinct from b.{c}" for c in columns)

    def known(name: str, until: str, then: date) -> None:
        connection.execute(
            f"create or replace temp table {name} as select {names} from raw.{table} "
            f"where delivered_on {until} $then "
            "qualify rank() over (partition by item_id order by delivered_on desc) = 1",
            {"then": then},
        )

    # all of a result is fetched: DuckDB 2 lets an open one own the connection
    found = connection.execute(
        "select min(delivered_on) from raw.deliveries where table_name = $table "
        "and delivered_on > $day",
        {"table": table, "day": day},
    ).fetchall()
    next_day = found[0][0]
    if next_day:
        known("next_before", "<=", next_day)
    connection.register("delivered", rows)
    connection.execute(f"delete from raw.{table} where delivered_on = $day", {"day": day})
    known("earlier", "<", day)
    connection.execute(
        f"insert into raw.{table} by name select a.*, $day as delivered_on "
        f"from delivered as a anti join earlier as b on {same}",
        {"day": day},
    )
    if next_day:
        known("next_after", "<=", next_day)
        connection.execute(
            f"insert into raw.{table} by name select a.*, $day as delivered_on "
            f"from next_before as a anti join next_after as b on {same}",
            {"day": next_day},
        )


def _fingerprint(
    connection: duckdb.DuckDBPyConnection, table: str, where: str, values: dict[str, date]
) -> tuple[int, str]:
    """Number of rows and a hash that does not depend on their order."""
    ((rows, total),) = connection.execute(
        f"select count(*), sum(cast(hash(t) as hugeint)) from {table} as t {where}", values
    ).fetchall()
    return rows, f"{rows}-{total or 0:x}"
