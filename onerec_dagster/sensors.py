"""What happens when a nightly run goes wrong."""

import ipaddress
import json
import os
import urllib.request
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import dagster as dg

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


SENSORS = [run_failure_alert]
