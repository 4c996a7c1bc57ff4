"""Alerts: failed runs, failed checks of runs that succeeded, refused challengers, late runs, dead
sensors.

Each is logged, and posted to `ONEREC_ALERT_WEBHOOK` where that is set. A message names the check
and its finding, and links to the run where `ONEREC_UI_URL` says where the UI is.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from assets.support import DAILY, SETTINGS
from onerec.artifacts import ArtifactStore, read_json
from onerec.serving.current import read_served
from onerec_dagster.jobs import nightly, weekly_retokenize
from onerec_dagster.run_findings import RunFindings, run_findings, why_it_ended
from onerec_dagster.sensor_health import FAILED_TICKS, dead_sensors
from onerec_dagster.webhook import WEBHOOK, post

UI_URL = "ONEREC_UI_URL"
EMAIL_FROM, EMAIL_TO = "ONEREC_ALERT_EMAIL_FROM", "ONEREC_ALERT_EMAIL_TO"
SMTP_HOST, SMTP_PASSWORD = "ONEREC_SMTP_HOST", "ONEREC_SMTP_PASSWORD"
NIGHTS_SENSOR = "nights"
LATE_HOURS = 8
"""After the end of a day: its recommendations should be published by then."""
MOST_CHECKS = 5


def send(log: logging.Logger | dg.DagsterLogManager, text: str) -> None:
    """Log an alert, and post it where a webhook is set."""
    log.error(text)
    url = os.environ.get(WEBHOOK)
    if url:
        post(url, text)


def send_all(log: logging.Logger | dg.DagsterLogManager, texts: Iterable[str]) -> None:
    """Send alerts one by one; one that cannot be sent does not stop the next.

    Raises:
        ExceptionGroup: Some could not be sent.
    """
    failed: list[Exception] = []
    for text in texts:
        try:
            send(log, text)
        except (OSError, ValueError) as error:
            failed.append(error)
    if failed:
        raise ExceptionGroup(f"{len(failed)} alerts could not be sent", failed)


def link_to(run_id: str) -> str:
    """Where to look: a URL of the run where `ONEREC_UI_URL` is set, else its id."""
    base = os.environ.get(UI_URL)
    return f"{base.rstrip('/')}/runs/{run_id}" if base else f"run {run_id}"


def link_to_sensor(name: str) -> str:
    """The page of a sensor where `ONEREC_UI_URL` is set, else where to look."""
    base = os.environ.get(UI_URL)
    return f"{base.rstrip('/')}/automation" if base else f"sensor {name} under Automation"


def failure_text(run: dg.DagsterRun, findings: RunFindings) -> str:
    """A failed run: what failed first, and where to look."""
    day = run.tags.get("dagster/partition")
    of_day = f" for {day}" if day else ""
    return f"{run.job_name}{of_day} failed: {why_it_ended(run, findings)} ({link_to(run.run_id)})"


def night_texts(run: dg.DagsterRun, findings: RunFindings, store: ArtifactStore) -> Iterator[str]:
    """What a person should know of a nightly run that succeeded."""
    day, link = run.tags.get("dagster/partition", ""), link_to(run.run_id)
    failed = [check for check in findings.checks if check.severity == "ERROR"]
    if failed:
        shown = "; ".join(
            f"{c.name} of {c.asset}" + (f" ({c.finding})" if c.finding else "")
            for c in failed[:MOST_CHECKS]
        )
        found = f"succeeded with {len(failed)} failed checks: {shown}"
        yield f"{run.job_name} for {day} {found} ({link})"
    if day in store.partitions("champion"):
        decision = read_json(store.latest("champion", day).path / "champion.json")
        if not decision["promoted"]:
            yield f"{run.job_name} for {day}: {_unpromoted(decision)} ({link})"


def _unpromoted(decision: Mapping[str, Any]) -> str:
    """Why the challenger does not serve, and what does."""
    from onerec.promotion.champion import what_serves  # loads torch

    if "by_hand" in decision:
        by_rule = f"the promotion rule said {decision['rule_said']}"
        return f"{what_serves(decision)} serves by hand ({decision['by_hand']}); {by_rule}"
    why = "; ".join(decision["reasons"])
    return f"the challenger is refused, {what_serves(decision)} serves: {why}"


def late_day(now: datetime, served: date | None, expected: str | None) -> str | None:
    """The day whose recommendations are late; None where nothing is."""
    if expected is None:
        return None
    due = datetime.fromisoformat(expected).replace(tzinfo=now.tzinfo) + timedelta(days=1)
    late = now > due + timedelta(hours=LATE_HOURS) and (
        served is None or served < date.fromisoformat(expected)
    )
    return expected if late else None


@dg.run_failure_sensor(
    name="run_failure_alert",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"Logs a failed run with its check or error; with {WEBHOOK} set, posts it too.",
)
def run_failure_alert(context: dg.RunFailureSensorContext) -> None:
    """Alert of a failed run."""
    run = context.dagster_run
    send(context.log, failure_text(run, run_findings(context.instance, run.run_id)))


@dg.run_status_sensor(
    name="run_cancellation_alert",
    run_status=dg.DagsterRunStatus.CANCELED,
    monitored_jobs=[nightly, weekly_retokenize],
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Alerts of a nightly run that was terminated.",
)
def run_cancellation_alert(context: dg.RunStatusSensorContext) -> None:
    """Alert of a terminated nightly run."""
    run = context.dagster_run
    send(context.log, failure_text(run, run_findings(context.instance, run.run_id)))


@dg.run_status_sensor(
    name="nightly_run_alert",
    run_status=dg.DagsterRunStatus.SUCCESS,
    monitored_jobs=[nightly, weekly_retokenize],
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Alerts of failed checks inside nightly runs that succeeded, and of refused "
    "challengers.",
)
def nightly_run_alert(context: dg.RunStatusSensorContext) -> None:
    """Alert of what a successful nightly run found."""
    run = context.dagster_run
    findings = run_findings(context.instance, run.run_id)
    send_all(context.log, night_texts(run, findings, SETTINGS.artifact_store()))


@dg.sensor(
    name="late_night_alert",
    minimum_interval_seconds=600,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Alerts once a day while the sensor `nights` runs and yesterday's recommendations "
    f"are not there {LATE_HOURS} hours after its end.",
)
def late_night_alert(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Alert of a late nightly run; the cursor is the day of the last alert."""
    states = context.instance.all_instigator_state()
    running = {s.name for s in states if s.is_running}
    if NIGHTS_SENSOR not in running:
        return dg.SkipReason(f"the sensor {NIGHTS_SENSOR} does not run: nothing is due")
    served = read_served(SETTINGS.serving_dir)
    now = datetime.now(ZoneInfo(DAILY.timezone))
    newest = None if served is None or served.degraded else date.fromisoformat(served.day)
    late = late_day(now, newest, DAILY.get_last_partition_key())
    if late is None or late == context.cursor:
        return dg.SkipReason("nothing is late, or it was alerted of")
    context.update_cursor(late)
    what = "are degraded" if served is not None and served.day == late else "are not there"
    send(context.log, f"late: recommendations of {late} {what} {LATE_HOURS} hours after its end")
    return dg.SkipReason(f"alerted of {late}")


