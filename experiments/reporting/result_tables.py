"""Result tables: rows of systems and metrics with intervals, and where they come from."""

import math
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from onerec.report import pictures
from onerec.statistics import Interval

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of one system.

    Attributes:
        system: What was measured.
        metric: Of what; a difference is `<metric>_minus_<other system>`.
        value: The number, a mean over seeds where there are several.
        low: Lower end of its interval; None where it has none.
        high: Upper end.
        seeds: How many runs of different seeds are behind it.
        seconds: What making the system took, all seeds together; None where nothing was made.
    """

    system: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    seeds: int = 1
    seconds: float | None = None

    @classmethod
    def of(cls, system: str, metric: str, found: Interval, **others: Any) -> "Row":
        """A row of a number with its interval."""
        return cls(
            system=system, metric=metric, value=found.mean, low=found.low, high=found.high, **others
        )

    @property
    def significance(
        self,
    ) -> Literal["significantly above", "significantly below", "no significant difference"]:
        """Of a difference: whether its interval excludes 0, and on which side it lies."""
        if self.low is not None and self.low > 0:
            return "significantly above"
        if self.high is not None and self.high < 0:
            return "significantly below"
        return "no significant difference"

    def text(self, unit: str = "", decimals: int = 4) -> str:
        """A difference with its sign and interval."""
        low, high = (math.nan if end is None else end for end in (self.low, self.high))
        number = Interval(self.value, low, high).text(signed=True, decimals=decimals)
        return number.replace(" [", f"{unit} [")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a table comes from: enough to make it again.

    Attributes:
        data: Name and hash of what was read.
        config: Hash of all settings, or the settings that differ from the preset, in words.
        seeds: Those used.
        budget: What each system was allowed, e.g. epochs and trials.
        commit: Of this repository.
        day: Of the run.
    """

    data: str
    config: str
    seeds: Sequence[int]
    budget: str
    commit: str
    day: date = field(default_factory=date.today)


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """A table of the results page.

    Attributes:
        name: File name, in lower case with underscores.
        title: Its heading.
        text: The question and the protocol, in a few sentences.
        rows: In the order of systems to be shown.
        provenance: Where it comes from.
        columns: Metrics to show and their titles; all of the rows' where empty.
        pictured: Metrics that get a picture, bars with intervals; the first column where empty.
        findings: What came out, also where it disappoints, one sentence each.
    """

    name: str
    title: str
    text: str
    rows: Sequence[Row]
    provenance: Provenance
    columns: Mapping[str, str] = field(default_factory=dict)
    pictured: Sequence[str] = ()
    findings: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]+", self.name):
            raise ValueError(f"name={self.name!r}: use lower case, digits and underscores")
        if not self.rows:
            raise ValueError(f"rows: {self.name} has none; a table needs a measured system")
        keys = [(row.system, row.metric) for row in self.rows]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"rows: {self.name} has {twice[0]} twice; give systems unlike names")

    @property
    def shown(self) -> dict[str, str]:
        """Metrics that are columns, with their titles."""
        return dict(self.columns) or {row.metric: row.metric for row in self.rows}

    def pictures(self) -> dict[str, str]:
        """Bars with intervals per pictured metric, as SVG by metric."""
        drawn = {}
        for metric in self.pictured or [next(iter(self.shown))]:
            bars = {row.system: row for row in self.rows if row.metric == metric}
            title = self.shown.get(metric, metric)
            drawn[metric] = pictures.bar_chart(
                {name: _bar(row) for name, row in bars.items()}, f"{self.title}: {title}", title
            )
        return drawn


def rows_to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as JSON; numbers that are not finite become null."""
    return [
        {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(row).items()
        }
        for row in rows
    ]


def cells(table: ResultTable) -> list[list[str]]:
    """Head and lines: a line per system, a column per metric, with intervals."""
    rows = {(row.system, row.metric): row for row in table.rows}
    lines = [["system", *table.shown.values(), "seeds", "seconds"]]
    for system in dict.fromkeys(row.system for row in table.rows):
        mine = [row for row in table.rows if row.system == system]
        spent = [row.seconds for row in mine if row.seconds is not None]
        lines.append(
            [
                system,
                *(_cell(rows.get((system, metric))) for metric in table.shown),
                str(max(row.seeds for row in mine)),
                f"{max(spent):,.0f}" if spent else "",
            ]
        )
    return lines


def current_commit(root: Path = CHECKOUT) -> str:
    """Hash of the checkout's commit, `+` behind it when files differ; 'unknown' outside of one.

    Documents may differ: the page of results does, once a table is written into it.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)docs")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _bar(row: Row) -> Any:
    if row.low is None or row.high is None:
        return row.value
    return row.value, row.low, row.high


def _cell(row: Row | None) -> str:
    if row is None or not math.isfinite(row.value):
        return ""
    digits = 4 if abs(row.value) < 10 else 1
    if row.low is None or row.high is None:
        return f"{row.value:.{digits}f}"
    return f"{row.value:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}]"
