"""What an inspection says of how much there is of days, items and users."""

from collections.abc import Sequence

import pytest

from onerec.config.feedback import FEEDBACK
from resources.inspection import volume_findings
from resources.inspection.findings import Inspected
from tests.resources.small_inspection import inspected


def days_of_events(hours: Sequence[int], rows: Sequence[int]) -> Inspected:
    """Days from 2026-06-01 on, with the hour of their last event and their rows, one a session."""
    values = ", ".join(
        f"(date '2026-06-0{n}', {hour}, {number})"
        for n, (hour, number) in enumerate(zip(hours, rows, strict=True), start=1)
    )
    tables = f"""
    create table stg_events as select day as event_date, 'i' || k as item_id,
        day + to_hours(hour) - to_minutes(k::int) as event_time
        from (values {values}) as t(day, hour, number), range(200) as s(k) where k < number;
    create table sessions as select event_date as session_date from stg_events;
    """
    return inspected(FEEDBACK["video"], tables)


def test_a_day_that_the_check_of_volume_would_stop_is_named() -> None:
    (found,) = volume_findings.tested_day(days_of_events([23] * 3 + [9], [100, 90, 110, 8]))
    assert found.level == "error"
    assert "2026-06-04 has 8 sessions, days before it 100 at the median" in found.text
    assert "volume_is_usual" in found.text
    assert "Its last event is of 09:00 UTC" in found.text
    assert found.setting.startswith("last_day: 2026-06-03")


@pytest.mark.parametrize(
    ("hour", "rows", "is_early"), [(14, 60, True), (14, 95, False), (22, 60, False)]
)
def test_a_log_that_ends_in_the_middle_of_the_tested_day_is_warned_about(
    hour: int, rows: int, is_early: bool
) -> None:
    found = volume_findings.tested_day(days_of_events([23] * 3 + [hour], [100, 90, 110, rows]))
    assert [f.level for f in found] == ["warning"] * is_early
    if is_early:
        assert "its last event is of 14:00 UTC, that of the day before of 23:00" in found[0].text


@pytest.mark.parametrize(("unknown", "level"), [(100, "warning"), (20, "ok")])
def test_an_item_that_is_most_of_the_log_is_asked_about(unknown: int, level: str) -> None:
    tables = f"""
    create table stg_events as select 'i' || (k % 50) as item_id from range(100) as t(k)
        union all select 'unknown' from range({unknown});
    """
    (found,) = volume_findings.frequent_item(inspected(FEEDBACK["shop"], tables))
    assert found.level == level
    assert found.text.startswith(f"item 'unknown' has {unknown / (unknown + 100):.1%} of the")


@pytest.mark.parametrize(("often", "is_warned"), [(5, True), (50, False)])
def test_ids_of_requests_in_place_of_users_are_asked_about(often: int, is_warned: bool) -> None:
    tables = f"""
    create table stg_events as select 'r' || k as user_id from range(100) as t(k)
        union all select 'r' || k from range({often}) as t(k);
    """
    found = volume_findings.returning_users(inspected(FEEDBACK["shop"], tables))
    assert bool(found) == is_warned
    if found:
        assert found[0].text.startswith("95 of 100 users have one event")
