"""Settings of the simulator."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from onerec.config import option, require

FIRST_DAY = date(2026, 6, 1)


@dataclass(frozen=True, kw_only=True)
class SimulatorConfig:
    """Size, seed and beginning of the simulated app."""

    seed: int = option(2, "Another seed is another app")
    first_day: date = dataclasses.field(
        default=FIRST_DAY, metadata={"doc": "First UTC day of the log"}
    )
    initial_users: int = option(2700, "Users who have already joined on the first day")
    new_users_per_day: int = option(14, "Users who join each day")
    user_lifetime_days: float = option(170.0, "Mean days after which a user is gone for good")
    initial_items: int = option(1580, "Items published before the first day")
    new_items_per_day: int = option(30, "Items published each day")
    authors_per_topic: int = option(12, "Authors who specialise in one topic")
    activity: float = option(0.26, "Mean share of days on which a user opens the app")
    exploration: float = option(0.10, "Share of exposures the app picks at random")
    repeat_days: int = option(
        7, "A user can meet the same item again only every so many days, so repeats stay rare"
    )

    def __post_init__(self) -> None:
        require(self.seed >= 0, "simulator.seed", self.seed, "use 0 or more")
        for name in ("initial_users", "initial_items", "authors_per_topic", "repeat_days"):
            require(
                getattr(self, name) >= 1, f"simulator.{name}", getattr(self, name), "at least 1"
            )
        for name in ("new_users_per_day", "new_items_per_day"):
            require(getattr(self, name) >= 0, f"simulator.{name}", getattr(self, name), "0 or more")
        require(
            self.user_lifetime_days > 0,
            "simulator.user_lifetime_days",
            self.user_lifetime_days,
            "use a positive number of days",
        )
        require(0 < self.activity < 1, "simulator.activity", self.activity, "use a share in (0, 1)")
        require(
            0 <= self.exploration <= 1,
            "simulator.exploration",
            self.exploration,
            "use a share in [0, 1]",
        )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "SimulatorConfig":
        """Settings from the `simulator:` section of a YAML file.

        Raises:
            ValueError: A key is unknown or a value has the wrong type or range.
        """
        fields = {f.name: f.default for f in dataclasses.fields(cls)}
        checked: dict[str, Any] = {}
        for name, value in values.items():
            field = f"simulator.{name}"
            require(name in fields, field, value, f"no such setting; use {', '.join(fields)}")
            kind = type(fields[name])
            if kind is date and isinstance(value, str):
                try:
                    value = date.fromisoformat(value)
                except ValueError:
                    require(False, field, value, "use a day like 2026-06-01")
            if kind is float and type(value) is int:
                value = float(value)
            require(type(value) is kind, field, value, f"use a {kind.__name__}")
            checked[name] = value
        return cls(**checked)
