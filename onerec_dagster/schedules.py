"""When the jobs run. Stopped until someone turns them on in the UI."""

from datetime import timedelta

import dagster as dg

from assets.support import DAILY
from onerec_dagster.jobs import nightly, weekly_retokenize


def _last_day(context: dg.ScheduleEvaluationContext) -> str | None:
    with dg.partition_loading_context(effective_dt=context.scheduled_execution_time):
        return DAILY.get_last_partition_key()


@dg.schedule(
    job=nightly,
    cron_schedule="15 3 * * 1-6",
    name="nightly",
    execution_timezone="UTC",
    description="Yesterday, at 03:15 UTC; on Sundays weekly_retokenize does it.",
)
def nightly_schedule(context: dg.ScheduleEvaluationContext):
    """Request yesterday's partition once."""
    day = _last_day(context)
    if day is None:
        return dg.SkipReason("the log has no complete day yet")
    return dg.RunRequest(run_key=f"nightly-{day}", partition_key=day)


@dg.schedule(
    job=weekly_retokenize,
    cron_schedule="15 3 * * 0",
    name="weekly_retokenize",
    execution_timezone="UTC",
    description="Sundays at 03:15 UTC: yesterday's nightly run with a new tokenizer version.",
)
def weekly_retokenize_schedule(context: dg.ScheduleEvaluationContext):
    """Request yesterday's partition once, with a new codebook."""
    day = _last_day(context)
    if day is None:
        return dg.SkipReason("the log has no complete day yet")
    return dg.RunRequest(run_key=f"retokenize-{day}", partition_key=day)


SCHEDULES = [nightly_schedule, weekly_retokenize_schedule]

NIGHTLY_FRESHNESS = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(hours=36), warn_window=timedelta(hours=26)
)
"""A day is late after 26 hours and missing after 36."""