@dg.sensor(
    name="dead_sensor_alert",
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=f"Alerts once of a sensor that failed {FAILED_TICKS} times in a row or is not "
    "evaluated any more. A daemon that is dead evaluates none: `doctor` finds that.",
)
def dead_sensor_alert(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Alert of dead sensors; the cursor is the names of those that were alerted of."""
    dead = dead_sensors(context.instance, datetime.now(UTC))
    known = set(json.loads(context.cursor or "[]"))
    for name in sorted(dead.keys() - known):
        send(context.log, f"the sensor {name} is dead: {dead[name]} ({link_to_sensor(name)})")
    context.update_cursor(json.dumps(sorted(dead)))
    return dg.SkipReason(f"dead: {', '.join(sorted(dead))}" if dead else "all sensors work")


def email_alerts(environ: Mapping[str, str] = os.environ) -> list[dg.SensorDefinition]:
    """Dagster's own e-mail of failed runs with our text, where an address is set."""
    to = [address.strip() for address in environ.get(EMAIL_TO, "").split(",") if address.strip()]
    if not to:
        return []

    def body(context: dg.RunFailureSensorContext) -> str:
        run = context.dagster_run
        return failure_text(run, run_findings(context.instance, run.run_id))

    return [
        dg.make_email_on_run_failure_sensor(
            email_from=environ.get(EMAIL_FROM, to[0]),
            email_password=environ.get(SMTP_PASSWORD, ""),
            email_to=to,
            email_body_fn=body,
            smtp_host=environ.get(SMTP_HOST, "localhost"),
            name="run_failure_email",
            monitor_all_code_locations=False,
            default_status=dg.DefaultSensorStatus.RUNNING,
        )
    ]


ALERTS = [
    run_failure_alert,
    run_cancellation_alert,
    nightly_run_alert,
    late_night_alert,
    dead_sensor_alert,
    *email_alerts(),
]
