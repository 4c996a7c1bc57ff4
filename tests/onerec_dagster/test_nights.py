"""Nightly runs: the oldest due day first, one at a time, and none after one that failed."""

import runpy
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster import DagsterRunStatus as Status
from dagster._core.execution.backfill import PartitionBackfill

from onerec_dagster import nights, sensors
from onerec_dagster.definitions import defs
from onerec_dagster.jobs import INGEST, NIGHT
from onerec_dagster.nights import (
    NIGHT_TAG,
    PUBLISHED,
    TERMINATE,
    NightlyRun,
    due_at,
    earlier_nights_have_ended,
    next_night,
    nightly_runs,
    nights_are_backfilled_by_their_job,
    nights_of_asset_backfill,
)
from onerec_dagster.sensors import night_request
from tests.sql.delivered import FileSource

MONDAY = date(2026, 6, 15)
DAYS = [MONDAY + timedelta(days=n) for n in range(7)]
LAST = DAYS[-1]
NOW = due_at(LAST) + timedelta(hours=1)


def run(day: date, status: Status, ended: datetime | None = None, **more: Any) -> NightlyRun:
    ended = ended if status in (Status.SUCCESS, Status.FAILURE, Status.CANCELED) else None
    return NightlyRun(day, f"run-{day}", status, day.toordinal(), ended, **more)


def runs(*found: NightlyRun) -> dict[date, NightlyRun]:
    return {night.day: night for night in found}


def test_the_oldest_missing_day_comes_first_and_one_after_the_other():
    published, asked = {DAYS[0]}, []
    while isinstance(day := next_night(published, {}, LAST, NOW), date):
        asked.append(day)
        unfinished = runs(run(day, Status.QUEUED))
        waits = str(next_night(published, unfinished, LAST, NOW))
        assert f"(run run-{day}) has not ended" in waits
        assert TERMINATE in waits
        published.add(day)
    assert asked == DAYS[1:]
    assert f"{LAST} is the newest" in str(day)


def test_a_day_is_due_from_a_quarter_past_three_on_the_day_after():
    before = due_at(DAYS[1]) - timedelta(seconds=1)
    assert isinstance(next_night({DAYS[0]}, {}, LAST, before), str)
    assert next_night({DAYS[0]}, {}, LAST, due_at(DAYS[1])) == DAYS[1]
    assert isinstance(next_night({DAYS[0]}, {}, DAYS[0], NOW), str)  # the log ends there


def test_the_first_night_is_started_by_hand():
    assert "weekly_retokenize" in str(next_night(set(), {}, LAST, NOW))


def test_a_failed_night_stops_the_catch_up_until_it_is_repaired():
    failed = run(DAYS[1], Status.FAILURE, ended=NOW)
    reason = next_night({DAYS[0]}, runs(failed), LAST, NOW)
    assert f"{DAYS[1]} failed (run run-{DAYS[1]}); 5 later days wait" in str(reason)
    repaired = run(DAYS[1], Status.SUCCESS, ended=NOW)
    assert next_night({DAYS[0], DAYS[1]}, runs(repaired), LAST, NOW) == DAYS[2]


def test_a_run_that_failed_later_than_now_by_a_clock_set_back_since_stops_no_later_day():
    ahead = run(DAYS[1], Status.FAILURE, ended=NOW + timedelta(days=300))
    assert next_night({DAYS[0]}, runs(ahead), LAST, NOW) == DAYS[2]


def test_a_clock_that_was_set_back_behind_what_is_published_is_named():
    back = NOW - timedelta(days=90)
    reason = str(next_night(set(DAYS), {}, LAST, back))
    assert (
        f"{LAST} is the newest published day, not over by this machine's clock (2026-03" in reason
    )
    assert "clock" not in str(next_night(set(DAYS), {}, LAST, NOW))


