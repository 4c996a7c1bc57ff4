"""What of a catalogue is stored: the items that changed, with all of their rows."""

from datetime import date

import duckdb
import pyarrow as pa
import pytest

from onerec import schema
from resources import landing_tables
from resources.parts import Delivery, table_part

FIRST, SECOND, THIRD = (date(2026, 6, d) for d in (1, 2, 3))
Rows = list[tuple[str, str]]


@pytest.fixture
def connection():
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        yield connection


def land(connection: duckdb.DuckDBPyConnection, day: date, rows: Rows) -> Rows:
    """Land item ids and titles; what is stored of the day."""
    ids, titles = zip(*rows, strict=True)
    part = table_part(pa.table({"item_id": ids, "title": titles}), schema.ITEMS, "items", day)
    landing_tables.land(connection, "raw_items", Delivery(days=[day], parts=[part], is_full=True))
    return stored(connection, day)


def stored(connection: duckdb.DuckDBPyConnection, day: date) -> Rows:
    return connection.execute(
        "select item_id, title from raw.raw_items where delivered_on = $day order by all",
        {"day": day},
    ).fetchall()


def test_a_duplicate_that_was_taken_out_of_the_catalogue_is_a_change(connection) -> None:
    land(connection, FIRST, [("a", "wrong"), ("a", "right"), ("b", "x")])
    assert land(connection, SECOND, [("a", "right"), ("b", "x")]) == [("a", "right")]
    assert land(connection, THIRD, [("a", "right"), ("b", "x")]) == []


def test_an_item_that_stands_twice_does_not_change_every_day(connection) -> None:
    land(connection, FIRST, [("a", "old"), ("a", "other")])
    changed = [("a", "new"), ("a", "other")]  # the first of them counts: all of them are stored
    assert land(connection, SECOND, changed) == changed
    assert land(connection, THIRD, changed) == []
    assert land(connection, SECOND, [("a", "new")]) == [("a", "new")]
    assert stored(connection, THIRD) == changed  # as it was delivered
