"""Logged exposures with the users' feedback, to train a ranker on.

Shapes: E exposures, N items, U users.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onerec.catalogue import Catalogue
from onerec.session_dataset.reader import (
    INTERACTIONS,
    exposure_flags,
    exposure_numbers,
    items_of,
    read_sessions,
    users_of,
)


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

        Long means at least the median watch time of the watched exposures.
        """
        watched = self.watch_seconds[self.is_watched]
        long = np.median(watched) if len(watched) else 0.0
        grade = np.where(self.is_watched, 1 + (self.watch_seconds >= long), 0)
        return np.where(self.has_interaction, 3, grade)


def load_logged_exposures(
    directory: Path, catalogue: Catalogue, splits: Sequence[str]
) -> LoggedExposures:
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
