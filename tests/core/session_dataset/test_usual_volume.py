"""The usual number of sessions: a median of accepted days of the same kind."""

from datetime import date, timedelta
from statistics import median

from hypothesis import given
from hypothesis import strategies as st

from onerec.session_dataset.usual_volume import NUM_DAYS, UsualVolume, usual_volume

MONDAY = date(2026, 6, 1)
RATIO = 4.0


def days(*counts: int) -> dict[date, int]:
    return {MONDAY + timedelta(days=n): count for n, count in enumerate(counts)}


def usual(log: dict[date, int], day: date) -> UsualVolume:
    found = usual_volume(log, day, ratio=RATIO)
    assert found is not None
    return found


def test_a_broken_day_does_not_become_the_measure_of_the_next() -> None:
    log = days(100, 104, 98, 8)
    broken = usual(log, MONDAY + timedelta(days=3))
    assert broken.sessions == 100
    assert log[MONDAY + timedelta(days=3)] < broken.sessions / 4
    after = usual(log, MONDAY + timedelta(days=4))
    assert after.sessions == 100
    assert MONDAY + timedelta(days=3) not in after.days


def test_not_even_where_the_log_begins_with_it() -> None:
    assert usual(days(8, 100, 104, 98), MONDAY + timedelta(days=4)).sessions == 100


def test_closed_days_do_not_count() -> None:
    assert usual(days(100, 0, 0, 0, 90), MONDAY + timedelta(days=5)).sessions == 95
    assert usual_volume(days(0, 0), MONDAY + timedelta(days=2), ratio=RATIO) is None
    assert usual_volume({}, MONDAY, ratio=RATIO) is None


def test_with_enough_weeks_a_weekday_is_compared_with_itself() -> None:
    weekend_shop = [10, 10, 10, 10, 10, 100, 110]
    log = days(*weekend_shop * 4)
    saturday = MONDAY + timedelta(days=4 * 7 + 5)
    found = usual(log, saturday)
    assert (found.sessions, found.kind) == (100, "Saturdays")
    early = usual(days(*weekend_shop * 3), MONDAY + timedelta(days=3 * 7 + 5))
    assert (early.sessions, early.kind) == (10, "days")


def test_growth_is_followed() -> None:
    log = days(*(100 * 2**week for week in range(8) for _ in range(7)))
    assert usual(log, MONDAY + timedelta(days=56)).sessions > 1000


@given(st.lists(st.integers(0, 10**6), max_size=60))
def test_the_measure_lies_within_the_ratio_of_the_median(counts: list[int]) -> None:
    log = days(*counts)
    day = MONDAY + timedelta(days=len(counts))
    found = usual_volume(log, day, ratio=RATIO)
    if found is None:
        assert not any(counts)
        return
    assert 1 <= len(found.days) <= NUM_DAYS
    assert max(found.days) < day
    same_kind = [
        n for d, n in log.items() if n and (found.kind == "days" or d.weekday() == day.weekday())
    ]
    assert median(same_kind) / 4 <= found.sessions <= median(same_kind) * 4
