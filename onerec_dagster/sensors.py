"""When nightly runs start, and what happens when one goes wrong."""

import ipaddress
import json
import os
import urllib.request
from datetime import UTC, date, datetime
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import dagster as dg

from assets.support import DAILY
from onerec.datasets import EventSource
from onerec_dagster.jobs import nightly, weekly_retokenize
from onerec_dagster.nights import job_for, next_night, nightly_runs, published_days
from resources.stores import Source

WEBHOOK = "ONEREC_ALERT_WEBHOOK"


def failure_message(job: str, run_id: str, partition: str | None, error: str | None) -> str:
    """One line a person on call can act on."""
    day = f" for {partition}" if partition else ""
    return f"{job}{day} failed (run {run_id}): {(error or 'see the run').strip().splitlines()[0]}"


def post(url: str, text: str) -> None:
    """POST `{"text": ...}`, the form chat webhooks take.

    Raises:
        ValueError: The URL, which is a secret and not shown, would carry the alert in the clear, or
            the server redirects it elsewhere.
        OSError: The server cannot be reached or answers with an error.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_local(parts.hostname)):
        raise ValueError(
            f"{WEBHOOK} must be an https:// URL (http:// only to localhost); its value is not shown"
        )
    request = urllib.request.Request(
        url, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=10):
            pass
    except HTTPError as error:
        error.close()
        if not 300 <= error.code < 400:
            raise
        host = urlsplit(error.headers.get("Location", "")).hostname
        raise ValueError(
            f"{WEBHOOK} answers with a redirect ({error.code}) to the host {host!r}, which is not "
            f"followed: set {WEBHOOK} to the final URL"
        ) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An alert is for the configured host alone, and a redirected POST would lose its text."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None  # the answer is then an HTTPError


def _is_local(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


@dg.run_failure_sensor(
    name="run_failure_alert",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"Logs a failed run; with {WEBHOOK} set, posts it to that webhook too.",
)
def run_failure_alert(context: dg.RunFailureSensorContext) -> None:
    """Log the failure, and post it where a webhook is set."""
    text = failure_message(
        context.dagster_run.job_name,
        context.dagster_run.run_id,
        context.dagster_run.tags.get("dagster/partition"),
        context.failure_event.message,
    )
    context.log.error(text)
    url = os.environ.get(WEBHOOK)
    if url:
        post(url, text)


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
        "Requests the nightly run of the oldest day that has none, from 03:15 UTC of the day after "
        "on and when the day's log has arrived; one at a time, on Sundays with a new codebook."
    ),
)
def nights(context: dg.SensorEvaluationContext, source: Source):
    """Request the next nightly run."""
    return night_request(context.instance, source.open(), datetime.now(UTC))


SENSORS = [nights, run_failure_alert]
