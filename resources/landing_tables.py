"""The landing tables, `raw.*`: typed rows as delivered, one transaction for a delivery."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import duckdb
import pyarrow as pa

from onerec import schema
from resources.landing import insert_part, plausible, sql_columns
from resources.parts import Delivery

DATED = {"raw_events": schema.EVENTS, "raw_items": schema.ITEMS}
"""Landing tables that are delivered day by day."""
FEW_ROWS = 10
"""So many rows without a usable time are bad rows; if a day has more, and no other, all are."""


class OldLandingError(Exception):
    """A landing table was made by a version of another data contract."""


@dataclass(frozen=True, kw_only=True)
class Landing:
    """What landing a table did.

    Attributes:
        num_delivered: Rows in the delivery.
        num_stored: Rows kept: all events, but only the items that changed.
        ignored: Delivered columns that the data contract does not know.
        fingerprint: Hash of the stored rows and of their order, which breaks ties in time.
    """

    num_delivered: int
    num_stored: int
    ignored: tuple[str, ...]
    fingerprint: str


def land(
    connection: duckdb.DuckDBPyConnection, table: str, delivery: Delivery
) -> dict[date, Landing]:
    """Replace days of a landing table by what was delivered; see `Warehouse.land`."""
    contract = DATED[table]
    first, last = delivery.days[0], delivery.days[-1]
    _create(connection, table, contract, dated=True)
    if table == "raw_items":
        counts = {first: _replace_changes(connection, table, contract, delivery)}
    else:
        connection.execute(
            f"delete from raw.{table} where delivered_on between $first and $last",
            {"first": first, "last": last},
        )
        for part in delivery.parts:
            insert_part(connection, f"raw.{table}", part, contract, delivery.days)
        counts = _rows_of_days(connection, table, first, last)
        for day in _days_without_times(connection, first, last):
            delivery.require_times(day)
    prints = _fingerprints(connection, f"raw.{table}", contract, first, last)
    landings = {
        day: Landing(
            num_delivered=counts.get(day, 0),
            num_stored=prints.get(day, (0, ""))[0],
            ignored=delivery.ignored,
            fingerprint=prints.get(day, (0, "0-0"))[1],
        )
        for day in delivery.days
    }
    _note_deliveries(connection, table, landings)
    return landings


def land_prior_history(connection: duckdb.DuckDBPyConnection, delivery: Delivery) -> Landing:
    """Replace the prior history by what was delivered."""
    contract, table = schema.PRIOR_HISTORY, "raw_prior_history"
    _create(connection, table, contract, dated=False)
    connection.execute(f"delete from raw.{table}")
    for part in delivery.parts:
        insert_part(connection, f"raw.{table}", part, contract, [])
    ((stored, total),) = connection.execute(f"select {_hash(contract)} from raw.{table}").fetchall()
    return Landing(
        num_delivered=stored,
        num_stored=stored,
        ignored=delivery.ignored,
        fingerprint=f"{stored}-{total or 0:x}",
    )


def _create(
    connection: duckdb.DuckDBPyConnection, table: str, contract: pa.Schema, *, dated: bool
) -> None:
    columns = sql_columns(contract)
    columns += ", delivered_on date not null" if dated else ""
    columns += ", event_date date" if "event_time" in contract.names else ""
    columns += ", is_withdrawn boolean default false" if table == "raw_items" else ""
    connection.execute("create schema if not exists raw")
    connection.execute(f"create table if not exists raw.{table} ({columns})")
    found = connection.execute(f"describe raw.{table}").fetchall()
    if not {*contract.names, "delivered_row"} <= {row[0] for row in found}:
        raise OldLandingError(
            f"raw.{table} was made by an earlier version, of another data contract: remove the "
            "warehouse file (see the CHANGELOG) and ingest the log again"
        )
    if table == "raw_items":  # a table of an earlier version
        connection.execute(
            "alter table raw.raw_items add column if not exists is_withdrawn boolean default false"
        )
    create_deliveries(connection)


def create_deliveries(connection: duckdb.DuckDBPyConnection) -> None:
    """The record of what was landed; a table of an earlier version gets the fingerprints."""
    connection.execute(
        "create table if not exists raw.deliveries (table_name varchar not null, "
        "delivered_on date not null, num_rows bigint not null, fingerprint varchar)"
    )
    connection.execute("alter table raw.deliveries add column if not exists fingerprint varchar")


def _note_deliveries(
    connection: duckdb.DuckDBPyConnection, table: str, landings: Mapping[date, Landing]
) -> None:
    connection.execute(
        "delete from raw.deliveries where table_name = $table "
        "and delivered_on between $first and $last",
        {"table": table, "first": min(landings), "last": max(landings)},
    )
    connection.executemany(
        "insert into raw.deliveries values (?, ?, ?, ?)",
        [(table, day, x.num_delivered, x.fingerprint) for day, x in landings.items()],
    )


def _rows_of_days(
    connection: duckdb.DuckDBPyConnection, table: str, first: date, last: date
) -> dict[date, int]:
    return dict(
        connection.execute(
            f"select delivered_on, count(*) from raw.{table} "
            "where delivered_on between $first and $last group by delivered_on",
            {"first": first, "last": last},
        ).fetchall()
    )


def _days_without_times(
    connection: duckdb.DuckDBPyConnection, first: date, last: date
) -> list[date]:
    """Days of which no row has a usable time, though there are more than a few."""
    rows = connection.execute(
        "select delivered_on from raw.raw_events where delivered_on between $first and $last "
        f"group by delivered_on having count(*) filter ({plausible('event_time')}) = 0 "
        f"and count(*) > {FEW_ROWS} order by delivered_on",
        {"first": first, "last": last},
    ).fetchall()
    return [row[0] for row in rows]


def _replace_changes(
    connection: duckdb.DuckDBPyConnection, table: str, contract: pa.Schema, delivery: Delivery
) -> int:
    """Replace a day's changes, and leave the catalogue of every later day as it was delivered.

    Returns:
        Number of rows delivered.
    """
    (day,) = delivery.days
    # all of a result is fetched: DuckDB 2 lets an open one own the connection
    found = connection.execute(
        "select min(delivered_on) from raw.deliveries where table_name = $table "
        "and delivered_on > $day and num_rows > 0",
        {"table": table, "day": day},
    ).fetchall()
    next_day = found[0][0]
    if next_day:
        _catalogue(connection, "next_before", f"raw.{table}", "<=", next_day)
    connection.execute(f"create or replace temp table delivered as from raw.{table} limit 0")
    for part in delivery.parts:
        insert_part(connection, "delivered", part, contract, delivery.days)
    connection.execute("update delivered set is_withdrawn = false")
    ((num_rows,),) = connection.execute("select count(*) from delivered").fetchall()
    connection.execute(f"delete from raw.{table} where delivered_on = $day", {"day": day})
    _catalogue(connection, "earlier", f"raw.{table}", "<", day)
    if delivery.is_full and num_rows:  # a delivery without a row is none
        _withdraw(connection, "delivered", day, before="earlier", now="delivered")
    connection.execute(
        f"insert into raw.{table} by name {_changed(contract, 'earlier', 'delivered')}"
    )
    if next_day:
        _catalogue(connection, "next_after", f"raw.{table}", "<=", next_day)
        connection.execute(
            f"insert into raw.{table} by name select * replace ($day as delivered_on) "
            f"from ({_changed(contract, 'next_after', 'next_before')})",
            {"day": next_day},
        )
        if delivery.is_full:
            _withdraw(connection, f"raw.{table}", next_day, before="next_after", now="next_before")
    return num_rows


def _changed(contract: pa.Schema, before: str, now: str) -> str:
    """SQL: rows of a catalogue that are of items with other rows than in the one before.

    All rows of such an item: which of several counts is decided among those of one day, so that a
    day must not hold a part of them.
    """
    # a change of the file or of the row in it is no change of the item
    columns = ", ".join([*contract.names, "unreadable", "is_withdrawn"])
    states = [
        f"select item_id, count(*), sum(cast(hash({columns}) as hugeint)) from {name} group by 1"
        for name in (now, before)
    ]
    return (
        f"select * from {now} as a semi join ({' except '.join(states)}) as b "
        "on a.item_id is not distinct from b.item_id"
    )


def _catalogue(
    connection: duckdb.DuckDBPyConnection, name: str, table: str, until: str, then: date
) -> None:
    """A temporary table of each item's last row before a day, or up to it; withdrawn ones too."""
    connection.execute(
        f"create or replace temp table {name} as from {table} where delivered_on {until} $then "
        "qualify rank() over (partition by item_id order by delivered_on desc) = 1",
        {"then": then},
    )


