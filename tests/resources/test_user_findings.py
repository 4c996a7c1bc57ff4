"""What an inspection says of the table of users."""

import pyarrow as pa

from onerec.config.feedback import FEEDBACK
from resources.inspection import user_findings
from resources.inspection.findings import Inspected
from tests.resources.small_inspection import inspected, the


def users_log(logged: int = 60) -> Inspected:
    """Users u0, u1 ...; every one has as many events as its number, on days that follow."""
    tables = f"""
    create schema raw;
    create table raw.raw_events as
        select 'u' || u as user_id, timestamp '2026-06-01' + to_hours(cast(u * e as int))
            as event_time
        from range({logged}) as t(u), range(61) as s(e) where e <= u;
    """
    return inspected(FEEDBACK["video"], tables)


def test_of_users_the_met_rows_values_and_counts_after_the_fact_are_told() -> None:
    numbers = [*range(10, 70), 10]  # the last one is a second row of u10
    attributes = pa.table(
        {
            "user_id": [f"u{n}" for n in numbers],
            "country": [("DE", "FR", None)[n % 3] for n in numbers],
            "level": [str(n // 10) for n in numbers],
            "zip": [str(n) for n in numbers],
            "orders": ["1"] * len(numbers),
        }
    )
    found = user_findings.users(users_log(), attributes)
    met = the(found, "have a row")
    assert met.text.startswith("50 of 60 users of the log have a row in the table, 'u0' has none")
    assert "10 of its 60 users are not in the log, e.g. 'u60'" in met.text
    assert "1 rows are a further one of their user" in met.text
    country = the(found, "country:")
    known = sum(n % 3 < 2 for n in range(10, 60))
    assert country.text.startswith(f"country: {known} of 50 users have a value, 2 different ones")
    assert country.text.endswith(f"the generator embeds 2, of {known} users")
    assert country.rows[0] == {"value": "FR", "users": 17}
    codes = the(found, "zip:")
    assert codes.text.endswith("50 different ones; the generator embeds 0, of 0 users")
    assert codes.level == "warning"
    assert "ranges" in codes.setting
    level = the(found, "level looks like a count")
    assert "of how many events users have" in level.text
    assert level.setting.startswith("users.features.level: leave it out")
    assert "by its name" in the(found, "orders looks like a count").text
    assert not [f for f in found if "country looks" in f.text or "zip looks" in f.text]


def test_an_attribute_that_tells_the_last_visit_is_warned_about() -> None:
    log = users_log()
    last = log.rows("select user_id, max(event_time) as t from raw.raw_events group by user_id")
    # all users have as many events: only when they were last there differs
    log.connection.execute(
        "create or replace table raw.raw_events as "
        "select user_id, max(event_time) as event_time from raw.raw_events group by user_id"
    )
    days = {row["user_id"]: str(row["t"].date())[:8] for row in last}
    attributes = pa.table({"user_id": list(days), "month": list(days.values())})
    (found,) = [f for f in user_findings.users(log, attributes) if "looks like" in f.text]
    assert "of their last event" in found.text


def test_users_of_other_ids_are_a_warning() -> None:
    attributes = pa.table({"user_id": ["U1", "U2"], "plan": ["a", "b"]})
    (found,) = user_findings.users(users_log(), attributes)
    assert found.level == "warning"
    assert "nothing is learned of users" in found.setting
