"""Exposures and watches of the training window: everything that a baseline may learn from.

Reads the `train` and `valid` splits of a `session_dataset` artifact, never `test`, so
baselines and generator learn from the same days.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from onerec.catalogue import Catalogue
from onerec.session_dataset.reader import (
    dates_of,
    exposure_flags,
    items_of,
    known_items_of,
    read_sessions,
    users_of,
)
from onerec.session_dataset.splits import LEARNED

COLUMNS = ["user_id", "session_date", "history_item_ids", "item_ids", "is_watched"]


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """Exposures of the window, one per entry, items without a semantic ID left out.

    Attributes:
        num_items: N, rows of the semantic-ID table.
        user: (E,) number of the user.
        item: (E,) item index.
        age: (E,) days between the exposure and the test day, at least 1.
        is_watched: (E,) booleans.
        past_user: (P,) number of the user of each positive before the window's sessions.
        past_item: (P,) its item index.
        user_ids: (U,) the users.
    """

    num_items: int
    user: np.ndarray
    item: np.ndarray
    age: np.ndarray
    is_watched: np.ndarray
    past_user: np.ndarray
    past_item: np.ndarray
    user_ids: np.ndarray

    def exposures(self) -> np.ndarray:
        """(N,) how often each item was shown."""
        return np.bincount(self.item, minlength=self.num_items)

    def watches(self, *, half_life_days: float | None = None) -> np.ndarray:
        """(N,) how often each item was watched; old watches count less with a half-life."""
        weight = self.is_watched.astype(float)
        if half_life_days is not None:
            weight *= 0.5 ** ((self.age - 1) / half_life_days)
        return np.bincount(self.item, weight, minlength=self.num_items)

    def watched_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct (user, item) pairs, watched in the window or in a history of it."""
        user = np.concatenate([self.user[self.is_watched], self.past_user])
        item = np.concatenate([self.item[self.is_watched], self.past_item])
        keys = np.unique(user * self.num_items + item)
        return keys // self.num_items, keys % self.num_items


def load_interactions(
    directory: Path,
    catalogue: Catalogue,
    *,
    test_day: date,
    splits: Sequence[str] = LEARNED,
) -> Interactions:
    """Read the window of a `session_dataset` artifact.

    Args:
        directory: Files of the artifact.
        catalogue: Items it does not know are dropped.
        test_day: Day D; every session read is of an earlier day.
        splits: Days read; without `valid` the day before D is left out, too.

    Raises:
        ValueError: The window holds nothing, or a session of the test day or later.
    """
    table = read_sessions(directory, splits, COLUMNS)
    if not table.num_rows:
        raise ValueError(
            f"{directory}: no session before {test_day}; ingest the days of the window first"
        )
    day = dates_of(table)
    age = (np.datetime64(test_day, "D") - day).astype(np.int64)
    if len(age) and age.min() < 1:
        raise ValueError(
            f"{directory}: the window holds a session of {day.max()}, but the test day is "
            f"{test_day}; materialise session_dataset again"
        )
    user_ids, user = users_of(table)
    items, rows = items_of(table, "item_ids", catalogue)
    known = items >= 0
    past_items, past_rows = known_items_of(table, "history_item_ids", catalogue)
    return Interactions(
        num_items=len(catalogue),
        user=user[rows[known]],
        item=items[known],
        age=age[rows[known]],
        is_watched=exposure_flags(table, "is_watched")[known],
        past_user=user[past_rows],
        past_item=past_items,
        user_ids=user_ids,
    )
