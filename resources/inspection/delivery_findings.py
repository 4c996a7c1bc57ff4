"""Findings about what was delivered: files, days, rejected rows, ids, ties, busy accounts."""

import re
from collections.abc import Sequence
from dataclasses import asdict

from onerec.datasets.file_problems import shown
from resources.inspection.findings import Finding, Inspected, Level, Row
from resources.log_quality import busy_accounts
from resources.unusable_times import likely_format

SAMPLE_ROWS = 3
"""Rejected rows that are shown for a reason."""
MANY_TIES = 0.2


def files(log: Inspected) -> list[Finding]:
    """What was read."""
    rows = log.rows("select file, count(*) as rows from raw.raw_events group by file order by file")
    total = sum(row["rows"] for row in rows)
    text = f"{total:,} rows of events in {len(rows):,} files or deliveries with rows"
    shown_rows = rows if len(rows) <= 2 * SAMPLE_ROWS else rows[:SAMPLE_ROWS] + rows[-SAMPLE_ROWS:]
    level: Level = "ok" if total else "error"
    return [
        Finding(
            topic="Files", level=level, text=text, setting="events.path", rows=tuple(shown_rows)
        )
    ]


def rows_of_days(log: Inspected) -> list[Finding]:
    """Rows a day, and days without any."""
    rows = log.rows(
        "select delivered_on as day, num_rows as rows from raw.deliveries "
        "where table_name = 'raw_events' order by delivered_on"
    )
    empty = [str(row["day"]) for row in rows if not row["rows"]]
    counts = sorted(row["rows"] for row in rows)
    text = (
        f"{len(rows)} days, {rows[0]['day']} to {rows[-1]['day']}; rows a day: least {counts[0]:,},"
        f" median {counts[len(counts) // 2]:,}, most {counts[-1]:,}"
    )
    found = [
        Finding(
            topic="Days",
            level="ok",
            text=text,
            setting="first_day, last_day, time_zone",
            rows=tuple(rows),
        )
    ]
    if empty:
        text = f"{len(empty)} days have no row: {shown(', '.join(empty))}"
        found.append(
            Finding(topic="Days", level="warning", text=text, setting="events.path, first_day")
        )
    return found


REMEDIES: Sequence[tuple[str, str]] = (
    ("user_id has more than", "stages.sessions.max_events_per_user_day"),
    (
        "duplicate",
        "stages.sessions.same_moment: add_up, if each row is a unit that was bought; or "
        "events.columns.event_time, if a finer time tells them apart",
    ),
    (
        "watch_seconds is above",
        "events.columns.watch_seconds: {column: ..., scale: 0.001}, if it is in milliseconds; else "
        "stages.sessions.max_watch_seconds",
    ),
    (
        "item_id is not in the catalogue",
        "items.path, items.columns.published_at, items.unknown_items: add, or without `items` the "
        "log is the catalogue",
    ),
    ("event_time is not", "events.timestamp_format"),
    ("event_time is before 1971", "events.timestamp_unit"),
    ("event_time", "events.time_zone, first_day, last_day"),
)
"""How a reason begins, and the line for it; else that of the column."""


NO_LENGTH = {
    "watch_seconds": "0 where nothing was watched, or leave such rows out",
    "duration_seconds": "leave the cell empty where the length is unknown",
}
"""What to write in place of a negative number."""


def rejected(log: Inspected) -> list[Finding]:
    """Rejected rows by reason, with samples."""
    totals = log.row("select count(*) as rows from raw.raw_events")
    reasons = log.rows(
        "select reason, any_value(field) as field, count(*) as rows from rejected_events "
        "group by reason order by rows desc, reason"
    )
    samples = log.rows(
        "select reason, field, value, user_id, item_id, file, row_in_file as row "
        "from rejected_events qualify "
        "row_number() over (partition by reason order by delivered_on, file, row_in_file) <= $n",
        n=SAMPLE_ROWS,
    )
    broken = sum(r["rows"] for r in reasons if not r["reason"].startswith("user_id has more"))
    share = broken / totals["rows"] if totals["rows"] else 0.0
    most = log.stages.sessions.max_rejected_share
    found = [
        Finding(
            topic="Rejected rows",
            level="error" if share > most else "ok",
            text=f"{broken:,} of {totals['rows']:,} rows are rejected ({share:.2%}; above "
            f"{most:.0%} a nightly run stops)",
            setting=log.setting("sessions", "max_rejected_share"),
        )
    ]
    for reason in reasons:
        name = reason["reason"]
        known = [line for start, line in REMEDIES if name.startswith(start)]
        examples = tuple(_example(s) for s in samples if s["reason"] == name)
        found.append(
            Finding(
                topic="Rejected rows",
                level="warning",
                text=f"{reason['rows']:,} rows: {name}" + _of_two_files(log, name),
                setting=known[0] if known else _line_of("events", reason["field"], examples),
                rows=examples,
            )
        )
    return found + _rejected_items(log)


