"""The days of a log are those of its time zone."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from onerec.config import SessionConfig
from onerec.schema import SESSION_DATASET
from onerec.session_dataset.session_checks import recount_sessions


def session(items: list[str], watch_seconds: list[float]) -> pa.Table:
    """A session of watched items that began at 22:30 UTC."""
    row = {
        "session_id": "u|2026-06-02|1",
        "user_id": "u",
        "session_date": date(2026, 6, 2),
        "started_at": datetime(2026, 6, 1, 22, 30, tzinfo=UTC),
        "history_item_ids": [],
        "item_ids": items,
        "watch_seconds": watch_seconds,
        "is_watched": [True] * len(items),
        "is_positive": [True] * len(items),
        "target_item_ids": items,
        "is_good": False,
        "split": "test",
        **{
            f"is_{name}": [False] * len(items)
            for name in ("like", "follow", "comment", "share", "dislike")
        },
    }
    return pa.Table.from_pylist([row], schema=SESSION_DATASET)


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("UTC", date(2026, 6, 1)),
        ("Europe/Berlin", date(2026, 6, 2)),
        ("America/New_York", date(2026, 6, 1)),
    ],
)
def test_a_session_belongs_to_the_day_of_the_time_zone(zone: str, day: date) -> None:
    facts = recount_sessions(session(["a"], [1.0]), SessionConfig(), date(2026, 6, 2), zone)
    assert facts["started_on"].to_pylist() == [day]


def test_watch_seconds_are_added_up_as_the_sql_does() -> None:
    # decimal(18, 6) of each, so that a session at the threshold is good here and there
    sessions = session(["a", "b", "c"], [19.9999996] * 3)
    facts = recount_sessions(sessions, SessionConfig(), date(2026, 6, 2))
    assert facts["watch_seconds"].to_pylist() == [60.0]
    assert facts["meets_criteria"].to_pylist() == [True]
