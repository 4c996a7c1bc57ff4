"""Quality of a landed log: rejected rows, ties in time, accounts with much of a day's events.

Every function reads a connection to a warehouse with session models.
"""

from dataclasses import dataclass
from datetime import date

import duckdb

from onerec.datasets.file_problems import shown

LEAST_SHARE, LEAST_RATIO, LEAST_USERS = 0.1, 20, 10
"""Bots, test accounts, shared logins: an account stands out with this share of a day's events, and
so many times those of the median user, on a day with at least so many users."""

_OF_DAYS = """
select
    event_date as day,
    user_id,
    count(*) as events,
    count(*) / sum(count(*)) over (partition by event_date) as share,
    median(count(*)) over (partition by event_date) as typical,
    count(*) over (partition by event_date) as users
from stg_events
where event_date between $first and $last
group by event_date, user_id
"""


@dataclass(frozen=True)
class BusyAccount:
    """An account on a day.

    Attributes:
        day: The day.
        user_id: The account.
        events: Its accepted events.
        share: Of the day's events.
    """

    day: date
    user_id: str
    events: int
    share: float


def busy_accounts(
    connection: duckdb.DuckDBPyConnection, first: date, last: date
) -> tuple[list[BusyAccount], int]:
    """Accounts that stand out, the largest share first, and the most events of another one."""
    days = {"first": first, "last": last}
    stands_out = (
        f"users >= {LEAST_USERS} and share >= {LEAST_SHARE} and events >= {LEAST_RATIO} * typical"
    )
    found, most = connection.execute(
        f"select list((day, user_id, events, share) order by share desc, day, user_id) filter "
        f"({stands_out}), coalesce(max(events) filter (not ({stands_out})), 0) from ({_OF_DAYS})",
        days,
    ).fetchall()[0]
    return [BusyAccount(*row) for row in found or ()], most


def rejections(connection: duckdb.DuckDBPyConnection, first: date, last: date) -> dict[str, int]:
    """Rejected events per reason over some days, the most frequent reason first."""
    rows = connection.execute(
        "select reason, count(*) from rejected_events "
        "where delivered_on between $first and $last group by reason order by 2 desc, 1",
        {"first": first, "last": last},
    ).fetchall()
    return dict(rows)


def rejected_example(
    connection: duckdb.DuckDBPyConnection, reason: str, first: date, last: date
) -> str:
    """One rejected event in words: the value, and the file it came from.

    An item that the catalogue does not know is shown beside one that it knows.
    """
    rows = connection.execute(
        "select field, value, file, row_in_file from rejected_events "
        "where reason = $reason and delivered_on between $first and $last "
        "order by delivered_on, file, row_in_file limit 1",
        {"reason": reason, "first": first, "last": last},
    ).fetchall()
    known = connection.execute("select min(item_id) from stg_items").fetchall()[0][0]
    if not rows:
        return ""
    field, value, file, row = rows[0]
    example = f"{field}={shown(value)!r} " if value is not None else ""
    beside = f"; the catalogue has ids like {shown(known)!r}" if field == "item_id" else ""
    return f"{example}in row {row} of {file}{beside}"


@dataclass(frozen=True)
class Ties:
    """The share of events that have their timestamp in common with another one of the user.

    Attributes:
        events: All of them.
        tied_events: Those that share their time with another one of the user.
        sessions: All of them.
        unordered_sessions: Those whose order counts as unknown.
    """

    events: int
    tied_events: int
    sessions: int
    unordered_sessions: int


def count_ties(connection: duckdb.DuckDBPyConnection, first: date, last: date) -> Ties:
    """Events that share their time with another one of the user, over some days."""
    row = connection.execute(
        "select coalesce(sum(num_exposures), 0), coalesce(sum(num_tied), 0), count(*), "
        "count(*) filter (not is_ordered) "
        "from sessions where session_date between $first and $last",
        {"first": first, "last": last},
    ).fetchall()[0]
    return Ties(*map(int, row))
