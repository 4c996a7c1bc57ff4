"""When nightly runs start, and what happens when one goes wrong."""

from datetime import UTC, date, datetime

import dagster as dg

from assets.support import DAILY, SETTINGS
from onerec.datasets import EventSource
from onerec_dagster.alerts import ALERTS
from onerec_dagster.degraded import degraded_run
from onerec_dagster.jobs import nightly, serve_degraded, weekly_retokenize
from onerec_dagster.killed_runs import killed_runs
from onerec_dagster.nights import (
    STARTS_AT,
    job_for,
    next_night,
    nightly_runs,
    published_days,
)
from resources.stores import Source


@dg.run_failure_sensor(
    name="serve_after_failure",
    monitored_jobs=[nightly, weekly_retokenize],
    request_job=serve_degraded,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Has the last champion serve a day whose nightly run failed, marked degraded.",
)
def serve_after_failure(context: dg.RunFailureSensorContext) -> dg.RunRequest | dg.SkipReason:
    """Request `serve_degraded` once per failed run, unless the day is served."""
    return makeup_request(context)


@dg.run_status_sensor(
    name="serve_after_cancellation",
    run_status=dg.DagsterRunStatus.CANCELED,
    monitored_jobs=[nightly, weekly_retokenize],
    request_job=serve_degraded,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Has the last champion serve a day whose nightly run was terminated.",
)
def serve_after_cancellation(context: dg.RunStatusSensorContext) -> dg.RunRequest | dg.SkipReason:
    """Request `serve_degraded` once per terminated run, unless the day is served."""
    return makeup_request(context)


def makeup_request(context: dg.RunStatusSensorContext) -> dg.RunRequest | dg.SkipReason:
    """The run that makes up for a nightly run that did not come to its end."""
    failed = context.dagster_run
    makeup = degraded_run(context.instance, failed, SETTINGS.serving_dir)
    if makeup is None:
        return dg.SkipReason("the day is served already, or the run was of no one day")
    day, config = makeup
    return dg.RunRequest(
        run_key=f"serve-{failed.run_id}",
        partition_key=day,
        run_config=config,
        tags={"onerec/made_up_for": failed.run_id},
    )


def night_request(
    instance: dg.DagsterInstance, source: EventSource, now: datetime
) -> dg.RunRequest | dg.SkipReason:
    """The next nightly run, where one is due and its day has arrived."""
    with dg.partition_loading_context(effective_dt=now):
        last = DAILY.get_last_partition_key()
    if last is None:
        return dg.SkipReason("the log has no complete day yet")
    last_day = date.fromisoformat(last)
    day = next_night(published_days(instance), nightly_runs(instance), last_day, now)
    if isinstance(day, str):
        return dg.SkipReason(day)
    if not source.has_arrived(day):
        return dg.SkipReason(f"the log of {day} has not arrived yet")
    return dg.RunRequest(
        run_key=f"night-{day}", job_name=job_for(day), partition_key=day.isoformat()
    )


@dg.sensor(
    name="nights",
    jobs=[nightly, weekly_retokenize],
    minimum_interval_seconds=60,
    description=(
        f"Requests the nightly run of the oldest day that has none, from {STARTS_AT:%H:%M} of the "
        "day after on and when the day's log has arrived; one at a time, on Sundays with a new "
        "codebook."
    ),
)
def nights(context: dg.SensorEvaluationContext, source: Source):
    """Request the next nightly run."""
    return night_request(context.instance, source.open(), datetime.now(UTC))


SENSORS = [nights, *ALERTS, serve_after_failure, serve_after_cancellation, killed_runs]