def _example(sample: Row) -> Row:
    """A rejected row: its value, or where the reason is about none, user and item."""
    about = ("value",) if sample["field"] else ("user_id", "item_id")
    return {name: shown(sample[name]) for name in (*about, "file", "row")}


def _of_two_files(log: Inspected, reason: str) -> str:
    """Of duplicates: two files that hold the same rows."""
    if not reason.startswith("duplicate"):
        return ""
    pairs = log.rows(
        """
        with again as (
            select user_id, item_id, event_time, event_type, file from rejected_events
            where starts_with(reason, 'duplicate') limit 10000
        )
        select again.file as one, kept.file as other, count(*) as rows from again
        inner join raw.raw_events as kept
            on again.user_id = kept.user_id and again.item_id = kept.item_id
            and again.event_time = kept.event_time
            and again.event_type is not distinct from kept.event_type
            and again.file <> kept.file
        group by all order by rows desc, one, other limit 1
        """
    )
    if not pairs:
        return ""
    return (
        f"; rows of {shown(pairs[0]['one'])} stand in {shown(pairs[0]['other'])} as well: "
        "leave one of two such files out"
    )


def _line_of(section: str, field: str, examples: Sequence[Row]) -> str:
    """The line for a column whose value does not fit, by what the value looks like."""
    value = str(examples[0].get("value", "")) if examples else ""
    line = f"{section}.columns.{field}"
    if field.startswith("is_"):
        return f"{line}: {{ column: ..., true_values: [...] }}, the values that mean yes, or any"
    if field == "published_at":
        guessed = likely_format(value)
        return f"{section}.timestamp_format: {guessed!r}" if guessed else line
    if re.fullmatch(r"\s*-?[0-9][0-9.,'\s]*,[0-9]+\s*", value):
        return f'{section}.decimal: "," (or "." if the comma groups the digits)'
    if re.fullmatch(r"\s*-?[0-9]{1,3}(['\s][0-9]{3})+(\.[0-9]+)?\s*", value):
        return f'{section}.decimal: ".", which reads digits in groups'
    if field in NO_LENGTH and re.fullmatch(r"\s*-[0-9.eE+-]+\s*", value):
        return f"{line}: a column of lengths of time, or {NO_LENGTH[field]}"
    if re.match(r"\s*-?[0-9]", value):
        return f"{line}: a column of plain numbers, or write this one without what follows them"
    return line


def _rejected_items(log: Inspected) -> list[Finding]:
    """Rejected rows of the catalogue by reason, with samples."""
    rows = log.rows(
        "select reason, count(*) as rows, any_value(field) as field, min(item_id) as item_id, "
        "min(value) as value, min(file) as file from rejected_items group by reason order by all"
    )
    return [
        Finding(
            topic="Rejected rows",
            level="warning",
            text=f"{row['rows']:,} rows of the catalogue: {row['reason']}",
            setting=_line_of("items", row["field"] or "item_id", [row]),
            rows=({name: shown(row[name]) for name in ("item_id", "value", "file")},),
        )
        for row in rows
    ]


def ids(log: Inspected) -> list[Finding]:
    """Items of the log without a catalogue row, and the reverse."""
    counts = log.row(
        """
        with logged as (
            select item_id, count(*) as rows from raw.raw_events
            where item_id is not null group by item_id
        ),
        known as (select distinct item_id from stg_items)
        select
            count(logged.item_id) as logged,
            count(known.item_id) as known,
            count(logged.item_id) filter (where known.item_id is null) as only_logged,
            coalesce(sum(logged.rows) filter (where known.item_id is null), 0) as rows,
            count(known.item_id) filter (where logged.item_id is null) as only_known,
            min(logged.item_id) filter (where known.item_id is null) as logged_example,
            min(known.item_id) filter (where logged.item_id is null) as known_example
        from logged full join known on logged.item_id = known.item_id
        """
    )
    if counts["logged"] and not counts["known"]:
        return [_no_catalogue(log)]
    found = [
        Finding(
            topic="Ids",
            level="warning" if counts["only_logged"] else "ok",
            text=f"{counts['only_logged']:,} of {counts['logged']:,} items of the log have no "
            f"catalogue row ({counts['rows']:,} events)"
            + (f", e.g. {shown(counts['logged_example'])!r}" if counts["only_logged"] else "")
            + _almost_met(log, counts["only_logged"]),
            setting="items.columns.item_id, items.path, or items.unknown_items: add",
        ),
        Finding(
            topic="Ids",
            level="warning" if counts["only_known"] > counts["known"] / 2 else "ok",
            text=f"{counts['only_known']:,} of {counts['known']:,} items of the catalogue are not "
            "in the log"
            + (f", e.g. {shown(counts['known_example'])!r}" if counts["only_known"] else ""),
            setting="items.path, first_day",
        ),
    ]
    return found


