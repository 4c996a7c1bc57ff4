"""What an event source delivers for some days, ready to land: files in parts, or tables."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta

import pyarrow as pa

from onerec import schema
from onerec.datasets import EventSource
from resources.file_source import FileSource
from resources.parts import Delivery, table_part


def deliveries(
    source: EventSource, table: str, contract: pa.Schema, days: Sequence[date]
) -> Iterator[Delivery]:
    """What a source delivers for some days, oldest first: events or items.

    Days that follow one another are one delivery of files.

    Raises:
        ValueError: The source cannot deliver; the message says why.
    """
    is_events = "event_time" in contract.names
    if isinstance(source, FileSource) and is_events:
        for block in _consecutive(days):
            parts = list(source.event_parts(block[0], block[-1]))
            yield Delivery(days=block, parts=parts, require_times=source.require_times)
        return
    for day in days:
        if isinstance(source, FileSource):
            parts = list(source.item_parts(day))
            yield Delivery(days=[day], parts=parts, is_full=source.delivers_full_catalogue)
            continue
        rows = source.events(day) if is_events else source.items(day)
        delivery = _table_delivery(rows, contract, f"{table}[{day}]", day)
        is_full = not is_events and source.delivers_full_catalogue
        yield replace(delivery, is_full=is_full)


def _consecutive(days: Sequence[date]) -> list[list[date]]:
    """The days in blocks without a gap."""
    blocks: list[list[date]] = []
    for day in days:
        if not blocks or day - blocks[-1][-1] > timedelta(days=1):
            blocks.append([])
        blocks[-1].append(day)
    return blocks


def delivered_history(source: EventSource) -> Delivery:
    """What a source delivers as prior history."""
    if isinstance(source, FileSource):
        return Delivery(days=[], parts=list(source.history_parts()))
    return _table_delivery(source.prior_history(), schema.PRIOR_HISTORY, "raw_prior_history", None)


def _table_delivery(rows: pa.Table, contract: pa.Schema, what: str, day: date | None) -> Delivery:
    ignored = tuple(n for n in rows.column_names if n not in contract.names)
    part = table_part(rows, contract, what, day)
    return Delivery(days=[day] if day else [], parts=[part], ignored=ignored)
