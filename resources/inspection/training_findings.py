"""Findings about what a nightly run would learn from: sessions, test day, signals, tokenizer."""

from typing import Any

import numpy as np
import pyarrow as pa

from onerec.config.feedback import Condition
from onerec.embeddings.supplied_vectors import usable_vectors
from onerec.session_dataset.splits import FEWEST_DAYS_BEFORE, split_users, window
from resources.inspection.findings import Finding, Inspected, Level

MOST_TYPES = 12
"""Event types that are shown, those that count as watched before others."""
MANY_USERS = 1_000
"""Users of whom each model has some, whatever the seed."""
FEW_CASES = 100
"""Users on the test day below which an interval says little."""
MANY_COPIES = 0.05
"""Share of the items that look alike from which a tokenizer cannot tell items apart."""


def repeats(log: Inspected) -> list[Finding]:
    """How often users come back to an item."""
    share = log.row(
        "select coalesce(1 - count(*) / sum(n), 0) as share from (select count(*) as n "
        "from int_events_sessionized where is_first_watch group by user_id, item_id)"
    )["share"]
    return [
        Finding(
            topic="Order",
            level="ok",
            text=f"{share:.1%} of what a session consumes its user had consumed in an earlier one",
            setting=log.setting("sessions", "repeats"),
        )
    ]


CRITERIA = {
    "has_enough_watched_items": "good_min_watched_items",
    "has_enough_watch_seconds": "good_min_watch_seconds",
    "has_enough_interactions": "good_min_positive_interactions",
    "has_enough_positives": "good_min_positives",
}
"""Column of `sessions` -> its setting."""
USUAL_SHARE = 0.9
"""A criterion that excludes more of the sessions does not suit the log."""


def sessions(log: Inspected) -> list[Finding]:
    """Sessions and good sessions under the present settings."""
    columns = [r["column_name"] for r in log.rows("describe sessions")]
    criteria = [c for c in columns if c.startswith("has_enough_")]
    lacking = "".join(f", count(*) filter (where not {c}) as {c}" for c in criteria)
    counts = log.row(
        "select count(*) as sessions, count(*) filter (where is_good) as good, "
        f"coalesce(median(num_watched_items), 0) as items {lacking} from sessions"
    )
    sampled = ""
    if log.user_sample < 1:
        sampled = (
            f" (estimated, as all that follows of sessions, from {log.user_sample:.1%} of users)"
        )
    found = [
        Finding(
            topic="Sessions",
            level="ok" if counts["good"] else "error",
            text=f"{log.count(counts['sessions'])} sessions, {log.count(counts['good'])} of them "
            f"good; a session has {counts['items']:g} watched items at the median" + sampled,
            setting=log.setting("sessions", "session_mode")
            + ", "
            + log.setting("sessions", "session_gap_minutes"),
        )
    ]
    for name in criteria:
        setting = CRITERIA.get(name)
        words = name.removeprefix("has_enough_").replace("_", " ")
        found.append(
            Finding(
                topic="Sessions",
                level="warning" if counts[name] > USUAL_SHARE * counts["sessions"] else "ok",
                text=f"{log.count(counts[name])} of {log.count(counts['sessions'])} sessions have "
                f"too few {words}",
                setting=log.setting("sessions", setting) if setting else "stages.sessions",
            )
        )
    return found + _good_sessions_of_days(log)


def _good_sessions_of_days(log: Inspected) -> list[Finding]:
    """What the window of the last day holds: the newest day with sessions validates."""
    day = log.days[1]
    first, last = window(day, log.stages.window.window_days)
    rows = log.rows(
        "select session_date as day, count(*) filter (where is_good) as good from sessions "
        "where session_date between $first and $last group by session_date order by session_date",
        first=first,
        last=last,
    )
    learned = sum(row["good"] for row in rows)
    valid = rows[-1]["good"] if rows else 0
    text = (
        f"for {day}: {log.count(learned)} good sessions on {len(rows)} days with sessions from "
        f"{max(first, log.days[0])} to {last} to learn from"
        + (f", {log.count(valid)} of them on {rows[-1]['day']}, which validates" if rows else "")
    )
    return [
        Finding(
            topic="Sessions",
            level="ok" if len(rows) > 1 and 0 < valid < learned else "error",
            text=text,
            setting=log.setting("window", "window_days")
            if (day - log.days[0]).days >= FEWEST_DAYS_BEFORE
            else "events.path, first_day: sessions on two days before the tested one are needed, "
            "one to train and one to validate",
        )
    ]


