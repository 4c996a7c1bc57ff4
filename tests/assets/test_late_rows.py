"""Late and corrected rows: the days they belong to are built again, and show what rests on them."""

from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from assets import raw
from assets.support import PIPELINE
from onerec_dagster.definitions import defs
from tests.assets.test_missed_days import night, read, recorded
from tests.sql import delivered, random_log
from tests.sql.test_session_sql import examples, expected

FIRST, SECOND, THIRD, LAST = random_log.DAYS
LATE_ROW = {
    "event_id": "late",
    "user_id": "a user of their own",
    "item_id": "item 0",
    "event_time": f"{SECOND} 12:00:00",
    "watch_seconds": "31",
    **dict.fromkeys(random_log.FLAGS),
}
"""Of the second day, delivered with a later one."""


@pytest.fixture(scope="module")
def two_nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose first two days were ingested night by night. Read only."""
    home = tmp_path_factory.mktemp("two_nights")
    for name, rows in random_log.deliveries().items():
        delivered.deliver(home / "delivered", name, rows)
    delivered.materialize(home, [raw.raw_prior_history], None)
    night(home, FIRST)
    night(home, SECOND)
    return home


@pytest.fixture
def home(two_nights: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return delivered.copy_of(two_nights, tmp_path)


def sessions_of(home: Path, days: tuple[date, ...]) -> list[dict]:
    return [row for row in examples(home) if row["session_date"] in days]


def test_a_corrected_day_is_landed_and_built_again(home: Path) -> None:
    corrected = [r for r in random_log.deliveries()[f"events-{SECOND}"] if r["user_id"]][::2]
    delivered.deliver(home / "delivered", f"events-{SECOND}", corrected)
    result = night(home, THIRD)
    assert recorded(result, "raw_events") == [SECOND, THIRD]
    assert {SECOND, THIRD} <= set(recorded(result, "sessions"))
    changed = {f"events-{SECOND}": corrected, f"events-{LAST}": []}
    wanted, _ = expected(random_log.CONFIG, changed)
    assert examples(home) == wanted


def test_late_rows_reopen_their_day(home: Path) -> None:
    too_late = {
        **LATE_ROW,
        "event_id": "too late",
        "event_time": f"{SECOND - timedelta(9)} 12:00:00",
    }
    rows = [*random_log.deliveries()[f"events-{THIRD}"], LATE_ROW, LATE_ROW, too_late]
    delivered.deliver(home / "delivered", f"events-{THIRD}", rows)
    result = night(home, THIRD)
    assert recorded(result, "raw_events") == [THIRD]  # its own file did not change
    assert recorded(result, "sessions") == [SECOND, THIRD]
    wanted, refused = expected(random_log.CONFIG, {f"events-{THIRD}": rows, f"events-{LAST}": []})
    assert examples(home) == wanted
    (session,) = [row for row in examples(home) if row["user_id"] == LATE_ROW["user_id"]]
    assert session["session_date"] == SECOND
    assert session["item_ids"] == ["item 0"]
    reasons = dict(
        read(
            home,
            "select reason, count(*) from rejected_events "
            f"where delivered_on = '{THIRD}' and user_id = '{LATE_ROW['user_id']}' group by 1",
        )
    )
    assert reasons == {
        "duplicate of another row: same user, item and event_time": 1,
        "event_time is more than lateness_days before the delivered day": 1,
    }
    assert refused[THIRD, "event_time is more than lateness_days before the delivered day"] == 2


def test_a_row_that_its_own_day_has_too_is_taken_once(home: Path) -> None:
    rows = random_log.deliveries()
    again = [r for r in rows[f"events-{SECOND}"] if not r["event_id"].startswith("bad")][:20]
    delivered.deliver(home / "delivered", f"events-{THIRD}", [*rows[f"events-{THIRD}"], *again])
    night(home, THIRD)
    wanted, _ = expected(random_log.CONFIG, {f"events-{LAST}": []})
    assert examples(home) == wanted


def test_nothing_new_is_nothing_built_again(home: Path) -> None:
    night(home, THIRD)
    before = read(home, "from session_days order by session_date")
    result = night(home, THIRD)
    assert recorded(result, "raw_events") == recorded(result, "sessions") == [THIRD]
    assert read(home, "from session_days order by session_date") == before


def test_a_file_that_was_cleared_away_is_no_correction(home: Path) -> None:
    before = sessions_of(home, (FIRST, SECOND))
    assert before
    (home / "delivered" / f"events-{FIRST}.parquet").unlink()
    night(home, THIRD)
    kept = [row for row in sessions_of(home, (FIRST,))]
    assert kept == [row for row in before if row["session_date"] == FIRST]


def test_a_day_has_one_data_version_whichever_run_built_it(home: Path) -> None:
    def versions(result: dg.ExecuteInProcessResult) -> dict[str | None, str]:
        found = {}
        for event in result.all_events:
            if event.is_step_materialization and event.asset_key == dg.AssetKey("sessions"):
                tags = event.step_materialization_data.materialization.tags or {}
                found[event.partition] = tags["dagster/data_version"]
        return found

    corrected = random_log.deliveries()[f"events-{SECOND}"][::2]
    delivered.deliver(home / "delivered", f"events-{SECOND}", corrected)
    by_the_next = versions(night(home, THIRD))[str(SECOND)]
    assert versions(night(home, SECOND))[str(SECOND)] == by_the_next


def test_a_corrected_day_shows_down_to_the_recommendations() -> None:
    day = "2026-06-20"
    corrected = str(date.fromisoformat(day) - timedelta(days=PIPELINE.window.window_days))
    before_the_window = str(date.fromisoformat(corrected) - timedelta(days=1))
    graph = defs.resolve_asset_graph()
    (nightly,) = [job for job in defs.resolve_all_job_defs() if job.name == "weekly_retokenize"]
    rests_on_the_log = {
        key
        for key in nightly.asset_layer.executable_asset_keys
        if dg.AssetKey("session_dataset") in {key, *graph.get_ancestor_asset_keys(key)}
    }
    assert dg.AssetKey("recommendations") in rests_on_the_log
    with dg.DagsterInstance.ephemeral() as instance:

        def record(key: dg.AssetKey, partition: str, version: str) -> None:
            tags = {"dagster/data_version": version}
            instance.report_runless_asset_event(
                dg.AssetMaterialization(key, partition=partition, tags=tags)
            )

        def stale() -> set[dg.AssetKey]:
            context = LoadingContextForTest(instance)
            resolver = CachingStaleStatusResolver(instance, graph, context)
            return {
                key
                for key in rests_on_the_log
                if resolver.get_status(key, day) is StaleStatus.STALE
                and any(
                    cause.dependency_asset_key == dg.AssetKey("sessions")
                    for cause in resolver.get_stale_causes(key, day)
                )
            }

        sessions = dg.AssetKey("sessions")
        for number in range(PIPELINE.window.window_days + 1):
            record(sessions, str(date.fromisoformat(corrected) + timedelta(days=number)), "a")
        for key in rests_on_the_log:
            record(key, day, "1")
        record(sessions, before_the_window, "other")
        assert stale() == set()
        record(sessions, corrected, "b")
        assert stale() == rests_on_the_log


def test_a_rerun_builds_what_was_landed_after_its_days_and_not_built(home: Path) -> None:
    """Else the day of a late row counts as built from a delivery whose rows were never read."""
    night(home, LAST)
    rows = [*random_log.deliveries()[f"events-{LAST}"], LATE_ROW]
    delivered.deliver(home / "delivered", f"events-{LAST}", rows)
    delivered.materialize(home, [raw.raw_events], LAST)  # its build failed
    night(home, FIRST)
    night(home, LAST)
    wanted, _ = expected(random_log.CONFIG, {f"events-{LAST}": rows})
    assert examples(home) == wanted
