"""The days of a log are those of its time zone."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from onerec.config import SessionConfig
from onerec.schema import SESSION_DATASET
from onerec.session_dataset.session_checks import recount_sessions


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("UTC", date(2026, 6, 1)),
        ("Europe/Berlin", date(2026, 6, 2)),
        ("America/New_York", date(2026, 6, 1)),
    ],
)
def test_a_session_belongs_to_the_day_of_the_time_zone(zone: str, day: date) -> None:
    row = {
        "session_id": "u|2026-06-02|1",
        "user_id": "u",
        "session_date": date(2026, 6, 2),
        "started_at": datetime(2026, 6, 1, 22, 30, tzinfo=UTC),
        "history_item_ids": [],
        "item_ids": ["a"],
        "watch_seconds": [1.0],
        "is_watched": [True],
        "is_positive": [True],
        "target_item_ids": ["a"],
        "is_good": False,
        "split": "test",
        **{f"is_{name}": [False] for name in ("like", "follow", "comment", "share", "dislike")},
    }
    sessions = pa.Table.from_pylist([row], schema=SESSION_DATASET)
    facts = recount_sessions(sessions, SessionConfig(), date(2026, 6, 2), zone)
    assert facts["started_on"].to_pylist() == [day]
