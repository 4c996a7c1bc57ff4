"""Which nightly run comes next: the oldest day first, one at a time, none after one that failed."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from assets.support import SETTINGS

NIGHTS = ("nightly", "weekly_retokenize")
"""The jobs whose run for partition D is the nightly run for day D."""
NIGHT_TAG = {"onerec/night": "true"}
"""Tag of their runs: `dagster.yaml` lets one run with it at a time start from the queue."""
PUBLISHED = dg.AssetKey("recommendations")
DECIDED = dg.AssetKey("champion")
STARTS_AT = SETTINGS.night_starts_at
"""A day's nightly run is due on the day after, from this time on."""
SUNDAY = 6
NEWEST_RUNS = 200
"""Newest runs of each job that are examined."""
TERMINATE = "terminate it on the UI's page of runs, with force where its process is gone"
"""What to do with a run that does not end."""

_FAILED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@dataclass(frozen=True)
class NightlyRun:
    """The latest nightly run for a day.

    Attributes:
        day: Its partition.
        run_id: Of the run.
        status: Of the run.
        number: Of the run; later runs have larger ones, whatever the clock says.
        ended_at: None while it has not ended.
        backfill: The backfill that it belongs to.
    """

    day: date
    run_id: str
    status: dg.DagsterRunStatus
    number: int
    ended_at: datetime | None = None
    backfill: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it failed or was cancelled."""
        return self.status in _FAILED

    @property
    def has_ended(self) -> bool:
        """Whether it succeeded, failed or was cancelled."""
        return self.failed or self.status is dg.DagsterRunStatus.SUCCESS


def nightly_runs(instance: dg.DagsterInstance) -> dict[date, NightlyRun]:
    """The latest nightly run for each day, of the newest runs.

    A run of the job for a selection of assets without the recommendations, which the UI makes from
    the job's page, is none once it has ended: it neither serves the day nor says that it failed.
    """
    found: dict[date, NightlyRun] = {}
    for job in NIGHTS:
        for record in instance.get_run_records(dg.RunsFilter(job_name=job), limit=NEWEST_RUNS):
            run = record.dagster_run
            partition = run.tags.get("dagster/partition")
            is_part = run.asset_selection is not None and PUBLISHED not in run.asset_selection
            if partition is None or (is_part and run.is_finished):
                continue
            ended = record.end_time
            night = NightlyRun(
                day=date.fromisoformat(partition),
                run_id=run.run_id,
                status=run.status,
                number=record.storage_id,
                ended_at=datetime.fromtimestamp(ended, UTC) if ended else None,
                backfill=run.tags.get("dagster/backfill"),
            )
            known = found.get(night.day)
            if known is None or night.number > known.number:
                found[night.day] = night
    return found


def published_days(instance: dg.DagsterInstance) -> set[date]:
    """Days whose nightly run has published recommendations."""
    return {date.fromisoformat(p) for p in instance.get_materialized_partitions(PUBLISHED)}


def due_at(day: date) -> datetime:
    """When the nightly run for a day is due.

    >>> due_at(date(2026, 6, 14)).isoformat()
    '2026-06-15T03:15:00+00:00'
    """
    return datetime.combine(day + timedelta(days=1), STARTS_AT)


def job_for(day: date) -> str:
    """The job of a day's nightly run: the one that is due on a Sunday refits the tokenizer.

    >>> job_for(date(2026, 6, 13)), job_for(date(2026, 6, 14))  # a Saturday's, a Sunday's
    ('weekly_retokenize', 'nightly')
    """
    return "weekly_retokenize" if due_at(day).weekday() == SUNDAY else "nightly"


def next_night(
    published: Collection[date], runs: Mapping[date, NightlyRun], last_day: date, now: datetime
) -> date | str:
    """The day whose nightly run is to be requested, or why none is.

    It is the oldest day after the newest published one that is due and was not tried yet. A run
    that failed stops the catch-up: days that were due already when it failed wait until it is
    repaired. Days that become due later do not wait: one bad day costs one day.

    Args:
        published: Days with recommendations.
        runs: The latest nightly run for each day.
        last_day: The log's last day so far.
        now: The present time, UTC.
    """
    unfinished = [run for run in runs.values() if not run.has_ended]
    if unfinished:
        first = min(unfinished, key=lambda run: run.day)
        return (
            f"the nightly run for {first.day} (run {first.run_id}) has not ended yet: wait for it, "
            f"or {TERMINATE}"
        )
    done = [day for day in published if day not in runs or not runs[day].failed]
    if not done:
        return "nothing was published yet: start weekly_retokenize for the first day by hand"
    failed: NightlyRun | None = None
    failed_at: datetime | None = None
    waiting = 0
    day = max(done) + timedelta(days=1)
    while day <= last_day and due_at(day) <= now:
        run = runs.get(day)
        if run is not None:
            # a time after now is of a clock that was set back since, and says nothing
            is_known = run.ended_at is not None and run.ended_at <= now
            failed, failed_at = run, run.ended_at if is_known else None
        elif failed_at is None or due_at(day) > failed_at:
            return day
        else:
            waiting += 1
        day += timedelta(days=1)
    if failed is None:
        ahead = f", not over by this machine's clock ({now:%Y-%m-%d %H:%M} UTC): is it right?"
        is_ahead = due_at(max(done)) > now + timedelta(days=1)
        return f"no nightly run is due: {max(done)} is the newest published day" + ahead * is_ahead
    return (
        f"the nightly run for {failed.day} failed (run {failed.run_id}); {waiting} later days wait "
        "until it is repaired, or can be started by hand"
    )


def blocking_night(run: NightlyRun, runs: Mapping[date, NightlyRun]) -> NightlyRun | None:
    """The earlier day's nightly run because of which one must not go on; None where there is none.

    That is one that was requested before and has not ended, or one of the same backfill that
    failed.
    """
    for earlier in sorted(runs.values(), key=lambda other: other.day):
        if earlier.day >= run.day:
            continue
        if not earlier.has_ended and earlier.number <= run.number:
            return earlier
        if earlier.failed and earlier.backfill is not None and earlier.backfill == run.backfill:
            return earlier
    return None


@dg.asset_check(asset=dg.AssetKey("raw_events"), blocking=True)
def earlier_nights_have_ended(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """A nightly run goes on only when those of earlier days have ended, and stops in a backfill
    where one of them failed: each begins with the champion and the IDs of the one before."""
    partition = context.run.tags.get("dagster/partition")
    if context.run.job_name not in NIGHTS or partition is None:
        return dg.AssetCheckResult(passed=True, description="not a nightly run")
    record = context.instance.get_run_record_by_id(context.run.run_id)
    assert record is not None, context.run.run_id
    run = NightlyRun(
        day=date.fromisoformat(partition),
        run_id=context.run.run_id,
        status=context.run.status,
        number=record.storage_id,
        backfill=context.run.tags.get("dagster/backfill"),
    )
    earlier = blocking_night(run, nightly_runs(context.instance))
    if earlier is None:
        return dg.AssetCheckResult(passed=True)
    return dg.AssetCheckResult(
        passed=False,
        description=(
            f"the nightly run for {earlier.day} (run {earlier.run_id}) has status "
            f"{earlier.status.value}: "
            + (
                "repair it, then start the backfill again from that day"
                if earlier.failed
                else f"wait for it, or {TERMINATE}"
            )
        ),
    )


def nights_of_asset_backfill(instance: dg.DagsterInstance, run: dg.DagsterRun) -> int:
    """Nightly runs in the backfill of assets that a run belongs to; 0 where it belongs to none.

    Dagster orders such a backfill by the dependencies of single assets: it would train models of
    later days before the champion of an earlier one is decided, as no asset can depend on one that
    depends on itself.
    """
    # the asset graph exists once all definitions do, the check that calls this among them
    from onerec_dagster.definitions import defs

    found = run.tags.get("dagster/backfill")
    backfill = instance.get_backfill(found) if found else None
    if backfill is None or not backfill.is_asset_backfill:
        return 0
    target = backfill.get_asset_backfill_data(defs.resolve_asset_graph()).target_subset
    if DECIDED not in target.asset_keys:
        return 0  # data alone: its days do not depend on one another
    return len(target.get_partitions_subset(DECIDED))


@dg.asset_check(asset=dg.AssetKey("session_dataset"), blocking=True)
def nights_are_backfilled_by_their_job(
    context: dg.AssetCheckExecutionContext,
) -> dg.AssetCheckResult:
    """A backfill of assets over several nightly runs stops before anything is trained.

    Each begins with the champion and the IDs of the one before, and only the backfill of the
    job keeps that order.
    """
    nights = nights_of_asset_backfill(context.instance, context.run)
    return dg.AssetCheckResult(
        passed=nights < 2,
        metadata={"nightly runs of the backfill": nights},
        description=None
        if nights < 2
        else (
            f"this backfill of assets is of {nights} nightly runs and would train later ones too "
            "early. Start it from the page of the job nightly, or by python -m onerec_dagster "
            "backfill FROM TO: the nightly run of D + 1 then begins when that of D has ended"
        ),
    )