def _no_catalogue(log: Inspected) -> Finding:
    rows = log.row("select count(*) as rows from raw.raw_items")["rows"]
    return Finding(
        topic="Ids",
        level="error",
        text=f"the catalogue has {rows:,} rows up to {log.days[1]}"
        + (", and none of them is of an item that can be used" if rows else "")
        + ": every event is of an unknown item",
        setting="items.path: a file with rows; or without `items` the log is the catalogue",
    )


def withdrawn(log: Inspected) -> list[Finding]:
    """Items that later deliveries of the catalogue lack; nothing where there are none."""
    days = log.rows(
        """
        select valid_from as day, count(*) as withdrawn, any_value(num_rows) as delivered
        from stg_items inner join raw.deliveries
            on valid_from = delivered_on and table_name = 'raw_items'
        where is_withdrawn group by valid_from order by valid_from
        """
    )
    if not days:
        return []
    counts = log.row(
        """
        with newest as (
            select item_id, is_withdrawn from stg_items
            qualify row_number() over (partition by item_id order by valid_from desc) = 1
        )
        select
            count(*) as items,
            count(*) filter (where is_withdrawn) as withdrawn,
            min(item_id) filter (where is_withdrawn) as example
        from newest
        """
    )
    share = max(day["withdrawn"] / (day["withdrawn"] + day["delivered"]) for day in days)
    example = f", e.g. {shown(counts['example'])!r}" if counts["withdrawn"] else ""
    return [
        Finding(
            topic="Ids",
            level="warning" if share > log.stages.sessions.max_withdrawn_share else "ok",
            text=f"{counts['withdrawn']:,} of {counts['items']:,} items are withdrawn by "
            f"{log.days[1]}{example}: the newest delivery of the catalogue lacks them, so that "
            f"they are not recommended; at most {share:.1%} in one delivery",
            setting="items.delivery: partial, if deliveries hold changes only (now full); "
            + log.setting("sessions", "max_withdrawn_share"),
            rows=tuple(days[-10:]),
        )
    ]


def _almost_met(log: Inspected, number: int) -> str:
    """How many of the unknown items would be known, did small differences not count."""
    if not number:
        return ""
    loose = "ltrim(regexp_replace(strip_accents(lower({0})), '^.*[:/]|[^\\pL\\pN]', '', 'g'), '0')"
    alike = log.row(
        f"""
        with unknown as (
            select distinct item_id, {loose.format("item_id")} as loose from raw.raw_events
            where item_id is not null and item_id not in (select item_id from stg_items)
        ),
        known as (select distinct item_id, {loose.format("item_id")} as loose from stg_items)
        select count(distinct unknown.item_id) as items, min(unknown.item_id) as logged,
            min_by(known.item_id, unknown.item_id) as known
        from unknown inner join known on unknown.loose = known.loose and known.loose <> ''
        """
    )
    if not alike["items"]:
        return ""
    # letters that look alike may be of other characters
    written = repr if alike["logged"].isascii() else ascii
    pair = ", ".join(shown(written(alike[name])) for name in ("logged", "known"))
    return (
        f"; {alike['items']:,} of them differ from one of the catalogue in case, blanks, signs, "
        f"accents or how they are coded, a prefix or leading zeros only ({pair}): write both alike"
    )


def ties(log: Inspected) -> list[Finding]:
    """Events that share their time with another one of their user, and what follows from it."""
    counts = log.row(
        "select coalesce(sum(num_tied) / sum(num_exposures), 0) as tied, "
        "coalesce(avg(cast(not is_ordered as integer)), 0) as unordered from sessions"
    )
    text = f"{counts['tied']:.1%} of the events share their time with another one of the same user"
    if counts["unordered"]:
        text += (
            f"; {counts['unordered']:.1%} of the sessions count as unordered, and their targets "
            "are a seeded sample of their items"
        )
    level: Level = "warning" if counts["tied"] > MANY_TIES else "ok"
    setting = log.setting("sessions", "session_order")
    return [Finding(topic="Order", level=level, text=text, setting=setting)]


def accounts(log: Inspected) -> list[Finding]:
    """Accounts with a large share of a day's events.

    The limit that is proposed is twice what the busiest of the others has on a day.
    """
    busy, most = busy_accounts(log.connection, *log.days)
    if not busy:
        text = f"no account stands out; the busiest has {most:,} events on a day"
        setting = log.setting("sessions", "max_events_per_user_day")
        return [Finding(topic="Accounts", level="ok", text=text, setting=setting)]
    worst = busy[0]
    limit = min(max(2 * most, 1), min(account.events for account in busy) - 1)
    return [
        Finding(
            topic="Accounts",
            level="warning",
            text=f"account {shown(worst.user_id)!r} has {worst.share:.0%} of the events of "
            f"{worst.day}: it moves popularity, metrics and what is learned. A limit leaves such "
            "days out, and with over_max_events: keep_first keeps that many events of them",
            setting=log.setting("sessions", "max_events_per_user_day", limit),
            rows=tuple(
                asdict(account) | {"share": f"{account.share:.1%}"} for account in busy[:10]
            ),
        )
    ]
