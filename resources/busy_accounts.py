"""Accounts that are much of a day's events: bots, test accounts, shared logins."""

from dataclasses import dataclass
from datetime import date

import duckdb

LEAST_SHARE, LEAST_RATIO, LEAST_USERS = 0.1, 20, 10
"""An account stands out with this share of a day's events, and so many times those of the median
user, on a day with at least so many users."""

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
    """Accounts that stand out, the largest share first, and the most events of another one.

    Args:
        connection: A warehouse with session models.
        first: First day.
        last: Last day.
    """
    days = {"first": first, "last": last}
    stands_out = (
        f"users >= {LEAST_USERS} and share >= {LEAST_SHARE} and events >= {LEAST_RATIO} * typical"
    )
    found = connection.execute(
        f"select day, user_id, events, share from ({_OF_DAYS}) where {stands_out} "
        "order by share desc, day, user_id",
        days,
    ).fetchall()
    most = connection.execute(
        f"select coalesce(max(events), 0) from ({_OF_DAYS}) where not ({stands_out})", days
    ).fetchall()[0][0]
    return [BusyAccount(*row) for row in found], most
