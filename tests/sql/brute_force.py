"""The session rules once more, in plain Python: slow, obvious, and independent of the SQL."""

import hashlib
import math
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

from onerec.config import SessionConfig

FLAGS = ("is_like", "is_follow", "is_comment", "is_share", "is_dislike")
TRUE, FALSE = ("true", "t", "1"), ("false", "f", "0", None)


def number(text: str | None) -> float | None:
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def moment(text: str | None) -> datetime | None:
    try:
        value = datetime.fromisoformat(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value


def accepted_items(deliveries: dict[date, list[dict]]) -> dict[date, dict[str, dict]]:
    """The catalogue as of each day."""
    catalogue: dict[str, dict] = {}
    found = {}
    for day, rows in sorted(deliveries.items()):
        for row in rows:
            duration = row.get("duration_seconds")
            if row["item_id"] and (duration is None or (number(duration) or 0) >= 0):
                if duration is not None and number(duration) is None:
                    continue
                catalogue[row["item_id"]] = {**row, "duration": number(duration) or None}
        found[day] = dict(catalogue)
    return found


def broken_rule(
    row: dict, day: date, items: dict[date, dict[str, dict]], config: SessionConfig
) -> str | None:
    time, watch = moment(row["event_time"]), number(row["watch_seconds"])
    midnight = datetime(day.year, day.month, day.day)
    rules = [
        (not (row["user_id"] or "").strip(), "missing user_id"),
        (not (row["item_id"] or "").strip(), "missing item_id"),
        (row["event_time"] is None, "missing event_time"),
        (time is None, "event_time is not a timestamp"),
        (
            time is not None and time.year < 1971,
            "event_time is before 1971: unknown, or in another unit",
        ),
        (
            time is not None and time >= midnight + timedelta(days=1),
            "event_time is after the delivered day",
        ),
        (
            time is not None and time < midnight - timedelta(days=config.lateness_days),
            "event_time is more than lateness_days before the delivered day",
        ),
        (row["watch_seconds"] is None, "missing watch_seconds"),
        (watch is None, "watch_seconds is not a number"),
        (watch is not None and watch < 0, "watch_seconds is negative"),
        (
            watch is not None and watch > config.max_watch_seconds,
            "watch_seconds is above max_watch_seconds",
        ),
        *((row[f] not in TRUE + FALSE, f"{f} is not a boolean") for f in FLAGS),
        (
            0 < config.max_events_per_user_day < row["events_of_user"]
            and (
                config.over_max_events == "reject_day"
                or row["number_of_event"] >= config.max_events_per_user_day
            ),
            "user_id has more than max_events_per_user_day events on the day",
        ),
        (
            time is not None and row["item_id"] not in items.get(time.date(), {}),
            "item_id is not in the catalogue of the day",
        ),
    ]
    return next((reason for broken, reason in rules if broken), None)


def classify(
    deliveries: dict[date, list[dict]], items: dict[date, dict[str, dict]], config: SessionConfig
) -> tuple[list[dict], dict[tuple[date, str], int]]:
    """Accepted exposures, and how many rows each rule refused per day."""
    taken: list[dict] = []
    refused: dict[tuple[date, str], int] = defaultdict(int)
    copies: dict[tuple, list[dict]] = defaultdict(list)
    for day, rows in sorted(deliveries.items()):
        of_users = Counter(row["user_id"] for row in rows)
        in_time = sorted(
            range(len(rows)), key=lambda n: (moment(rows[n]["event_time"]) or datetime.max, n)
        )
        before: Counter[str | None] = Counter()
        number_of_event = {}
        for n in in_time:
            number_of_event[n] = before[rows[n]["user_id"]]
            before[rows[n]["user_id"]] += 1
        for number_of_row, delivered in enumerate(rows):
            place, num_events = (day, number_of_row), of_users[delivered["user_id"]]
            row = {
                **delivered,
                "place": place,
                "events_of_user": num_events,
                "number_of_event": number_of_event[number_of_row],
            }
            reason = broken_rule(row, day, items, config)
            if reason:
                refused[day, reason] += 1
                continue
            copies[row["user_id"], row["item_id"], moment(row["event_time"])].append(row)
    for (user, item, time), same in copies.items():
        row, *others = sorted(same, key=lambda r: (r["place"][0], r["event_id"]))
        for other in others:
            reason = "duplicate of another row: same user, item and event_time"
            refused[other["place"][0], reason] += 1
        duration = items[time.date()][item]["duration"]
        enough = config.watched_min_seconds
        if duration is not None:
            enough = min(enough, config.watched_min_share * duration)
        watch = number(row["watch_seconds"])
        assert watch is not None
        flags = {f: row[f] in TRUE for f in FLAGS}
        watched = watch >= enough
        liked = any(flags[f] for f in FLAGS[:4])
        taken.append(
            {
                "user_id": user,
                "item_id": item,
                "event_time": time,
                "place": row["place"],
                "watch_seconds": watch,
                "is_watched": watched,
                "is_positive": (watched or liked) and not flags["is_dislike"],
                "signals": [True, watched, flags["is_follow"], flags["is_like"]],
                **flags,
            }
        )
    return taken, dict(refused)


def sessionize(taken: list[dict], prior: list[dict], config: SessionConfig) -> list[dict[str, Any]]:
    """Rows of `session_examples`, ordered by (started_at, session_id)."""
    past = defaultdict(list)
    for row in sorted((r for r in prior if number(r["position"]) is not None), key=_position):
        if row["is_positive"] in TRUE:
            past[row["user_id"]].append(row["item_id"])
    by_user = defaultdict(list)
    for row in sorted(taken, key=lambda r: (r["event_time"], r["place"])):
        by_user[row["user_id"]].append(row)
    examples = []
    for user, rows in by_user.items():
        history, sessions, previous = past[user], [], None
        for row in rows:
            day = row["event_time"].date()
            if previous is None or previous.date() != day:
                sessions.append([])
                number_of_day = 1
            elif config.session_mode == "gap" and row["event_time"] - previous >= timedelta(
                minutes=config.session_gap_minutes
            ):
                sessions.append([])
                number_of_day += 1
            sessions[-1].append({**row, "session_id": f"{user}|{day}|{number_of_day}"})
            previous = row["event_time"]
        for session in sessions:
            session = _in_known_order(session, config)
            examples.append(_example(user, session, history, config))
            history = history + [r["item_id"] for r in session if r["is_positive"]]
    return sorted(examples, key=lambda e: (e["started_at"], e["session_id"]))


def _in_known_order(session: list[dict], config: SessionConfig) -> list[dict]:
    """The session as models read it: shuffled by a hash where its order is unknown."""
    times = [r["event_time"] for r in session]
    tied = sum(times.count(t) > 1 for t in times) / len(times)
    if config.session_order == "time":
        return session
    if config.session_order == "auto" and tied <= config.max_tied_share:
        return session

    def key(row: dict) -> str:
        text = f"{config.order_seed}|{row['session_id']}|{row['item_id']}"
        return hashlib.md5(text.encode()).hexdigest()

    return sorted(session, key=key)  # stable: the same item keeps its order


def _example(user: str, session: list[dict], history: list[str], config: SessionConfig) -> dict:
    watched = list(dict.fromkeys(r["item_id"] for r in session if r["is_watched"]))
    clicks = sum(r[f] for r in session for f in FLAGS[:4])
    seconds = round(sum(r["watch_seconds"] for r in session), 6)
    lists = ("watch_seconds", "is_watched", "is_positive", "signals", *FLAGS)
    return {
        "session_id": session[0]["session_id"],
        "user_id": user,
        "session_date": session[0]["event_time"].date(),
        "started_at": min(r["event_time"] for r in session),
        "history_item_ids": history[-config.history_length :],
        "item_ids": [r["item_id"] for r in session],
        **{name: [r[name] for r in session] for name in lists},
        "target_item_ids": watched[: config.session_items],
        "is_good": len(watched) >= config.good_min_watched_items
        and seconds >= config.good_min_watch_seconds
        and clicks >= config.good_min_positive_interactions
        and sum(r["is_positive"] for r in session) >= config.good_min_positives,
    }


def _position(row: dict) -> tuple[float, str]:
    return number(row["position"]) or 0.0, row["item_id"]
