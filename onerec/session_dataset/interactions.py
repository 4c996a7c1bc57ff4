"""Exposures and watches of the training window: everything that a baseline may learn from.

Reads the `train` and `valid` splits of a `session_dataset` artifact, never `test`, so
baselines and generator learn from the same days. A batch of sessions is in memory at a time;
counts are per item, and what users watched is on disk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from onerec.catalogue import Catalogue
from onerec.session_dataset.holdout import held_out_users
from onerec.session_dataset.incidence import Incidence, UserItemPairs
from onerec.session_dataset.reader import (
    dates_of,
    exposure_flags,
    items_of,
    known_items_of,
    session_batches,
)
from onerec.session_dataset.splits import LEARNED

COLUMNS = ["user_id", "session_date", "history_item_ids", "item_ids", "is_watched"]
HALF_LIFE_DAYS = 1.0
"""Of a watch, for recent popularity; chosen on three days of KuaiRand (docs/log.md, 2026-11-27)."""


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """Counts of the window, items without a semantic ID left out.

    Attributes:
        exposures: (N,) how often each item was shown.
        watches: (N,) how often each item was watched.
        recent_watches: (N,) the same, a watch halved every `HALF_LIFE_DAYS` before the last day.
        watched: (U, N) the items that each user watched in the window or has in a history of it.
    """

    exposures: np.ndarray
    watches: np.ndarray
    recent_watches: np.ndarray
    watched: Incidence


def load_interactions(
    directory: Path,
    catalogue: Catalogue,
    *,
    test_day: date,
    splits: Sequence[str] = LEARNED,
    hold_out: bool = False,
) -> Interactions:
    """Read the window of a `session_dataset` artifact.

    Args:
        directory: Files of the artifact.
        catalogue: Items it does not know are dropped.
        test_day: Day D; every session read is of an earlier day.
        splits: Days read; without `valid` the day before D is left out, too.
        hold_out: Leave out what held-out users did on the validation day (`holdout`).

    Raises:
        ValueError: The window holds nothing, or a session of the test day or later.
    """
    num_items = len(catalogue)
    exposures, num_sessions = np.zeros(num_items, np.int64), 0
    watches, recent = np.zeros(num_items), np.zeros(num_items)
    batches = chain(*(_batches(directory, split, hold_out) for split in splits))
    with UserItemPairs(num_items) as pairs:
        for table in batches:
            num_sessions += table.num_rows
            age = _days_before(test_day, dates_of(table), directory)
            names = table.column("user_id").to_numpy()
            user = pd.util.hash_array(names.astype(object), categorize=False)
            items, rows = items_of(table, "item_ids", catalogue)
            exposures += np.bincount(items[items >= 0], minlength=num_items)
            watched = exposure_flags(table, "is_watched") & (items >= 0)
            items, rows = items[watched], rows[watched]
            watches += np.bincount(items, minlength=num_items)
            weight = 0.5 ** ((age[rows] - 1) / HALF_LIFE_DAYS)
            recent += np.bincount(items, weight, minlength=num_items)
            pairs.append(user[rows], items)
            past, past_rows = known_items_of(table, "history_item_ids", catalogue)
            pairs.append(user[past_rows], past)
        if not num_sessions:
            raise ValueError(
                f"{directory}: no session before {test_day}; ingest the days of the window first"
            )
        return Interactions(
            exposures=exposures, watches=watches, recent_watches=recent, watched=pairs.finish()
        )


def _batches(directory: Path, split: str, hold_out: bool) -> Iterator[pa.Table]:
    for table in session_batches(directory, split, COLUMNS):
        if hold_out and split == "valid":
            users = table.column("user_id").to_numpy()
            table = table.filter(pa.array(~held_out_users(directory, users)))
        yield table


def _days_before(test_day: date, days: np.ndarray, directory: Path) -> np.ndarray:
    """(S,) days between each session and the test day, at least 1."""
    age = (np.datetime64(test_day, "D") - days).astype(np.int64)
    if len(age) and age.min() < 1:
        raise ValueError(
            f"{directory}: the window holds a session of {days.max()}, but the test day is "
            f"{test_day}; materialise session_dataset again"
        )
    return age
