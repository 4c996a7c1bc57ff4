"""The lake: a directory of Parquet files that DuckDB and a cluster's SQL engine both read.

    <lake>/raw/<table>/          landed rows, a directory for each delivered day of the events
    <lake>/<schema>/<table>/     the tables that the engine built, a directory for each day

Landing stays in DuckDB, a delivered day at a time; what the engine built is seen in DuckDB as views
of its files, so that whatever reads the warehouse reads the same names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb

_EMPTY_DAY = date(1970, 1, 1)
"""A file of no rows that holds the columns: Spark finds no columns under a path without files."""
_WHOLE = ("raw_items", "raw_prior_history", "deliveries")
"""Landing tables that are small: changes of items, and what was known before the log."""


@dataclass(frozen=True)
class Lake:
    """The directory; every worker of the engine reaches it under the same path.

    Attributes:
        root: Where it is.
        schema: The engine's schema with the tables.
    """

    root: Path
    schema: str

    def publish_raw(
        self, connection: duckdb.DuckDBPyConnection, first: date, last: date
    ) -> list[date]:
        """Write what was landed for some days, and the small tables whole.

        A file of events is named after the hash of the day's rows, and one that is there already is
        not written again.

        Returns:
            The days that were written.
        """
        raw = self.root / "raw"
        for table in _WHOLE:
            _write(connection, f"from raw.{table}", raw / table / "rows.parquet")
        events = raw / "raw_events"
        columns = "select * exclude (delivered_on) from raw.raw_events"
        empty = events / f"delivered_on={_EMPTY_DAY}" / "columns.parquet"
        _write(connection, f"{columns} limit 0", empty)
        landed = connection.execute(
            "select delivered_on, fingerprint, num_rows from raw.deliveries "
            "where table_name = 'raw_events' and delivered_on between $first and $last",
            {"first": first, "last": last},
        ).fetchall()
        written = []
        for day, fingerprint, num_rows in landed:
            directory = events / f"delivered_on={day}"
            file = directory / f"{fingerprint}.parquet"
            if num_rows and not file.exists():
                rows = f"{columns} where delivered_on = date '{day}' order by delivered_row"
                _write(connection, rows, file)
                written.append(day)
            for old in directory.glob("*.parquet"):
                if old != file or not num_rows:
                    old.unlink()
        return written

    def show_tables(
        self, connection: duckdb.DuckDBPyConnection, tables: Sequence[tuple[str, str | None]]
    ) -> None:
        """Views of the files of the engine's tables, under the tables' names.

        Args:
            connection: To the warehouse.
            tables: Names, and the column that each is partitioned by.
        """
        for table, day in tables:
            pattern = self.root / self.schema / table / ("*/*.parquet" if day else "*.parquet")
            if not any((self.root / self.schema / table).glob("**/*.parquet")):
                continue  # no row yet, and so no columns
            options = f", hive_types = {{'{day}': date}}" if day else ""
            files = f"read_parquet('{_quoted(pattern)}', hive_partitioning = {bool(day)}{options})"
            kinds = connection.execute(f"describe select * from {files}").fetchall()
            # the warehouse's times are UTC without a zone
            naive = ", ".join(
                f"timezone('UTC', {name}) as {name}"
                for name, kind, *_ in kinds
                if kind == "TIMESTAMP WITH TIME ZONE"
            )
            replaced = f" replace ({naive})" if naive else ""
            connection.execute(f"create or replace view {table} as select *{replaced} from {files}")


def _write(connection: duckdb.DuckDBPyConnection, query: str, file: Path) -> None:
    """Write a query's rows beside a file and move them into its place."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # by its name Spark takes what an ended run left for no data
    aside = file.with_name(f"_{file.name}.aside")
    connection.execute(f"copy ({query}) to '{_quoted(aside)}' (format parquet)")
    aside.replace(file)


def _quoted(path: Path) -> str:
    """A path inside a SQL text."""
    return str(path).replace("'", "''")
