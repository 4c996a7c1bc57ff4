"""A simulated short-video app. Not real data: every number measured on it is a simulation's.

What it models: users with a few topics each, drifting slowly and swept by passing fads; items of
a topic and subtopic with a quality, a duration, an age, an author who specialises and a title that
says what it is about; sessions in which attention tires; an app that shows what it estimates the
user to like, with delay and errors, prefers the popular and the fresh, and explores a little; watch
time and sparse likes, follows, comments, shares and dislikes drawn from a known affinity.
What it does not: network effects, creators reacting to demand, bots, outages, dirty rows.

A day depends on the seed and the day alone, so a schedule can read yesterday at any time.
"""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onerec.config import read_yaml, require
from onerec.datasets.simulator import log
from onerec.datasets.simulator.config import SimulatorConfig
from onerec.datasets.simulator.world import (
    World,
    author_ids,
    categories,
    item_ids,
    titles,
)
from onerec.schema import ITEMS, PRIOR_HISTORY, UTC_MICROSECONDS


def open_source(*, data_dir: str | None = None, config: Path | None = None) -> "SimulatedSource":
    """The simulated app; `simulator:` in the YAML file changes its size, seed or first day.

    Raises:
        ValueError: A setting is unknown or out of range.
    """
    values = read_yaml(config).get("simulator") if config is not None else None
    return SimulatedSource(SimulatorConfig().changed(values, "simulator"))


@dataclass(frozen=True)
class SimulatedSource:
    """An `EventSource` over a simulated app."""

    config: SimulatorConfig

    @property
    def first_day(self) -> date:
        """First UTC day of the log."""
        return self.config.first_day

    @property
    def last_day(self) -> None:
        """The app never closes."""
        return None

    @property
    def delivers_full_catalogue(self) -> bool:
        """Every day names all items."""
        return True

    def has_arrived(self, day: date) -> bool:
        """Every day can be read at any time, as it depends on the seed and itself alone."""
        return day >= self.first_day

    @cached_property
    def world(self) -> World:
        """Users and items, ground truth included."""
        return World(self.config)

    def events(self, day: date) -> pa.Table:
        """Exposures of a day, ordered by time.

        Raises:
            ValueError: The day lies before the first one.
        """
        number = self._number(day)
        table = log.day_events(
            self.world, self.world.users(number), self.world.items(number), number, day.weekday()
        )
        midnight = _microseconds(day)
        second = table["second"].to_numpy()
        time = pa.array(midnight + np.round(second * 1e6).astype(np.int64)).cast(UTC_MICROSECONDS)
        row = pc.utf8_lpad(
            pc.cast(pa.array(np.arange(len(time))), pa.string()), width=7, padding="0"
        )
        event_id = pc.binary_join_element_wise(f"{day:%Y%m%d}", row, "-")
        table = table.drop_columns("second").add_column(0, "event_time", time)
        return table.add_column(0, "event_id", event_id)

    def items(self, day: date) -> pa.Table:
        """Everything published by the end of a day.

        Raises:
            ValueError: The day lies before the first one.
        """
        items = self.world.items(self._number(day))
        origin = _microseconds(self.first_day)
        published = origin + np.round(items.published * 86_400e6).astype(np.int64)
        columns = {
            "item_id": item_ids(np.arange(len(items))),
            "duration_seconds": pa.array(items.duration),
            "title": titles(items),
            "category": categories(items),
            "author_id": author_ids(items.author),
            "published_at": pa.array(published).cast(UTC_MICROSECONDS),
            "features": pa.nulls(len(items), pa.string()),
        }
        return pa.table(columns, schema=ITEMS.remove_metadata())

    def prior_history(self) -> pa.Table:
        """Empty: the simulated log begins with the app's first day."""
        return PRIOR_HISTORY.empty_table()

    def item_vectors(self) -> None:
        """The app has no embeddings of its own."""
        return None

    def user_attributes(self) -> None:
        """The app knows nothing of its users but what they do."""
        return None

    def _number(self, day: date) -> int:
        require(
            day >= self.first_day,
            "day",
            str(day),
            f"the simulated log begins on {self.first_day}; ask for that day or a later one",
        )
        return (day - self.first_day).days


def _microseconds(day: date) -> int:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return (midnight - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
