"""The schedule of incidents."""

from datetime import date, timedelta

FIRST_LOG_DAY = date(2026, 6, 1)
FIRST_NIGHT = date(2026, 6, 6)
"""The day of the first nightly run, a Saturday: every seventh night refits the tokenizer."""

SCHEDULE: dict[int, str] = {
    1: "first night",
    2: "promote and pin",
    3: "missed",
    4: "catch-up",
    5: "empty day",
    6: "8 % day",
    8: "refused Sunday",
    9: "rows held back",
    10: "late rows",
    11: "wrong file",
    12: "corrected day",
    13: "withdrawn catalogue",
    14: "failed night, withdrawn catalogue",
    16: "kill in training",
    17: "disk full",
    18: "corrupt checkpoint",
    19: "unpin and rollback",
    20: "erasure",
    21: "two operators",
    23: "missed",
    24: "missed",
    25: "catch-up",
    26: "8 % day",
    27: "kill in training",
    28: "unpin and rollback",
    29: "refused Sunday",
}
"""Incident by number of the nightly run; the others have none."""

SHORT: dict[int, str] = {
    1: "first night",
    2: "promote and pin",
    3: "failed night, withdrawn catalogue",
}
"""What the tests run."""


def day_of(night: int) -> date:
    """The day of a nightly run, counted from 1."""
    return FIRST_NIGHT + timedelta(days=night - 1)
