"""How often every item was watched on the newest days of a session dataset."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from onerec.catalogue import Catalogue
from onerec.session_dataset.reader import exposure_flags, items_of, open_sessions


@dataclass(frozen=True)
class WatchesBefore:
    """Counts watches up to the day before lists are served, for the recency prior.

    Attributes:
        session_dataset: Files of the artifact.
        day: The day the lists are for; watches before it count.
    """

    session_dataset: Path
    day: date

    def count(self, catalogue: Catalogue, days: int) -> np.ndarray:
        """See `newest_watches`."""
        return newest_watches(self.session_dataset, catalogue, before=self.day, days=days)


def split_day(directory: Path, split: str) -> date | None:
    """The last day of a split with sessions; None where it has none."""
    days = open_sessions(directory, [split]).to_table(["session_date"]).column(0)
    return pc.max(days).as_py()


def newest_watches(directory: Path, catalogue: Catalogue, *, before: date, days: int) -> np.ndarray:
    """Count the watches of the newest days before a day.

    Args:
        directory: Files of a `session_dataset` artifact; all splits are read, the test day's too
            where it lies before `before`.
        catalogue: Items it does not know are dropped.
        before: Watches before this day are counted.
        days: Number of days counted, back from the last day before `before` with sessions.

    Returns:
        (N,) counts of watched exposures; zeros where no session is that old.
    """
    sessions, day = open_sessions(directory), pc.field("session_date")
    days_before = sessions.to_table(["session_date"], filter=day < before).column(0)
    newest = pc.max(days_before).as_py()
    if newest is None:
        return np.zeros(len(catalogue))
    counted = (day < before) & (day > newest - timedelta(days=days))
    table = sessions.to_table(["item_ids", "is_watched"], filter=counted)
    items, _ = items_of(table, "item_ids", catalogue)
    kept = (items >= 0) & exposure_flags(table, "is_watched")
    return np.bincount(items[kept], minlength=len(catalogue)).astype(float)