def users_of_two_models(log: Inspected) -> list[Finding]:
    """Whether the reward model and the evaluator have users to learn from: they share none."""
    first, last = window(log.days[1], log.stages.window.window_days)
    rows = log.rows(
        """
        with learned as (
            select user_id, session_date from sessions where session_date between $first and $last
        )
        select distinct user_id from learned
        where session_date < (select max(session_date) from learned) order by user_id limit $most
        """,
        first=first,
        last=last,
        most=MANY_USERS,
    )
    if len(rows) == MANY_USERS:
        return []
    users, config = np.array([row["user_id"] for row in rows], dtype=object), log.stages.reward

    def of_evaluator(seed: int) -> int:
        return int(split_users(users, config.evaluator_user_share, seed).sum())

    number = of_evaluator(config.seed)
    if not len(users) or 0 < number < len(users):
        return []
    parted = (seed for seed in range(100) if 0 < of_evaluator(seed) < len(users))
    seed = next(parted, None)
    setting = "events.path: a log of two users or more, of whom each model needs one"
    if len(users) > 1:
        setting = log.setting("reward", "evaluator_user_share", 0.5)
    if seed is not None:
        setting = log.setting("reward", "seed", seed)
    return [
        Finding(
            topic="Sessions",
            level="error",
            text=f"of {len(users):,} users with sessions to train on, {number:,} are the "
            f"evaluator's and {len(users) - number:,} the reward model's, which share none: each "
            "needs one at least, and a nightly run stops",
            setting=setting,
        )
    ]


def last_day(log: Inspected) -> list[Finding]:
    """Users and cases of the day that would be tested."""
    counts = log.row(
        """
        with events as (
            select e.user_id, e.is_watched and i.first_seen < $day as is_target
            from int_events_sessionized as e
            left join stg_items as i on e.item_id = i.item_id and i.version_number = 1
            where e.session_date = $day
        ),
        users as (select user_id, bool_or(is_target) as is_case from events group by user_id)
        select
            count(*) as users,
            count(*) filter (where is_case) as cases,
            count(*) filter (where is_case and user_id in (
                select user_id from int_events_sessionized
                where is_positive and session_date < $day
                union all select user_id from stg_prior_history where is_positive
            )) as with_history
        from users
        """,
        day=log.days[1],
    )
    cases = counts["cases"]
    few = cases < FEW_CASES * log.user_sample
    hint = f"; with fewer than {FEW_CASES} every interval is wide" if few else ""
    if not cases:
        hint = "; a nightly run for it has no metrics and promotes nothing"
    return [
        Finding(
            topic="Test day",
            level="warning" if hint else "ok",
            text=f"{log.days[1]}: {log.count(counts['users'])} users, {log.count(cases)} cases "
            "(users who watched an item known before that day), "
            f"{log.count(counts['with_history'])} of them with a history{hint}",
            setting=f"last_day: {log.days[1]}",
        )
    ]


def kinds_of_events(log: Inspected) -> list[Finding]:
    """Event types and ratings as they stand, with what counts as watched of each."""
    found = []
    meanings = ("watched", "positive", "negative")
    types = _event_types(log)
    if types:
        rows = [
            {
                **row,
                "counts as": ", ".join(
                    name
                    for name in meanings
                    if any(_names_type(c, row["event_type"]) for c in getattr(log.feedback, name))
                )
                or "an exposure",
            }
            for row in types
        ]
        by_type = all(condition.event_type for condition in log.feedback.watched)
        unknown = by_type and not any("watched" in row["counts as"] for row in rows)
        found.append(
            Finding(
                topic="Signals",
                level="warning" if unknown else "ok",
                text="event types" + (": none of them counts as watched" if unknown else ""),
                setting="feedback.watched, feedback.positive: {event_type: [...]}",
                rows=tuple(rows),
            )
        )
    ratings = log.row(
        "select min(rating) as least, median(rating) as median, max(rating) as most, "
        "count(rating) as n from stg_events"
    )
    if log.feedback.kind == "ratings" and ratings["n"]:
        least, median, most = (ratings[name] for name in ("least", "median", "most"))
        is_usual = least >= 0 and 4 <= most <= 5
        found.append(
            Finding(
                topic="Signals",
                level="ok" if is_usual else "warning",
                text=f"ratings from {least:g} to {most:g}, {median:g} at the median"
                + ("" if is_usual else ": the defaults are made for up to 5 stars"),
                setting="feedback.watched, feedback.positive: {rating_at_least: ...}, "
                "feedback.negative: {rating_below: ...}",
            )
        )
    return found


def _event_types(log: Inspected) -> list[dict[str, Any]]:
    """Event types and their events; of many those that count as watched first."""
    watched = [name.lower() for c in log.feedback.watched for name in c.event_type or ()]
    return log.rows(
        """
        with counted as (
            select event_type, count(*) as events,
                list_contains($named, lower(trim(event_type))) as is_named
            from stg_events where event_type is not null
            group by event_type order by is_named desc, events desc, event_type limit $n
        )
        select event_type, events from counted order by events desc, event_type
        """,
        named=watched,
        n=MOST_TYPES,
    )


def _names_type(condition: Condition, event_type: str) -> bool:
    """Whether a condition names an event type, or holds for all of them."""
    named = {name.lower() for name in condition.event_type or ()}
    return condition.every_event is True or event_type.strip().lower() in named


