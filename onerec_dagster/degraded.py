"""Recommendations for a day whose nightly run failed."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from onerec.serving.current import read_served
from onerec_dagster.run_findings import RunFindings, run_findings, why_it_ended

NIGHTLY_JOBS = ("nightly", "weekly_retokenize")
INGESTED = {"raw", "sessions"}
"""Groups of assets without which the sessions of a day are not valid."""


def degraded_run(
    instance: dg.DagsterInstance, run: dg.DagsterRun, serving: Path
) -> tuple[str, dict[str, Any]] | None:
    """Day and configuration of the `serve_degraded` run that makes up for a failed nightly run.

    Args:
        instance: Where the run is recorded.
        run: The nightly run.
        serving: The directory that consumers read.

    Returns:
        None where there is nothing to make up for: it is no nightly run, or consumers read
        recommendations of its day or of a later one already.
    """
    day = run.tags.get("dagster/partition")
    if run.job_name not in NIGHTLY_JOBS or day is None or _is_served(serving, day):
        return None
    findings = run_findings(instance, run.run_id)
    until = day  # where the day has no sessions, the newest before it serve
    if not _sessions_are_valid(findings):
        until = (date.fromisoformat(day) - timedelta(days=1)).isoformat()
    fields = {"reason": f"{run.job_name}: {why_it_ended(run, findings)}", "sessions_until": until}
    return day, {"ops": {"recommendations": {"config": {"degraded": fields}}}}


def _is_served(serving: Path, day: str) -> bool:
    """Whether consumers read recommendations of a day or of a later one: stored is not served."""
    try:
        served = read_served(serving)
    except (ValueError, OSError):
        return False  # the run publishes it again
    return served is not None and served.day >= day


def _sessions_are_valid(findings: RunFindings) -> bool:
    """No check on the log or on its sessions failed."""
    # the asset graph exists once all definitions do, the sensor that calls this among them
    from onerec_dagster.definitions import defs

    graph = defs.resolve_asset_graph()
    failed = {
        dg.AssetKey.from_user_string(c.asset) for c in findings.checks if c.severity == "ERROR"
    }
    return not any(graph.get(key).group_name in INGESTED for key in failed if graph.has(key))
