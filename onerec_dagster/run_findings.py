"""What went wrong in a run: failed steps, and failed checks with finding, limit and sample rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import DagsterEventType

SAMPLE_ROWS = 5
LONGEST_TEXT = 1000


@dataclass(frozen=True, kw_only=True)
class FailedCheck:
    """A check that did not pass.

    Attributes:
        name: The check.
        asset: What it checks.
        severity: `ERROR` or `WARN`.
        blocking: It stopped the run.
        finding: What was found, the limit and the setting, in words; empty where it says nothing.
        metadata: Its numbers and sample rows.
    """

    name: str
    asset: str
    severity: str
    blocking: bool
    finding: str
    metadata: Mapping[str, dg.MetadataValue]

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield f"check {self.name} of {self.asset} failed"
        if self.finding:
            yield f"  {self.finding}"
        for name, value in self.metadata.items():
            yield from _metadata_lines(name, value)


@dataclass(frozen=True, kw_only=True)
class FailedStep:
    """A step that raised.

    Attributes:
        step: Its key.
        error: The message of what was raised.
    """

    step: str
    error: str

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield f"{self.step}: {self.error}"


@dataclass(frozen=True, kw_only=True)
class RunFindings:
    """What went wrong in a run.

    Attributes:
        steps: Steps that raised, without those that only stopped for a check.
        checks: Checks that did not pass, warnings among them.
    """

    steps: tuple[FailedStep, ...]
    checks: tuple[FailedCheck, ...]

    @property
    def errors(self) -> tuple[FailedCheck | FailedStep, ...]:
        """Without warnings, blocking checks first."""
        errors = [check for check in self.checks if check.severity == "ERROR"]
        errors.sort(key=lambda check: not check.blocking)
        return (*errors, *self.steps)

    def lines(self) -> list[str]:
        """All errors, for a terminal."""
        return [f"  {line}" for error in self.errors for line in error.lines()]

    def first(self) -> str:
        """The first error in one line."""
        if not self.errors:
            return "the process of the run ended without a report"
        error = self.errors[0]
        if isinstance(error, FailedStep):
            return f"{error.step}: {one_line(error.error)}"
        finding = f": {one_line(error.finding)}" if error.finding else ""
        return f"check {error.name} of {error.asset} failed{finding}"


def why_it_ended(run: dg.DagsterRun, findings: RunFindings) -> str:
    """Why a run did not come to its end, in one line.

    The step that a terminated run was in reports an error of its own: it is not the reason.
    """
    if run.status is dg.DagsterRunStatus.CANCELED:
        return "it was terminated"
    return findings.first()


def run_findings(instance: dg.DagsterInstance, run_id: str) -> RunFindings:
    """Read a run's events."""
    wanted = {DagsterEventType.STEP_FAILURE, DagsterEventType.ASSET_CHECK_EVALUATION}
    events = [entry.dagster_event for entry in instance.all_logs(run_id, of_type=wanted)]
    checks = tuple(_failed_checks(events))
    steps = [
        FailedStep(step=event.step_key or "", error=_message(event.step_failure_data.error))
        for event in events
        if event is not None and event.is_step_failure
    ]
    stopped = any(check.blocking for check in checks)
    raised = tuple(s for s in steps if not (stopped and "blocking asset check" in s.error))
    return RunFindings(steps=raised, checks=checks)


def _failed_checks(events: list[dg.DagsterEvent | None]) -> Iterator[FailedCheck]:
    for event in events:
        if event is None or event.event_type != DagsterEventType.ASSET_CHECK_EVALUATION:
            continue
        found = event.asset_check_evaluation_data
        if not found.passed:
            yield FailedCheck(
                name=found.check_name,
                asset=found.asset_key.to_user_string(),
                severity=found.severity.value,
                blocking=bool(found.blocking),
                finding=(found.description or "").strip(),
                metadata=found.metadata,
            )


def _message(error: Any) -> str:
    """Dagster wraps what a step raised: the cause is what a reader needs."""
    if error is None:
        return "see the run's log"
    message = (error.cause or error).message.split("For further information visit")[0].strip()
    return message.removeprefix("dagster._core.definitions.events.Failure: ")[:LONGEST_TEXT]


def _metadata_lines(name: str, value: dg.MetadataValue) -> Iterator[str]:
    if isinstance(value, dg.TableMetadataValue):
        yield f"    {name}:"
        for record in value.records[:SAMPLE_ROWS]:
            yield "      " + ", ".join(f"{k}={v}" for k, v in record.data.items())
        if (more := len(value.records) - SAMPLE_ROWS) > 0:
            yield f"      and {more} more"
    elif not isinstance(value, dg.MarkdownMetadataValue):
        yield f"    {name}: {one_line(str(value.value))}"


def one_line(text: str) -> str:
    """At most `LONGEST_TEXT` characters without line ends."""
    return " ".join(text.split())[:LONGEST_TEXT]
