"""Which days a nightly run learns from, which one validates, which one tests.

Partition D is the nightly run for day D. It learns from the window [D - W, D - 1], whose last day
validates, and is tested on day D, of which nothing that learns may see anything.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

LEARNED = ("train", "valid")
"""The splits that something may be learned from."""


def window(test_day: date, window_days: int) -> tuple[date, date]:
    """First and last day a model of a test day may learn from.

    >>> window(date(2026, 6, 14), 13)
    (datetime.date(2026, 6, 1), datetime.date(2026, 6, 13))
    """
    return test_day - timedelta(days=window_days), test_day - timedelta(days=1)


def validation_day(test_day: date) -> date:
    """The day that validates: the last one before the test day."""
    return test_day - timedelta(days=1)


def split_of(dates: Any, test_day: date) -> Any:
    """The split of each date of an Arrow array.

    >>> days = pa.array([date(2026, 6, 1), date(2026, 6, 2), date(2026, 6, 3)])
    >>> split_of(days, date(2026, 6, 3)).to_pylist()
    ['train', 'valid', 'test']
    """
    is_valid = pc.equal(dates, pa.scalar(validation_day(test_day)))
    is_test = pc.equal(dates, pa.scalar(test_day))
    return pc.if_else(is_test, "test", pc.if_else(is_valid, "valid", "train"))
