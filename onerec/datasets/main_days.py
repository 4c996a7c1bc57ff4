"""First and last day of a log whose clock is wrong in a few rows."""

from collections.abc import Mapping
from datetime import date
from itertools import pairwise

GAP_DAYS = 180
SLIVER = 0.01
"""What `main_days` leaves out: days beyond such a gap with at most such a share of the rows."""


def main_days(rows: Mapping[date, int]) -> tuple[date, date]:
    """First and last day of a log, without the days that a wrong clock invents.

    A few rows far before or after all others would make thousands of empty days: what lies beyond a
    gap of more than `GAP_DAYS` and holds at most the share `SLIVER` of the rows is left out.

    Args:
        rows: Rows of each day, at least one day.
    """
    days = sorted(rows)
    allowed = SLIVER * sum(rows.values())
    blocks = [[days[0]]]
    for before, day in pairwise(days):
        if (day - before).days > GAP_DAYS:
            blocks.append([])
        blocks[-1].append(day)
    for end in (0, -1):
        while len(blocks) > 1 and sum(rows[day] for day in blocks[end]) <= allowed:
            allowed -= sum(rows[day] for day in blocks.pop(end))
    return blocks[0][0], blocks[-1][-1]
