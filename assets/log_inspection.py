"""Inspection of the log before anything is trained; the same as `make inspect`."""

from typing import TYPE_CHECKING

import dagster as dg

from assets.code_version import code_version
from assets.sessions import session_variables
from assets.support import PIPELINE, SETTINGS, table_of
from onerec.datasets.file_problems import shown
from resources.dbt import SessionDbt
from resources.stores import Source

if TYPE_CHECKING:
    from resources.inspection.findings import Finding
    from resources.inspection.log_inspection import SessionBuild


@dg.asset(
    group_name="raw",
    kinds={"duckdb"},
    code_version=code_version(__name__, "log_inspection"),
)
def log_inspection(source: Source, dbt: SessionDbt) -> dg.MaterializeResult:
    """What is read and rejected, and what a nightly run for the last day would learn from.

    Reads the delivered files into a warehouse of its own, so that it needs no other asset and
    changes none.
    """
    from resources.inspection.findings_text import summary
    from resources.inspection.log_inspection import days_of, inspect_log

    try:
        opened = source.open()
        days = days_of(opened)
        findings = inspect_log(opened, PIPELINE, session_build(dbt), days)
    except (OSError, ValueError) as error:
        raise dg.Failure(description=f"the log cannot be read: {error}") from error
    counts = {level: sum(f.level == level for f in findings) for level in ("error", "warning")}
    return dg.MaterializeResult(
        metadata={
            "summary": summary(findings),
            **_tables(findings),
            "days": f"{days[0]} to {days[1]}",
            "stop a nightly run": counts["error"],
            "warnings": counts["warning"],
        }
    )


def _tables(findings: "list[Finding]") -> dict[str, dg.MetadataValue]:
    """All findings, and the rows behind some of them."""
    rows = [
        {"number": n, "level": f.level, "topic": f.topic, "found": f.text, "setting": f.setting}
        for n, f in enumerate(findings, start=1)
    ]
    examples = {
        f"rows of finding {n}": table_of([{k: shown(v) for k, v in row.items()} for row in f.rows])
        for n, f in enumerate(findings, start=1)
        if f.rows
    }
    return {"findings": table_of(rows), **examples}


def session_build(dbt: SessionDbt) -> "SessionBuild":
    """How the sessions of a log are cut for its inspection."""
    from resources.inspection.log_inspection import SessionBuild

    variables = session_variables(PIPELINE.sessions, SETTINGS.feedback, SETTINGS.time_zone)
    return SessionBuild(dbt=dbt, variables=variables, directory=SETTINGS.root)
