"""Logged exposures with what users did: what the cascade's ranker learns from.

Shapes: E exposures, N items, U users.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from onerec.catalogue import Catalogue
from onerec.session_dataset.reader import (
    exposure_flags,
    exposure_numbers,
    items_of,
    read_sessions,
    users_of,
)

INTERACTIONS = ("is_like", "is_follow", "is_comment", "is_share")
SMOOTHING = 10.0
"""Pseudo-exposures with the mean of all items, added to every item: a prior for rare ones."""
STATISTICS = ("exposures", "watches", "watch_share", "watch_seconds", "interactions", "age_days")


@dataclass(frozen=True)
class LoggedExposures:
    """Exposures of known items.

    Attributes:
        user: (E,) rows of `user_ids`.
        item: (E,) item indices.
        watch_seconds: (E,).
        is_watched: (E,) booleans.
        has_interaction: (E,) booleans: a like, follow, comment or share.
        user_ids: (U,) the users, sorted.
    """

    user: np.ndarray
    item: np.ndarray
    watch_seconds: np.ndarray
    is_watched: np.ndarray
    has_interaction: np.ndarray
    user_ids: np.ndarray

    def __len__(self) -> int:
        return len(self.item)

    def relevance(self) -> np.ndarray:
        """(E,) grades: 0 skipped, 1 watched, 2 watched for long, 3 with an interaction.

        Long is the median of the watched exposures, or more.
        """
        watched = self.watch_seconds[self.is_watched]
        long = np.median(watched) if len(watched) else 0.0
        grade = np.where(self.is_watched, 1 + (self.watch_seconds >= long), 0)
        return np.where(self.has_interaction, 3, grade)


def load_feedback(directory: Path, catalogue: Catalogue, splits: Sequence[str]) -> LoggedExposures:
    """Read exposures of some splits of a `session_dataset` artifact; never of `test`."""
    assert "test" not in splits, "nothing of the test day reaches a baseline"
    columns = ["user_id", "item_ids", "watch_seconds", "is_watched", *INTERACTIONS]
    table = read_sessions(directory, splits, columns)
    if not table.num_rows:
        raise ValueError(f"{directory}: no session in {', '.join(splits)}; ingest their days first")
    user_ids, user = users_of(table)
    items, row = items_of(table, "item_ids", catalogue)
    known = items >= 0
    return LoggedExposures(
        user=user[row[known]],
        item=items[known],
        watch_seconds=exposure_numbers(table, "watch_seconds")[known],
        is_watched=exposure_flags(table, "is_watched")[known],
        has_interaction=np.any([exposure_flags(table, n)[known] for n in INTERACTIONS], axis=0),
        user_ids=user_ids,
    )


def item_statistics(feedback: LoggedExposures, catalogue: Catalogue, as_of: date) -> np.ndarray:
    """(N, F) statistics of each item from a log, in the order of `STATISTICS`.

    Shares and means are smoothed towards those of all items.

    Args:
        feedback: The log.
        catalogue: With the day on which each item was first seen.
        as_of: The day on which the statistics are used; the log is older.
    """
    num = len(catalogue)

    def count(values: np.ndarray) -> np.ndarray:
        return np.bincount(feedback.item, values.astype(float), minlength=num)

    exposures = count(np.ones(len(feedback)))

    def mean(values: np.ndarray) -> np.ndarray:
        overall = float(values.mean()) if len(values) else 0.0
        return (count(values) + SMOOTHING * overall) / (exposures + SMOOTHING)

    age = (np.datetime64(as_of, "D") - catalogue.first_seen).astype(float)
    columns = {
        "exposures": np.log1p(exposures),
        "watches": np.log1p(count(feedback.is_watched)),
        "watch_share": mean(feedback.is_watched),
        "watch_seconds": mean(feedback.watch_seconds),
        "interactions": mean(feedback.has_interaction),
        "age_days": age,
    }
    return np.stack([columns[name] for name in STATISTICS], -1)
