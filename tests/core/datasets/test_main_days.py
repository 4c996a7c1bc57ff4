"""Days that a wrong clock invents are left out."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from onerec.datasets.main_days import GAP_DAYS, SLIVER, main_days
from tests.core.datasets.small_log import DAY


def test_days_of_a_wrong_clock_are_left_out() -> None:
    week = {DAY + timedelta(d): 1_000 for d in range(7)}
    assert main_days(week) == (DAY, DAY + timedelta(6))
    far = {date(2001, 1, 1): 3, date(2020, 5, 5): 40, date(2030, 1, 1): 7}
    assert main_days(week | far) == (DAY, DAY + timedelta(6))
    # neither a day that holds its share of the rows, nor one that is near
    assert main_days(week | {date(2001, 1, 1): 700})[0] == date(2001, 1, 1)
    assert main_days(week | {DAY - timedelta(GAP_DAYS): 1})[0] == DAY - timedelta(GAP_DAYS)


@given(
    st.dictionaries(
        st.dates(date(1990, 1, 1), date(2030, 1, 1)), st.integers(1, 10_000), min_size=1
    )
)
def test_what_is_left_out_is_a_sliver(rows: dict[date, int]) -> None:
    first, last = main_days(rows)
    assert first in rows
    assert last in rows
    outside = sum(n for day, n in rows.items() if not first <= day <= last)
    assert outside <= SLIVER * sum(rows.values())
