"""Settings of the simulator."""

from dataclasses import dataclass
from datetime import date

from onerec.config import ValidatedConfig, option

FIRST_DAY = date(2026, 6, 1)


@dataclass(frozen=True, kw_only=True)
class SimulatorConfig(ValidatedConfig):
    """Size, seed and beginning of the simulated app."""

    seed: int = option(2, "Another seed is another app", ge=0, le=2**31 - 1)
    first_day: date = option(
        FIRST_DAY, "First UTC day of the log", ge=date(1970, 1, 1), le=date(2200, 1, 1)
    )
    initial_users: int = option(
        2700, "Users who have already joined on the first day", ge=1, le=10**8
    )
    new_users_per_day: int = option(14, "Users who join each day", ge=0, le=10**6)
    user_lifetime_days: float = option(
        170.0, "Mean days after which a user is gone for good", gt=0, le=1e5
    )
    initial_items: int = option(1580, "Items published before the first day", ge=1, le=10**7)
    new_items_per_day: int = option(30, "Items published each day", ge=0, le=10**6)
    authors_per_topic: int = option(12, "Authors who specialise in one topic", ge=1, le=10**5)
    activity: float = option(0.26, "Mean share of days on which a user opens the app", gt=0, lt=1)
    exploration: float = option(0.10, "Share of exposures the app picks at random", ge=0, le=1)
    repeat_days: int = option(
        7,
        "A user can meet the same item again only every so many days, so repeats stay rare",
        ge=1,
        le=3660,
    )
