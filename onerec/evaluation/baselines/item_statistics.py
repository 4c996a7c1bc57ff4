"""What a log says of each item: features of the cascade's ranker.

Shapes: N items, F statistics.
"""

from datetime import date

import numpy as np

from onerec.catalogue import Catalogue
from onerec.session_dataset.logged_exposures import LoggedExposures

SMOOTHING = 10.0
"""Pseudo-exposures with the mean of all items, added to every item: a prior for rare ones."""
STATISTICS = ("exposures", "watches", "watch_share", "watch_seconds", "interactions", "age_days")


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
