"""A seeded random log with every kind of bad row; its coarse times make ties and exact gaps."""

import dataclasses
import random
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg

from onerec.config import SessionConfig

DAYS = [date(2026, 6, 1) + timedelta(days=n) for n in range(4)]
CONFIG = SessionConfig(
    good_min_watched_items=2,
    good_min_watch_seconds=25.0,
    good_min_positive_interactions=1,
    history_length=4,
    session_items=2,
    max_watch_seconds=1000.0,
)
FLAGS = ("is_like", "is_follow", "is_comment", "is_share", "is_dislike")
USERS = [f"user {n}" for n in range(30)] + ["a|b"]
GRID_MINUTES = (0, 0, 1, 5, 29, 30, 31)


def run_config(config: SessionConfig = CONFIG, max_rejected_share: float = 1.0) -> dg.RunConfig:
    """The launchpad's values; the log is bad on purpose, so any share of refused rows is fine."""
    from assets.sessions import RejectionLaunchpad, SessionLaunchpad

    return dg.RunConfig(
        {
            "session_sql": SessionLaunchpad(**dataclasses.asdict(config)),
            "rejected_events_rejected_share_below_threshold": RejectionLaunchpad(
                max_rejected_share=max_rejected_share
            ),
        }
    )


def deliveries() -> dict[str, list[dict[str, Any]]]:
    """Files of the log: name to rows, every value a text."""
    draw = random.Random(7)
    found: dict[str, list[dict[str, Any]]] = {
        "prior_history": [
            {
                "user_id": user,
                "position": str(position),
                "item_id": f"item {draw.randrange(12)}",
                "is_positive": draw.choice(["true", "false"]),
            }
            for user in USERS[::2]
            for position in range(draw.randrange(6))
        ]
        + [{"user_id": "user 0", "position": "x", "item_id": "item 1", "is_positive": "true"}]
    }
    for number, day in enumerate(DAYS):
        found[f"items-{day}"] = _items(draw, number)
        found[f"events-{day}"] = _events(draw, day)
    return found


def _items(draw: random.Random, number: int) -> list[dict[str, Any]]:
    """The catalogue grows by three items a day, and some durations change."""
    rows = [
        {
            "item_id": f"item {n}",
            "duration_seconds": [None, "0", "5.0", "10", "40", f"{10 + number}"][n % 6],
            "title": f"title {n}",
        }
        for n in range(9 + 3 * number)
    ]
    rows.append({"item_id": "broken", "duration_seconds": "long", "title": None})
    rows.append({"item_id": None, "duration_seconds": "1", "title": "nobody"})
    rows.append(dict(rows[0]))
    draw.shuffle(rows)
    return rows


def _events(draw: random.Random, day: date) -> list[dict[str, Any]]:
    rows = []
    for user in USERS:
        time = datetime(day.year, day.month, day.day, draw.choice([0, 9, 23]), 0)
        for _ in range(draw.randrange(9)):
            time += timedelta(minutes=draw.choice(GRID_MINUTES))
            if time.date() != day:
                break
            rows.append(
                {
                    "event_id": str(len(rows)),
                    "user_id": user,
                    "item_id": f"item {draw.randrange(19)}",  # the last are unknown yet
                    "event_time": time.isoformat() + draw.choice(["", "Z", "+00:00"]),
                    "watch_seconds": str(draw.choice([0, 3.9, 4, 7.5, 8, 9.9, 10, 12.5, 31])),
                    **{flag: draw.choice([None, "0", "false", "1"]) for flag in FLAGS},
                }
            )
    good = draw.choice(rows)
    late = f"{day + timedelta(days=1)} 00:00:00"
    # on some days within the lateness window, on the others before it
    early = f"{day - timedelta(days=1 if day.day % 2 == 0 else 3)} 23:59:59"
    bad = [
        {"user_id": None},
        {"item_id": ""},
        {"event_time": None},
        {"event_time": "yesterday"},
        {"event_time": "1969-12-31T23:59:59Z"},
        {"event_time": late},
        {"event_time": early},
        {"watch_seconds": None},
        {"watch_seconds": "much"},
        {"watch_seconds": "-0.5"},
        {"watch_seconds": "1000.1"},
        {"watch_seconds": "inf"},
        {"is_like": "maybe"},
        {"item_id": "broken"},
        {},
    ]
    rows += [{**good, "event_id": f"bad {n}", **change} for n, change in enumerate(bad)]
    draw.shuffle(rows)
    return rows
