"""Findings about values that can be read but likely mean something else than they should."""

from dataclasses import replace

from onerec import schema
from onerec.datasets.file_problems import shown
from resources.file_source import FileSource
from resources.inspection.findings import Finding, Inspected, Level
from resources.landing import read_parts

OTHER_UNIT = 5
"""A watch of so many durations of the item, at the median, is in another unit."""


def watch_times(log: Inspected) -> list[Finding]:
    """Watch times beside durations: in another unit, every share and threshold is wrong."""
    row = log.row(
        "select median(watch_seconds) as seconds, median(watch_seconds / duration_seconds) "
        "as share from int_events_sessionized where watch_seconds > 0"
    )
    if row["seconds"] is None:
        return []
    share = row["share"]
    text = f"a watch lasts {row['seconds']:.3g} s at the median"
    setting = "events.columns.watch_seconds"
    level: Level = "ok"
    if share is not None:
        text += f", {share:.3g} of the item's duration"
    if share is not None and not 1 / 100 < share < OTHER_UNIT:
        level = "warning"
        text += ": watch times and durations are in different units"
        name = "events.columns.watch_seconds" if share > 1 else "items.columns.duration_seconds"
        setting = f"{name}: {{ column: ..., scale: 0.001 }}, if it is in milliseconds"
    return [Finding(topic="Signals", level=level, text=text, setting=setting)]


def quantities(log: Inspected) -> list[Finding]:
    """Rows that take something back."""
    row = log.row(
        "select count(*) filter (quantity <= 0) as taken_back, count(quantity) as known "
        "from stg_events"
    )
    if not row["taken_back"]:
        return []
    return [
        Finding(
            topic="Signals",
            level="warning",
            text=f"{row['taken_back']:,} of {row['known']:,} quantities are zero or negative: are "
            "they returns? They count as any event does",
            setting="feedback.exposure: { quantity_at_least: 1 }",
        )
    ]


def damaged_ids(log: Inspected) -> list[Finding]:
    """Ids that a spreadsheet rounded or another encoding broke: different ones may be one."""
    found = []
    lost = log.row(
        "select count(*) as rows, min(coalesce(item_id, '') || ' ' || user_id) as example from "
        "raw.raw_events where contains(user_id, chr(65533)) or contains(item_id, chr(65533))"
    )
    if lost["rows"]:
        found.append(
            Finding(
                topic="Ids",
                level="warning",
                text=f"{lost['rows']:,} events have ids with bytes that are not UTF-8, e.g. "
                f"{shown(lost['example'])!r}: different ids may look alike",
                setting="events.encoding: latin-1, or cp1252",
            )
        )
    for name in ("user_id", "item_id"):
        found += _ids_with_blanks(log, name)
        row = log.row(
            f"select count(distinct {name}) as ids, count(*) as rows, min({name}) as example from "
            f"raw.raw_events where contains({name}, '+') and regexp_full_match({name}, $rounded)",
            rounded=r"[0-9]([.,][0-9]+)?[eE]\+[0-9]+",
        )
        if row["ids"]:
            found.append(
                Finding(
                    topic="Ids",
                    level="warning",
                    text=f"{row['rows']:,} events have a rounded {name} ({row['ids']:,} different, "
                    f"e.g. {shown(row['example'])!r}): several ids may have become one. Export the "
                    "column as text",
                    setting=f"events.columns.{name}, events.path",
                )
            )
    return found


def _ids_with_blanks(log: Inspected, name: str) -> list[Finding]:
    """Ids that are another one but for blanks around them, or for how their accents are coded."""
    row = log.row(
        f"""
        with ids as (select distinct {name} as id from raw.raw_events),
        around as (
            select
                id,
                nfc_normalize(trim(id, ' ' || chr(9) || chr(10) || chr(13) || chr(160))) as bare
            from ids
        )
        select count(*) as ids, min(id) as example from around
        where id <> bare and bare in (select id from ids where id is not null)
        """
    )
    if not row["ids"]:
        return []
    return [
        Finding(
            topic="Ids",
            level="warning",
            text=f"{row['ids']:,} ids in {name} are another one but for blanks around them or how "
            f"accents are coded, e.g. {row['example']!a}: they count as different",
            setting=f"events.columns.{name}, events.path: write both alike",
        )
    ]


def features(log: Inspected) -> list[Finding]:
    """Features of items that should be numbers and are not."""
    rows = log.rows(
        "select key as name, count(*) as rows, min(value) as value from (select unnest(json_keys("
        "unreadable)) as key, json_extract_string(unreadable, key) as value from raw.raw_items "
        "where unreadable is not null) where starts_with(key, 'feature_') and value is not null "
        "group by key order by key"
    )
    return [
        Finding(
            topic="Tokenizer",
            level="warning",
            text=f"{row['rows']:,} items have a {row['name'].removeprefix('feature_')} that is no "
            f"number, e.g. {shown(row['value'])!r}: they are without it",
            setting=f"items.features.{row['name'].removeprefix('feature_')}: without numeric: true "
            "each text is a category; or items.decimal",
        )
        for row in rows
    ]


def published_later(source: FileSource) -> list[Finding]:
    """Items that the catalogue announces for days after the log."""
    if source.log.section("items") is None:
        return []
    day = source.last_delivered_day
    parts = list(source.item_parts(day))
    known = len(read_parts(parts, schema.ITEMS, [day]))
    every = len(read_parts([replace(p, published_by=None) for p in parts], schema.ITEMS, [day]))
    if known == every:
        return []
    return [
        Finding(
            topic="Ids",
            level="warning" if known < every / 2 else "ok",
            text=f"{every - known:,} of {every:,} rows of the catalogue are published after {day}: "
            "their items do not exist yet, and events with them are rejected",
            setting="items.columns.published_at: another column; without one, items exist always",
        )
    ]
