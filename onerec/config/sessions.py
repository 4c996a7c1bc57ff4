"""Settings of sessions and of the window of days."""

from dataclasses import dataclass
from typing import Literal

from onerec.config.fields import ValidatedConfig, option, require
from onerec.config.limits import LARGEST_SEED, LONGEST_SEQUENCE

SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class SessionConfig(ValidatedConfig):
    """What a session is and when it is good. Handed to dbt as variables of the same names."""

    session_mode: Literal["gap", "user_day"] = option(
        "gap", "How sessions are cut: 'gap' or 'user_day'"
    )
    session_gap_minutes: float = option(
        30.0, "Silence of at least this long opens a new session", gt=0, le=1440
    )
    session_order: Literal["auto", "time", "none"] = option(
        "auto",
        "Order of a session's items: 'time', ties as delivered; 'none' for baskets, whose targets "
        "are a seeded sample; 'auto' is 'none' where a session has more ties than max_tied_share",
    )
    max_tied_share: float = option(
        0.5,
        "Share of a session's events that may share their time with another one of the session "
        "before its order counts as unknown",
        ge=0,
        le=1,
    )
    order_seed: int = option(
        0, "Seed of the order that sessions of unknown order get", ge=0, le=LARGEST_SEED
    )
    watched_min_seconds: float = option(
        10.0,
        "An exposure is watched from this many seconds, or from the share below",
        gt=0,
        le=SECONDS_PER_DAY,
    )
    watched_min_share: float = option(
        0.8, "... or from this share of the item's duration, whichever comes first", gt=0, le=1
    )
    max_watch_seconds: float = option(
        SECONDS_PER_DAY, "A longer watch is rejected as absurd", gt=0, le=100 * SECONDS_PER_DAY
    )
    max_events_per_user_day: int = option(
        0,
        "Limit of a user's events on a day, for bots and test accounts (0: no limit)",
        ge=0,
        le=10**9,
    )
    over_max_events: Literal["reject_day", "keep_first"] = option(
        "reject_day",
        "Where a user has more: 'reject_day' rejects all events of that day, 'keep_first' those "
        "after the first max_events_per_user_day",
    )
    same_moment: Literal["reject", "add_up"] = option(
        "reject",
        "Rows of a delivery with the same user, item, time and event type: 'reject' takes one, the "
        "others are duplicates; 'add_up' where each is a unit that was bought: one event, of which "
        "the quantity is their sum (a row without a quantity counts 1)",
    )
    lateness_days: int = option(
        2,
        "Lateness window: a row may be delivered with one of so many days after its own, and days "
        "this far back are read again",
        ge=0,
        le=30,
    )
    good_min_watched_items: int = option(
        3, "A good session has at least this many watched items", ge=1, le=LONGEST_SEQUENCE
    )
    good_min_watch_seconds: float = option(
        60.0, "... and at least this watch time in total", ge=0, le=SECONDS_PER_DAY
    )
    good_min_positive_interactions: int = option(
        0,
        "... and at least this many likes, follows, comments or shares (0: not required)",
        ge=0,
        le=LONGEST_SEQUENCE,
    )
    good_min_positives: int = option(
        0,
        "... and at least this many positive events, whatever the log declares as positive "
        "(0: not required)",
        ge=0,
        le=LONGEST_SEQUENCE,
    )
    history_length: int = option(
        20, "n: positive items kept as a session's history", ge=1, le=LONGEST_SEQUENCE
    )
    session_items: int = option(5, "m: items of a target session", ge=1, le=LONGEST_SEQUENCE)
    repeats: Literal["auto", "always", "never"] = option(
        "auto",
        "Whether recommendations may hold items of the history: 'always', 'never', or 'auto', from "
        "this share of the validation day's watched events on",
    )
    min_repeat_share: float = option(
        0.25, "... whose item the user had on an earlier day", ge=0, le=1
    )
    max_rejected_share: float = option(
        0.05, "The check on rejected rows fails above this share", ge=0, le=1
    )
    max_withdrawn_share: float = option(
        0.2,
        "The check on the catalogue warns when a delivery withdraws more than this share of it",
        ge=0,
        le=1,
    )
    max_volume_ratio: float = option(
        4.0,
        "The check on volume fails when a day has so many times more or fewer sessions than usual",
        ge=1,
        le=1e6,
    )
    min_positive_share: float = option(
        0.01, "The check on rates fails below this positive share", ge=0, le=1
    )
    max_positive_share: float = option(0.99, "... and above this one", ge=0, le=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.min_positive_share <= self.max_positive_share,
            "min_positive_share",
            self.min_positive_share,
            f"use at most max_positive_share={self.max_positive_share}",
        )


@dataclass(frozen=True, kw_only=True)
class WindowConfig(ValidatedConfig):
    """Which days a model of partition D learns from: [D - window_days, D - 1]."""

    window_days: int = option(
        13,
        "W: days before D, at least one to train on; the last of them validates",
        ge=2,
        le=3660,
    )
    holdout_user_share: float = option(
        0.2,
        "Share of the users whose day D - 1 the last phase of a training leaves out, and for whom "
        "no preferences are made: an alignment round's Recall@10 is measured on them",
        ge=0,
        lt=1,
    )