def test_of_two_runs_for_a_day_the_one_created_last_counts_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        for status, clock in ((Status.FAILURE, NOW), (Status.SUCCESS, NOW - timedelta(days=30))):
            monkeypatch.setattr(
                "dagster._core.storage.runs.sql_run_storage.get_current_datetime",
                lambda clock=clock: clock,
            )
            tags = {"dagster/partition": str(MONDAY), **NIGHT_TAG}
            instance.add_run(dg.DagsterRun(job_name="nightly", status=status, tags=tags))
        assert nightly_runs(instance)[MONDAY].status is Status.SUCCESS


def test_a_failed_night_does_not_stop_the_day_that_becomes_due_afterwards():
    failed = run(DAYS[1], Status.FAILURE, ended=due_at(DAYS[1]) + timedelta(minutes=20))
    assert next_night({DAYS[0]}, runs(failed), LAST, NOW) == DAYS[2]
    # two bad days in a row cost two, and what was published by a failed run is not a good night
    second = run(DAYS[2], Status.FAILURE, ended=due_at(DAYS[2]) + timedelta(minutes=20))
    both = runs(failed, second)
    assert next_night({DAYS[0], DAYS[2]}, both, LAST, NOW) == DAYS[3]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def publish(instance: dg.DagsterInstance, day: date) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(PUBLISHED, partition=str(day)))


def create(
    instance: dg.DagsterInstance, job: str, day: date, status: Status, **tags: str
) -> dg.DagsterRun:
    return instance.create_run_for_job(
        defs.resolve_job_def(job),
        status=status,
        tags={"dagster/partition": str(day), **tags},
    )


def test_the_request_waits_for_the_log(instance: dg.DagsterInstance, tmp_path: Path):
    publish(instance, DAYS[0])
    source = FileSource(tmp_path)
    skipped = night_request(instance, source, NOW)
    assert isinstance(skipped, dg.SkipReason)
    assert f"{DAYS[1]} has not arrived" in (skipped.skip_message or "")
    (tmp_path / f"events-{DAYS[1]}.parquet").touch()
    request = night_request(instance, source, NOW)
    assert isinstance(request, dg.RunRequest)
    assert (request.job_name, request.partition_key) == ("nightly", str(DAYS[1]))
    create(instance, "nightly", DAYS[1], Status.STARTED)
    assert isinstance(night_request(instance, source, NOW), dg.SkipReason)


def test_a_run_of_some_assets_is_no_nightly_run_once_it_has_ended(
    instance: dg.DagsterInstance, tmp_path: Path
):
    """What the UI starts from the page of the job, for assets that were selected there."""
    publish(instance, DAYS[0])
    (tmp_path / f"events-{DAYS[1]}.parquet").touch()
    selected = frozenset({dg.AssetKey("session_dataset")})
    job, tags = defs.resolve_job_def("nightly"), {"dagster/partition": str(DAYS[1])}
    for status in (Status.STARTED, Status.SUCCESS):
        part = instance.create_run_for_job(job, status=status, tags=tags, asset_selection=selected)
        request = night_request(instance, FileSource(tmp_path), NOW)
        if status is Status.STARTED:
            assert isinstance(request, dg.SkipReason)
            instance.report_run_failed(part)
            request = night_request(instance, FileSource(tmp_path), NOW)
        assert isinstance(request, dg.RunRequest), status
        assert request.partition_key == str(DAYS[1])
    whole = selected | {PUBLISHED}
    failed = instance.create_run_for_job(job, tags=tags, asset_selection=whole)
    instance.report_run_failed(failed)
    assert nightly_runs(instance)[DAYS[1]].run_id == failed.run_id


def test_on_sundays_the_codebook_is_refitted(instance: dg.DagsterInstance, tmp_path: Path):
    publish(instance, DAYS[4])
    source = FileSource(tmp_path)
    (tmp_path / f"events-{DAYS[5]}.parquet").touch()
    request = night_request(instance, source, NOW)
    assert isinstance(request, dg.RunRequest)
    assert (request.job_name, request.partition_key) == ("weekly_retokenize", str(DAYS[5]))


def gate(instance: dg.DagsterInstance, night: dg.DagsterRun) -> dg.AssetCheckResult:
    class Context:
        run = night

    Context.instance = instance  # type: ignore[attr-defined]
    node: Any = earlier_nights_have_ended.node_def
    return node.compute_fn.decorated_fn(Context)


