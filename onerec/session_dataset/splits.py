"""How the data of a nightly run is divided: by day, and by user.

Partition D is the nightly run for day D. It learns from the window [D - W, D - 1], whose last day
with sessions is the validation day, and is tested on day D, which no training reads. Where two
models must not share users, a hash of the user's id divides them.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

LEARNED = ("train", "valid")
"""The splits that models may learn from."""
FEWEST_DAYS_BEFORE = 2
"""Days of the log before the first one that can be tested: one trains, one validates."""


@dataclass(frozen=True)
class SplitDays:
    """The days that a session dataset is made of.

    Attributes:
        first: First day of the window, a training day.
        test_day: Day D.
        valid_day: The last day before D that has sessions; None where there is none.
    """

    first: date
    test_day: date
    valid_day: date | None


def window(test_day: date, window_days: int) -> tuple[date, date]:
    """First and last day of the window that a model tested on a day learns from.

    >>> window(date(2026, 6, 14), 13)
    (datetime.date(2026, 6, 1), datetime.date(2026, 6, 13))
    """
    return test_day - timedelta(days=window_days), test_day - timedelta(days=1)


def validation_day(sessions: Mapping[date, int], test_day: date) -> date | None:
    """The validation day: the last day before the test day with sessions, if any.

    >>> closed_on_sunday = {date(2026, 6, 13): 5, date(2026, 6, 14): 0, date(2026, 6, 15): 7}
    >>> validation_day(closed_on_sunday, date(2026, 6, 15))
    datetime.date(2026, 6, 13)
    """
    return max((day for day, number in sessions.items() if number and day < test_day), default=None)


def split_of(dates: Any, test_day: date, valid_day: date | None) -> Any:
    """The split of each date of an Arrow array.

    >>> days = pa.array([date(2026, 6, 1), date(2026, 6, 2), date(2026, 6, 3)])
    >>> split_of(days, date(2026, 6, 3), date(2026, 6, 2)).to_pylist()
    ['train', 'valid', 'test']
    """
    is_valid = pc.equal(dates, pa.scalar(valid_day or date.min))
    is_test = pc.equal(dates, pa.scalar(test_day))
    return pc.if_else(is_test, "test", pc.if_else(is_valid, "valid", "train"))


def split_users(user_ids: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose a share of users by a hash of their id, the same on every day and machine.

    Args:
        user_ids: (U,) strings.
        share: Expected share chosen, in [0, 1].
        seed: Seed of the hash.

    Returns:
        (U,) bool. The chosen and the others are disjoint sets of users; a user's side depends on
        the id alone, so it never changes while others come and go.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share!r}: use a share of the users in [0, 1]")
    ids = np.asarray(user_ids, dtype=object)
    hashes = pd.util.hash_array(ids, hash_key=f"{seed % 10**16:016d}", categorize=False)
    # The upper 53 bits make a uniform float64 in [0, 1) without rounding up to 1.
    return (hashes >> np.uint64(11)) * 2.0**-53 < share
