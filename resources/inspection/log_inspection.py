"""Inspection of a log: land it in a temporary warehouse, cut its sessions, collect the findings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from onerec.config import PipelineConfig
from onerec.datasets import EventSource
from resources.dbt import SessionDbt
from resources.file_source import FileSource, feedback_of
from resources.inspection import (
    delivery_findings,
    training_findings,
    user_findings,
    value_findings,
    volume_findings,
)
from resources.inspection.findings import Finding, Inspected
from resources.inspection.temporary_warehouse import every_day, inspected_warehouse

OPEN_LOG_DAYS = 14
"""Inspected days of an open-ended log without files, such as the simulated one."""

INSPECTIONS: tuple[Callable[[Inspected], list[Finding]], ...] = (
    delivery_findings.files,
    delivery_findings.rows_of_days,
    delivery_findings.rejected,
    delivery_findings.ids,
    delivery_findings.withdrawn,
    volume_findings.frequent_item,
    volume_findings.returning_users,
    value_findings.damaged_ids,
    delivery_findings.ties,
    training_findings.repeats,
    training_findings.sessions,
    training_findings.users_of_two_models,
    training_findings.last_day,
    volume_findings.tested_day,
    delivery_findings.accounts,
    training_findings.kinds_of_events,
    training_findings.signals,
    value_findings.watch_times,
    value_findings.quantities,
    training_findings.tokenizer,
    value_findings.features,
)


@dataclass(frozen=True, kw_only=True)
class SessionBuild:
    """How the session models are built.

    Attributes:
        dbt: The models.
        variables: dbt's variables; the days are those that are looked at.
        directory: Where a warehouse may be for a while.
    """

    dbt: SessionDbt
    variables: Mapping[str, Any]
    directory: Path


def inspect_log(
    source: EventSource, stages: PipelineConfig, build: SessionBuild, days: tuple[date, date]
) -> list[Finding]:
    """Findings about some days of a log, for a nightly run of the last one.

    Args:
        source: The log.
        stages: Settings of a nightly run.
        build: How sessions are cut.
        days: First and last day.

    Raises:
        ValueError: The source cannot deliver; the message says why.
    """
    found = _of_files(source) if isinstance(source, FileSource) else []
    landed = inspected_warehouse(
        source, every_day(*days), build.dbt, build.variables, build.directory
    )
    with landed as (warehouse, share), warehouse.connect() as connection:
        log = Inspected(
            connection=connection,
            days=days,
            stages=stages,
            feedback=feedback_of(source),
            user_sample=share,
        )
        for inspect in INSPECTIONS:
            found += inspect(log)
        supplied = source.item_vectors()
        if supplied is not None:
            found += training_findings.vectors(log, supplied)
        attributes = source.user_attributes()
        if attributes is not None:
            found += user_findings.users(log, attributes)
    return found


def days_of(source: EventSource) -> tuple[date, date]:
    """First and last day that can be inspected."""
    if source.last_day is not None:
        return source.first_day, source.last_day
    if isinstance(source, FileSource):
        return source.first_day, source.last_delivered_day
    return source.first_day, source.first_day + timedelta(days=OPEN_LOG_DAYS - 1)


def _of_files(source: FileSource) -> list[Finding]:
    """What is not read, and why."""
    found = [
        Finding(topic="Files", level="warning", text=note, setting=_line_for(note))
        for note in source.notes()
    ]
    if outside := source.rows_outside():
        found.append(
            Finding(
                topic="Files",
                level="warning",
                text=f"{outside:,} rows lie outside of the log's days and are not read",
                setting="first_day, last_day",
            )
        )
    return found + value_findings.published_later(source)


def _line_for(note: str) -> str:
    """The line of the YAML file that a note of the files is about."""
    for words, line in (
        ("name no zone", "events.time_zone"),
        ("is a table of", "events.path, items.path"),
        ("no header", "events.names, items.names, users.names"),
        ("endings", "events.format"),
        ("may not list", "events.path"),
        ("hold no day", "events.path"),
        ("ends on", "events.timestamp_unit, events.timestamp_format, events.columns.event_time"),
        ("first_day", "first_day"),
        ("last_day", "last_day"),
        ("feedback.kind", "feedback.kind"),
    ):
        if words in note:
            return line
    return "events.timestamp_unit, events.timestamp_format"
