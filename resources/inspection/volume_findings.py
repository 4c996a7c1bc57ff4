"""Findings about how much a log holds: of the day that would be tested, and of one item."""

from datetime import timedelta

from onerec.datasets.file_problems import shown
from onerec.session_dataset.usual_volume import usual_volume
from resources.inspection.findings import Finding, Inspected, Level

ENDS_EARLY = timedelta(hours=3)
"""A last event so long before its time of the day before: the day may not be complete."""
FEW_ROWS_OF_A_DAY = 0.75
"""Share of the median day's rows below which an early end is no accident."""
MOSTLY_ONCE = 0.9
"""Share of the users with one event from which ids are rather not of people."""
MOST_OF_THE_LOG = 0.3
"""Share of the events from which an item is rather a placeholder, or one page."""


def tested_day(log: Inspected) -> list[Finding]:
    """Whether the day that would be tested is as large as usual, and complete."""
    day = log.days[1]
    rows = log.rows("select session_date as day, count(*) as n from sessions group by session_date")
    sessions = {row["day"]: row["n"] for row in rows}
    ratio = log.stages.sessions.max_volume_ratio
    usual, own = usual_volume(sessions, day, ratio=ratio), sessions.get(day, 0)
    remedy, ends = f"last_day: {day - timedelta(days=1)}", _ends(log)
    if usual and own and not usual.sessions / ratio <= own <= usual.sessions * ratio:
        return [
            Finding(
                topic="Test day",
                level="error",
                text=f"{day} has {log.count(own)} sessions, {usual.kind} before it "
                f"{log.count(round(usual.sessions))} at the median: the check volume_is_usual "
                "stops its nightly run. Is the day complete? Its last event is of "
                f"{ends[-1]['at']:%H:%M} UTC",
                setting=f"{remedy}, or {log.setting('sessions', 'max_volume_ratio')}",
            )
        ]
    if early := _ends_early(log, ends):
        text = f"{day} may not be complete: {early}"
        return [Finding(topic="Test day", level="warning", text=text, setting=remedy)]
    return []


def _ends(log: Inspected) -> list[dict]:
    """When each day's last event is, and how many rows the day has; in order."""
    return log.rows(
        "select event_date as day, max(event_time) as at, count(*) as rows from stg_events "
        "group by event_date order by event_date"
    )


def _ends_early(log: Inspected, ends: list[dict]) -> str | None:
    """How the last day ends before its time; None if it does not."""
    *_, before, last = [{"day": None}, {"day": None}, *ends]
    if last["day"] != log.days[1] or before["day"] != log.days[1] - timedelta(days=1):
        return None
    counts = sorted(row["rows"] for row in ends[:-1])
    is_small = last["rows"] < FEW_ROWS_OF_A_DAY * counts[len(counts) // 2]
    if not is_small or last["at"] - before["at"] > timedelta(days=1) - ENDS_EARLY:
        return None
    return (
        f"its last event is of {last['at']:%H:%M} UTC, that of the day before of "
        f"{before['at']:%H:%M}, and it has {last['rows']:,} rows"
    )


def returning_users(log: Inspected) -> list[Finding]:
    """Users of one event: an id of requests or sessions instead of people knows no history."""
    row = log.row(
        "select count(*) as users, count(*) filter (where n = 1) as once from "
        "(select count(*) as n from stg_events group by user_id)"
    )
    if row["once"] <= MOSTLY_ONCE * row["users"]:
        return []
    return [
        Finding(
            topic="Ids",
            level="warning",
            text=f"{row['once']:,} of {row['users']:,} users have one event: is user_id one of "
            "requests or sessions? What a user gets follows from their history",
            setting="events.columns.user_id: the column of people, accounts or devices",
        )
    ]


def frequent_item(log: Inspected) -> list[Finding]:
    """The item with the most events: ids such as `unknown` or 0 stand for many."""
    rows = log.rows(
        "select item_id, count(*) as events, count(*) / sum(count(*)) over () as share "
        "from stg_events group by item_id order by events desc, item_id limit 1"
    )
    if not rows:
        return []
    (row,) = rows
    level: Level = "warning" if row["share"] > MOST_OF_THE_LOG else "ok"
    text = f"item {shown(row['item_id'])!r} has {row['share']:.1%} of the events"
    setting = "events.path"
    if level == "warning":
        text += ", more than any other: is it an item? What is learned and measured is about it"
        setting = "events.path: without its rows if it stands for what is unknown, or for a page"
    return [Finding(topic="Ids", level=level, text=text, setting=setting)]
