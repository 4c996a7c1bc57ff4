"""How many sessions a day usually has: the median of the last accepted days of the same kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from statistics import median

LOOKBACK_DAYS = 56
"""Days before D whose numbers of sessions are used: eight weeks."""
NUM_DAYS = 7
"""Number of accepted days that the median is taken over."""
NUM_WEEKS = 4
"""With at least so many days of the same weekday, only these are compared with."""


@dataclass(frozen=True)
class UsualVolume:
    """What a day is compared with.

    Attributes:
        sessions: The median.
        days: The days that it is the median of, oldest first.
        kind: In words, what kind of days they are.
    """

    sessions: float
    days: tuple[date, ...]
    kind: str


def usual_volume(sessions: Mapping[date, int], day: date, *, ratio: float) -> UsualVolume | None:
    """The usual number of sessions of a day, from those of the days before it.

    The days of the same kind are those of the same weekday, if there are `NUM_WEEKS` of them, else
    all of them. Of these, days within the ratio of the median of all are accepted, so that a broken
    day does not distort later comparisons. Days without sessions do not count.

    Args:
        sessions: Number of each day; the day itself and later ones are left out.
        day: Which day.
        ratio: An accepted day has at most so many times more or fewer sessions.

    Returns:
        None where no day before has sessions.

    >>> full = {date(2026, 6, d): 100 for d in range(1, 8)}
    >>> usual = usual_volume(full | {date(2026, 6, 8): 8}, date(2026, 6, 9), ratio=4)
    >>> usual.sessions, len(usual.days), usual.kind
    (100, 7, 'days')
    """
    before = {d: n for d, n in sorted(sessions.items()) if d < day and n > 0}
    same = {d: n for d, n in before.items() if d.weekday() == day.weekday()}
    kind, chosen = ("days", before) if len(same) < NUM_WEEKS else (f"{day:%A}s", same)
    if not chosen:
        return None
    middle = median(chosen.values())
    accepted = [d for d, n in chosen.items() if middle / ratio <= n <= middle * ratio]
    last = (accepted or list(chosen))[-NUM_DAYS:]  # with a ratio near 1 there may be none
    return UsualVolume(median(chosen[d] for d in last), tuple(last), kind)
