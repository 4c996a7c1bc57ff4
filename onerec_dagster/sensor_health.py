"""Which sensors are dead, and whether the daemon that evaluates them is."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg

from onerec_dagster.run_findings import one_line

FAILED_TICKS = 3
"""A sensor that failed this many times in a row is dead."""
SILENT_AFTER = timedelta(minutes=30)
"""A sensor that was not evaluated for this long is dead, too; intervals are at most 10 minutes."""
SENSOR = "SENSOR"
"""Dagster's name for sensors and for the daemon that evaluates them."""


def dead_sensors(instance: dg.DagsterInstance, now: datetime) -> dict[str, str]:
    """Running sensors that fail again and again, or are not evaluated, and why; by name."""
    dead: dict[str, str] = {}
    for state in instance.all_instigator_state():
        if not state.is_running or state.instigator_type.value != SENSOR:
            continue
        ticks = instance.get_ticks(
            state.instigator_origin_id, state.selector_id, limit=FAILED_TICKS
        )
        failed = [tick for tick in ticks if tick.is_failure]
        if len(failed) == FAILED_TICKS:
            error = failed[0].error
            reason = one_line((error.cause or error).message) if error else "without an error"
            dead[state.name] = f"failed {FAILED_TICKS} times in a row: {reason}"
        elif ticks and now.timestamp() - ticks[0].timestamp > SILENT_AFTER.total_seconds():
            dead[state.name] = f"not evaluated since {_shown(ticks[0].timestamp)}"
    return dead


def silent_daemons(instance: dg.DagsterInstance, now: datetime) -> Iterator[str]:
    """Daemons that once worked on this instance and show no sign of life any more."""
    for name, heartbeat in sorted(instance.get_daemon_heartbeats().items()):
        if now.timestamp() - heartbeat.timestamp > SILENT_AFTER.total_seconds():
            yield f"{name} not since {_shown(heartbeat.timestamp)}"


def _shown(timestamp: float) -> str:
    return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d %H:%M} UTC"