def signals(log: Inspected) -> list[Finding]:
    """Events with each signal: a tower of the reward needs some with it and some without.

    A signal of every event (`swt`, say) is cut at the median of blocks, so that its share of events
    says nothing.
    """
    meanings = {"is_watched": "feedback.watched", "is_positive": "feedback.positive"}
    if log.feedback.kind == "video":
        meanings["is_watched"] = log.setting("sessions", "watched_min_seconds")
    counted = {name: (name, setting) for name, setting in meanings.items()}
    for number, signal in enumerate(log.feedback.signals, start=1):
        if signal.of_block in ("any", "half"):
            setting = f"feedback.signals.{signal.name}"
            counted[signal.name] = (f"signals[{number}]", setting)
    counts = log.row(
        "select count(*) as events, "
        + ", ".join(f"count(*) filter ({sql}) as {name}" for name, (sql, _) in counted.items())
        + " from int_events_sessionized"
    )
    events = counts["events"]
    config = log.stages.sessions
    found = []
    for name, (_, setting) in counted.items():
        share = counts[name] / events if events else 0.0
        level: Level = "ok"
        text = f"{name}: {log.count(counts[name])} of {log.count(events)} events ({share:.2%})"
        if name == "is_positive":
            inside = config.min_positive_share <= share <= config.max_positive_share
            level = "ok" if inside else "error"
            bound = "min_positive_share" if share < 0.5 else "max_positive_share"
            setting = f"{setting}, {log.setting('sessions', bound)}"
        elif name != "is_watched" and counts[name] in (0, events):
            text += ": no tower can learn from it"
        found.append(Finding(topic="Signals", level=level, text=text, setting=setting))
    return found


def tokenizer(log: Inspected) -> list[Finding]:
    """What the tokenizer would be given."""
    counts = log.row(
        """
        with items as (
            select * from stg_items where first_seen < $day
            qualify row_number() over (partition by item_id order by valid_from desc) = 1
        ),
        copies as (
            select count(*) as n from items group by title, category, author_id
        )
        select
            (select count(*) from items) as items,
            (select count(*) from items where title is null and category is null) as textless,
            (select coalesce(max(n), 0) from copies) as copies
        """,
        day=log.days[1],
    )
    number, config = counts["items"], log.stages.tokenizer
    if not number:
        return [_nothing_to_tokenize(log)]
    size = config.codes_per_level(number)
    too_few = number < max(size, 2)
    text = f"{number:,} items before {log.days[1]}, {size} codes a level"
    if not config.codebook_size:
        text += ", which follow from the number of items"
    if too_few:
        text += ": fewer items than codes"
    equal = counts["copies"] > max(MANY_COPIES * number, 1)
    return [
        Finding(
            topic="Tokenizer",
            level="error" if too_few else "ok",
            text=text,
            setting=log.setting("tokenizer", "codebook_size", 0 if too_few else None),
        ),
        Finding(
            topic="Tokenizer",
            level="warning" if counts["textless"] > number / 2 else "ok",
            text=f"{counts['textless']:,} items have neither title nor category",
            setting="items.columns.title, items.columns.category",
        ),
        Finding(
            topic="Tokenizer",
            level="warning" if equal else "ok",
            text=(
                f"{counts['copies']:,} items have the same title, category and author"
                if counts["copies"] > 1
                else "no two items have the same title, category and author"
            )
            + (": only co-watching distinguishes them" if equal else ""),
            setting="items.columns.title, or item_vectors.path",
        ),
    ]


def _nothing_to_tokenize(log: Inspected) -> Finding:
    return Finding(
        topic="Tokenizer",
        level="error",
        text=f"no item is known before {log.days[1]}: there is nothing to tokenize",
        setting="items.path, items.columns.published_at, or first_day: an earlier one",
    )


def vectors(log: Inspected, supplied: pa.Table) -> list[Finding]:
    """What can be used of the vectors that are supplied."""
    usable, reasons = usable_vectors(supplied)
    log.connection.register("usable_vectors", usable)
    counts = log.row(
        """
        select
            (select count(*) from usable_vectors semi join stg_items using (item_id)) as known,
            (select count(distinct item_id) from stg_items) as items,
            (select coalesce(max(n), 0) from
                (select count(*) as n from usable_vectors group by vector)) as copies
        """
    )
    log.connection.unregister("usable_vectors")
    unusable = "".join(f", {number:,} {reason}" for reason, number in reasons.items())
    missing = counts["items"] - counts["known"]
    copies = counts["copies"]
    is_poor = bool(reasons) or missing > 0 or copies > max(MANY_COPIES * counts["items"], 1)
    return [
        Finding(
            topic="Tokenizer",
            level="warning" if is_poor else "ok",
            text=f"{len(usable):,} of {len(supplied):,} supplied vectors are usable{unusable}; "
            f"{missing:,} items have none"
            + (f", {copies:,} share one vector" if copies > 1 else ""),
            setting="item_vectors.path",
        )
    ]