def _withdraw(
    connection: duckdb.DuckDBPyConnection, into: str, day: date, *, before: str, now: str
) -> None:
    """Add a row for each item of a catalogue that a full delivery of a day no longer holds: as it
    was last, withdrawn from that day on."""
    connection.execute(
        f"insert into {into} by name "
        f"select a.* replace (true as is_withdrawn, $day as delivered_on) from {before} as a "
        f"where not a.is_withdrawn and a.item_id is not null and a.item_id not in "
        f"(select item_id from {now} where item_id is not null) "
        "qualify row_number() over (partition by a.item_id order by a.delivered_row) = 1",
        {"day": day},
    )


def _fingerprints(
    connection: duckdb.DuckDBPyConnection, table: str, contract: pa.Schema, first: date, last: date
) -> dict[date, tuple[int, str]]:
    """Of each day: number of rows, and a hash of the rows and of their order."""
    rows = connection.execute(
        f"select delivered_on, {_hash(contract)} from {table} "
        "where delivered_on between $first and $last group by delivered_on",
        {"first": first, "last": last},
    ).fetchall()
    return {day: (number, f"{number}-{total:x}") for day, number, total in rows}


def _hash(contract: pa.Schema) -> str:
    withdrawn = ["is_withdrawn"] if contract == schema.ITEMS else []
    columns = ", ".join([*contract.names, "unreadable", "delivered_row", *withdrawn])
    return f"count(*), sum(cast(hash({columns}) as hugeint))"