def test_a_night_waits_for_the_one_before(instance: dg.DagsterInstance):
    first = create(instance, "weekly_retokenize", DAYS[0], Status.STARTED)
    second = create(instance, "nightly", DAYS[1], Status.STARTED)
    assert gate(instance, first).passed
    result = gate(instance, second)
    assert not result.passed
    assert first.run_id in (result.description or "")
    instance.report_run_failed(first)
    # a single day may go on after a failed one: the bad day costs one day
    assert gate(instance, second).passed


def test_a_backfill_stops_where_a_night_fails(instance: dg.DagsterInstance):
    tag = {"dagster/backfill": "b"}
    first = create(instance, "nightly", DAYS[0], Status.STARTED, **tag)
    instance.report_run_failed(first)
    second = create(instance, "nightly", DAYS[1], Status.STARTED, **tag)
    result = gate(instance, second)
    assert not result.passed
    assert "start the backfill again" in (result.description or "")
    other = create(instance, "nightly", DAYS[1], Status.STARTED)
    assert gate(instance, other).passed
    assert nightly_runs(instance)[DAYS[0]].failed


def test_the_gate_is_part_of_every_night_and_blocks_it():
    node = earlier_nights_have_ended.node_def.name
    for job in ("nightly", "weekly_retokenize"):
        definition = defs.resolve_job_def(job)
        assert node in {n.name for n in definition.all_node_defs}
        assert NIGHT_TAG.items() <= definition.tags.items()
    assert next(iter(earlier_nights_have_ended.check_specs)).blocking
    assert node not in {n.name for n in defs.resolve_job_def("ingest").all_node_defs}


def test_the_queue_starts_one_night_at_a_time():
    settings = yaml.safe_load((Path(__file__).parents[2] / "dagster.yaml").read_text())
    limits = settings["concurrency"]["runs"]["tag_concurrency_limits"]
    assert limits == [{"key": next(iter(NIGHT_TAG)), "limit": 1}]


def backfill_of_assets(
    instance: dg.DagsterInstance, days: list[date], groups: dg.AssetSelection
) -> dg.DagsterRun:
    """The first run of a backfill that was started from the graph of some assets."""
    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id="assets",
        asset_graph=defs.resolve_asset_graph(),
        partition_names=[str(day) for day in days],
        asset_selection=sorted(groups.resolve(defs.resolve_asset_graph())),
        backfill_timestamp=NOW.timestamp(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)
    return create(instance, "nightly", days[0], Status.STARTED, **{"dagster/backfill": "assets"})


@pytest.mark.filterwarnings("ignore:.*AssetSelection.sources")  # Dagster's own call
@pytest.mark.parametrize(
    ("assets", "is_of_nights"), [(NIGHT, True), (INGEST, False)], ids=["all", "data alone"]
)
def test_several_nights_are_no_backfill_of_assets(assets: dg.AssetSelection, is_of_nights: bool):
    with dg.instance_for_test() as instance:
        run = backfill_of_assets(instance, DAYS[:3], assets)
        # Dagster adds the later days that rest on these
        assert (nights_of_asset_backfill(instance, run) >= 3) == is_of_nights
        alone = create(instance, "nightly", DAYS[0], run.status)
        assert nights_of_asset_backfill(instance, alone) == 0


def test_a_backfill_of_assets_is_stopped_in_every_night():
    for job in ("nightly", "weekly_retokenize"):
        nodes = {n.name for n in defs.resolve_job_def(job).all_node_defs}
        assert nights_are_backfilled_by_their_job.node_def.name in nodes
    assert next(iter(nights_are_backfilled_by_their_job.check_specs)).blocking


def test_the_sensor_says_from_when_on_it_requests_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nights, "STARTS_AT", time(5, 40))  # ONEREC_NIGHT_STARTS_AT
    sensor = runpy.run_path(sensors.__file__)["nights"]
    assert "from 05:40 of the day after on" in sensor.description
