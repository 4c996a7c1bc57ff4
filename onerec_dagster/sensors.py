"""What happens when a night goes wrong."""

import json
import os
import urllib.request

import dagster as dg

WEBHOOK = "ONEREC_ALERT_WEBHOOK"


def failure_message(job: str, run_id: str, partition: str | None, error: str | None) -> str:
    """One line a person on call can act on."""
    day = f" for {partition}" if partition else ""
    return f"{job}{day} failed (run {run_id}): {(error or 'see the run').strip().splitlines()[0]}"


def post(url: str, text: str) -> None:
    """POST `{"text": ...}`, the form chat webhooks take."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{WEBHOOK} must be an http:// or https:// URL; its value is not shown")
    request = urllib.request.Request(
        url, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10):
        pass


@dg.run_failure_sensor(
    name="run_failure_alert",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"Logs a failed run; with {WEBHOOK} set, posts it to that webhook too.",
)
def run_failure_alert(context: dg.RunFailureSensorContext) -> None:
    """Tell someone."""
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


SENSORS = [run_failure_alert]
