"""Settings of sessions and of the window of days."""

from dataclasses import dataclass

from onerec.config.fields import option, require


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """What a session is and when it is good. Handed to dbt as variables of the same names."""

    session_mode: str = option("gap", "How sessions are cut: 'gap' or 'user_day'")
    session_gap_minutes: float = option(30.0, "Silence of at least this long opens a new session")
    watched_min_seconds: float = option(
        10.0, "An exposure is watched from this many seconds, or from the share below"
    )
    watched_min_share: float = option(
        0.8, "... or from this share of the item's duration, whichever comes first"
    )
    max_watch_seconds: float = option(86_400.0, "A longer watch is rejected as absurd")
    good_min_watched_items: int = option(3, "A good session has at least this many watched items")
    good_min_watch_seconds: float = option(60.0, "... and at least this watch time in total")
    good_min_positive_interactions: int = option(
        0, "... and at least this many likes, follows, comments or shares (0: not asked)"
    )
    history_length: int = option(20, "n: positive items kept as a session's history")
    session_items: int = option(5, "m: items of a target session")
    max_rejected_share: float = option(0.05, "The check on rejected rows fails above this share")
    max_volume_ratio: float = option(
        4.0, "The check on volume fails when a day has this many times more or fewer sessions"
    )
    min_positive_share: float = option(0.01, "The check on rates fails below this positive share")
    max_positive_share: float = option(0.99, "... and above this one")

    def __post_init__(self) -> None:
        require(
            self.session_mode in ("gap", "user_day"),
            "session_mode",
            self.session_mode,
            "use 'gap' or 'user_day'",
        )
        for name in ("history_length", "session_items", "good_min_watched_items"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        for name in ("session_gap_minutes", "watched_min_seconds", "max_watch_seconds"):
            require(getattr(self, name) > 0, name, getattr(self, name), "use a positive number")
        require(
            0 < self.watched_min_share <= 1,
            "watched_min_share",
            self.watched_min_share,
            "use a share in (0, 1]",
        )


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Which days a model of partition D learns from: [D - window_days, D - 1]."""

    window_days: int = option(13, "W: days before D; the last of them validates")

    def __post_init__(self) -> None:
        require(
            self.window_days >= 2,
            "window_days",
            self.window_days,
            "use at least 2: days to train on and one to validate on",
        )
