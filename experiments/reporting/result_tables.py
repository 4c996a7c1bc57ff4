"""Result tables: metrics of systems with intervals and provenance."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from onerec.evaluation.metric_table import MetricRow, MetricTable, TableColumn
from onerec.report import pictures
from onerec.statistics import Interval


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """Training time of a system.

    Attributes:
        seeds: Number of runs with different seeds that its metrics are means of.
        seconds: Total of these runs; None where nothing was trained or the time is unknown.
    """

    seeds: int = 1
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Provenance of a table, sufficient to reproduce it.

    Attributes:
        data: Name and hash of the data.
        config: Hash of all settings, or the settings that differ from the preset, in words.
        seeds: Seeds used.
        budget: Training budget per system, e.g. epochs and trials.
        commit: Commit of this repository.
        day: Date of the run.
        nights: Commits that the nightly runs were made by, `unknown` where that is not recorded.
    """

    data: str
    config: str
    seeds: Sequence[int]
    budget: str
    commit: str
    day: date = field(default_factory=date.today)
    nights: Sequence[str] = ()

    @property
    def commits(self) -> str:
        """The commits in words; nightly runs by the same one are not mentioned."""
        if {*self.nights} <= {self.commit}:
            return f"commit `{self.commit}`"
        nights = ", ".join(f"`{commit}`" for commit in self.nights)
        return f"commit `{self.commit}`, nightly runs by {nights}"


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """A table of the results page.

    Attributes:
        name: File name, in lower case with underscores.
        title: Heading.
        text: The question and the protocol, in a few sentences.
        metrics: Metrics, in the order of the systems shown.
        provenance: Data, settings and commit.
        costs: Training time by trained system.
        columns: Columns shown, with titles; empty: all columns of the metrics.
        pictured: Columns drawn as bars with intervals; empty: the first one.
        findings: Conclusions, negative ones too, one sentence each.
    """

    name: str
    title: str
    text: str
    metrics: MetricTable
    provenance: Provenance
    costs: Mapping[str, TrainingCost] = field(default_factory=dict)
    columns: Mapping[TableColumn, str] = field(default_factory=dict)
    pictured: Sequence[TableColumn] = ()
    findings: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]+", self.name):
            raise ValueError(f"name={self.name!r}: use lower case, digits and underscores")
        if not self.metrics.rows:
            raise ValueError(f"metrics: {self.name} has none; a table needs a measured system")
        keys = [(row.system, row.column) for row in self.metrics.rows]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(
                f"metrics: {self.name} has {twice[0]} twice; give systems different names"
            )

    @property
    def shown(self) -> dict[TableColumn, str]:
        """Columns with their titles."""
        every = dict.fromkeys(row.column for row in self.metrics.rows)
        return dict(self.columns) or {column: " ".join(filter(None, column)) for column in every}

    @property
    def systems(self) -> list[str]:
        """The measured systems, one line each."""
        return list(dict.fromkeys(row.system for row in self.metrics.rows))

    def pictures(self) -> dict[TableColumn, str]:
        """Bars with intervals per pictured column, as SVG."""
        drawn = {}
        for column in self.pictured or [next(iter(self.shown))]:
            title = self.shown.get(column, column.metric)
            bars = {row.system: _bar(row) for row in self.metrics.rows if row.column == column}
            drawn[column] = pictures.bar_chart(bars, f"{self.title}: {title}", title)
        return drawn


def cells(table: ResultTable) -> list[list[str]]:
    """Header and rows: a row per system with intervals, seeds and seconds."""
    lines = [["system", *table.shown.values(), "seeds", "seconds"]]
    for system in table.systems:
        cost = table.costs.get(system, TrainingCost())
        numbers = [_cell(table.metrics.cell(system, column)) for column in table.shown]
        seconds = "" if cost.seconds is None else f"{cost.seconds:,.0f}"
        lines.append([system, *numbers, str(cost.seeds), seconds])
    return lines


def _bar(row: MetricRow) -> Any:
    return row.value if row.low is None or row.high is None else tuple(row.interval)


def _cell(found: Interval) -> str:
    if not math.isfinite(found.mean):
        return ""
    return found.text(decimals=4 if abs(found.mean) < 10 else 1)
