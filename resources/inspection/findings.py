"""Findings about a log, each with the line of the YAML file that would change it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import duckdb

from onerec.config import PipelineConfig
from onerec.config.feedback import Feedback

Level = Literal["ok", "warning", "error"]
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found.

    Attributes:
        topic: What it is about; findings of a topic follow one another.
        level: `error` stops a nightly run, with `warning` its figures mean little.
        text: What was counted.
        setting: The line of the YAML file that changes it.
        rows: Examples, or the figures behind it; all with the same columns.
    """

    topic: str
    level: Level
    text: str
    setting: str
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """A landed log and the settings that it was cut with.

    Attributes:
        connection: Its warehouse.
        days: First and last day; the last is tested.
        stages: Settings of the stages.
        feedback: What its events mean.
        user_sample: Share of the users whose sessions were cut.
    """

    connection: duckdb.DuckDBPyConnection
    days: tuple[date, date]
    stages: PipelineConfig
    feedback: Feedback
    user_sample: float = 1.0

    def count(self, sampled: int) -> str:
        """A count of sessions, their events or users, of all of them: an estimate where only
        some users' sessions were cut."""
        if self.user_sample == 1 or not sampled:
            return f"{sampled:,}"
        return f"about {float(f'{sampled / self.user_sample:.3g}'):,.0f}"

    def rows(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of a query as dictionaries."""
        found = self.connection.execute(query, parameters)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def row(self, query: str, **parameters: Any) -> dict[str, Any]:
        """The only row of a query."""
        (row,) = self.rows(query, **parameters)
        return row

    def setting(self, stage: str, name: str, value: Any = None) -> str:
        """The YAML line of a setting, with its present value or another one."""
        present = getattr(getattr(self.stages, stage), name)
        if value is None or value == present:
            return f"stages.{stage}.{name}: {present}"
        return f"stages.{stage}.{name}: {value} (now {present})"
