"""A temporary warehouse: a log is landed and cut into sessions as usual, then all is removed."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from onerec import schema
from onerec.datasets import EventSource
from resources.dbt import SessionDbt
from resources.deliveries import delivered_history, deliveries
from resources.file_source import FileSource
from resources.landing import local_day
from resources.warehouse import Warehouse

SAMPLED_EVENTS = 1_000_000
"""Where a log has twice as many events, so many are cut into sessions, those of some users."""


@contextmanager
def inspected_warehouse(
    source: EventSource,
    days: Sequence[date],
    dbt: SessionDbt,
    variables: Mapping[str, Any],
    directory: Path,
) -> Iterator[tuple[Warehouse, float]]:
    """Land days of a log and build the session models, without their tests.

    Yields the warehouse, and the share of the users whose sessions it has.

    Args:
        source: The log.
        days: Days that follow one another.
        dbt: The session models; its own warehouse is not touched.
        variables: dbt's variables.
        directory: Where the warehouse is while the block lasts; made if it is missing.

    Raises:
        ValueError: The source cannot deliver; the message says why.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="inspection-", dir=directory) as aside:
        warehouse = Warehouse(
            path=str(Path(aside) / "warehouse.duckdb"),
            threads=dbt.threads,
            memory_limit=dbt.memory_limit,
        )
        for delivery in deliveries(source, "raw_events", schema.EVENTS, days):
            warehouse.land("raw_events", delivery)
        land_catalogue(warehouse, source, days)
        warehouse.land_prior_history(delivered_history(source))
        share = user_sample(sum(warehouse.num_delivered("raw_events", days[0], days[-1]).values()))
        of_aside = dbt.model_copy(update={"warehouse_path": warehouse.path})
        of_aside.run_models({**variables, "user_sample": share}, (days[0], days[-1]))
        yield warehouse, share


def user_sample(events: int) -> float:
    """The share of the users whose sessions are cut: all, unless the log has many events.

    Sessions are what takes the time, and shares and counts of them are known from a part of the
    users well enough.
    """
    return 1.0 if events <= 2 * SAMPLED_EVENTS else SAMPLED_EVENTS / events


def land_catalogue(warehouse: Warehouse, source: EventSource, days: Sequence[date]) -> None:
    """Land the catalogue of every day, once where its files do not change from day to day.

    Such a catalogue says of each item from which day on it exists: its publication, or its first
    event where the log itself is the catalogue.
    """
    if not isinstance(source, FileSource) or source.has_dated_catalogue:
        for delivery in deliveries(source, "raw_items", schema.ITEMS, days):
            warehouse.land("raw_items", delivery)
        return
    # one delivery that holds what is published by the last day, then each item on its own day
    for delivery in deliveries(source, "raw_items", schema.ITEMS, [days[-1]]):
        warehouse.land("raw_items", delivery)
    if source.log.section("items") is None:
        since = "(select min(delivered_on) from raw.raw_events where item_id = raw_items.item_id)"
    else:
        since = local_day("published_at", source.log.config.time_zone)
    with warehouse.connect() as connection:
        connection.execute(
            f"update raw.raw_items set delivered_on = greatest($first, coalesce({since}, $first))",
            {"first": days[0]},
        )


def every_day(first: date, last: date) -> list[date]:
    """Days from the first to the last."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]
