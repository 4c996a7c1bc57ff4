"""Items that a full delivery of the catalogue no longer holds, landed in whatever order."""

import itertools
import random
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from assets import raw, sessions
from onerec import schema
from resources.parts import Delivery, table_part
from resources.warehouse import Warehouse
from tests.sql import delivered
from tests.sql.delivered import FileSource, FileSourceResource

DAYS = [date(2026, 6, 1) + timedelta(days=n) for n in range(4)]


def catalogue(items: dict[str, str], day: date, *, is_full: bool) -> Delivery:
    table = pa.table(
        {
            "item_id": pa.array(list(items), pa.string()),
            "title": pa.array(list(items.values()), pa.string()),
        }
    )
    part = table_part(table, schema.ITEMS, f"items[{day}]", day)
    return Delivery(days=[day], parts=[part], is_full=is_full)


def as_of(warehouse: Warehouse, day: date) -> dict[str, str]:
    """The catalogue at the end of a day, from what is landed."""
    with warehouse.connect(read_only=True) as connection:
        rows = connection.execute(
            "select item_id, title, is_withdrawn from raw.raw_items where delivered_on <= $day "
            "qualify row_number() over (partition by item_id order by delivered_on desc) = 1",
            {"day": day},
        ).fetchall()
    return {item: title for item, title, is_withdrawn in rows if not is_withdrawn}


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_each_day_holds_what_it_was_delivered_in_whatever_order_days_land(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    draw = random.Random(str(order))
    delivered_on = {
        day: {item: draw.choice("xy") for item in "abcdef" if draw.random() < 0.6} or {"a": "x"}
        for day in DAYS
    }
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    for number in order:
        day = DAYS[number]
        warehouse.land("raw_items", catalogue(delivered_on[day], day, is_full=True))
    again = DAYS[draw.randrange(4)]
    warehouse.land("raw_items", catalogue(delivered_on[again], again, is_full=True))
    assert {day: as_of(warehouse, day) for day in DAYS} == delivered_on


def test_a_partial_delivery_and_an_empty_one_withdraw_nothing(tmp_path: Path) -> None:
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    warehouse.land("raw_items", catalogue({"a": "x", "b": "x"}, DAYS[0], is_full=False))
    warehouse.land("raw_items", catalogue({"a": "y"}, DAYS[1], is_full=False))
    assert as_of(warehouse, DAYS[1]) == {"a": "y", "b": "x"}
    warehouse.land("raw_items", catalogue({}, DAYS[2], is_full=True))
    assert as_of(warehouse, DAYS[2]) == {"a": "y", "b": "x"}


class FullDeliveries(FileSourceResource):
    def open(self) -> FileSource:
        return FileSource(Path(self.data_dir or ""), delivers_full_catalogue=True)


def test_ids_and_history_stay_while_the_day_knows_what_is_gone(tmp_path: Path) -> None:
    first, second, third = DAYS[:3]
    for day, items in ((first, "abc"), (second, "a"), (third, "ab")):
        rows = [{"item_id": i, "duration_seconds": "20", "title": f"title {i}"} for i in items]
        delivered.deliver(tmp_path / "delivered", f"items-{day}", rows)
        events = [
            {"user_id": "u", "item_id": i, "event_time": f"{day} 10:00:00", "watch_seconds": "18"}
            for i in "ab"
        ]
        delivered.deliver(tmp_path / "delivered", f"events-{day}", events)
    selection = dg.AssetSelection.assets(raw.raw_events, raw.raw_items, sessions.session_sql)
    checks = (raw.catalogue_did_not_shrink, raw.raw_prior_history)
    delivered.materialize(tmp_path, [raw.raw_prior_history], None)
    source: dict[str, object] = {"source": FullDeliveries(data_dir=str(tmp_path / "delivered"))}
    results = [
        delivered.materialize(tmp_path, selection, day, more=checks[:1], replaced=source)
        for day in (first, second, third)
    ]
    tolerant = raw.CatalogueLaunchpad(max_withdrawn_share=0.7)
    config = dg.RunConfig({"raw_items_catalogue_did_not_shrink": tolerant})
    again = delivered.materialize(
        tmp_path, [raw.raw_items], second, more=checks[:1], replaced=source, config=config
    )
    assert all(e.passed for e in again.get_asset_check_evaluations())
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))

    def gone(day: date) -> dict[str, date | None]:
        table = warehouse.catalogue(day)
        return dict(
            zip(table["item_id"].to_pylist(), table["withdrawn_on"].to_pylist(), strict=True)
        )

    assert gone(first) == {"a": None, "b": None, "c": None}
    assert gone(second) == {"a": None, "b": second, "c": second}
    assert gone(third) == {"a": None, "b": None, "c": second}  # b came back
    assert warehouse.catalogue(third)["title"].to_pylist() == ["title a", "title b", "title c"]
    with warehouse.connect(read_only=True) as connection:
        # an exposure of a withdrawn item is history like any other, its duration is known
        kept = connection.execute(
            "select item_id, duration_seconds from int_events_sessionized "
            f"where session_date = '{second}' order by 1"
        ).fetchall()
    assert kept == [("a", 20.0), ("b", 20.0)]
    found = [
        {e.check_name: e for e in r.get_asset_check_evaluations()}["catalogue_did_not_shrink"]
        for r in results
    ]
    assert [e.passed for e in found] == [True, False, True]
    assert found[1].severity == dg.AssetCheckSeverity.WARN
    assert "2 items (66.7%, threshold 20.0%)" in (found[1].description or "")
