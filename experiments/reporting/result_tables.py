"""Result tables: rows for programs, Markdown and pictures for people, one page of all of them.

`write_table` leaves three things per table in a directory, `$ONEREC_HOME/tables` by convention:

    <name>.json     a list of rows {system, metric, value, low, high, seeds, seconds}
    <name>.md       its section of the page: what was asked, the table, where it comes from
    <name>-*.svg    its pictures

`assemble_page` puts the sections together. A table that was not run again, or was run elsewhere,
keeps the section that the page has of it, with that run's date and commit.
"""

import math
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from onerec import pictures
from onerec.artifacts import write_json

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE_HEAD = """# Results

Written by `make tables`; [Measurements in short](measurements.md) says what came out, and
[How to read the results](reading_results.md) what the columns mean. Every figure was measured by
this code in the run that its table names; ranking is by item over the full catalogue, and brackets
are 95 % intervals.
"""


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


def markdown(table: ResultTable) -> str:
    """The table itself: a row per system, a column per metric, with intervals."""
    cells = {(row.system, row.metric): row for row in table.rows}
    systems = list(dict.fromkeys(row.system for row in table.rows))
    head = ["system", *table.shown.values(), "seeds", "seconds"]
    lines = [head, ["---"] * len(head)]
    for system in systems:
        mine = [row for row in table.rows if row.system == system]
        spent = [row.seconds for row in mine if row.seconds is not None]
        lines.append(
            [
                system,
                *(_cell(cells.get((system, metric))) for metric in table.shown),
                str(max(row.seeds for row in mine)),
                f"{max(spent):,.0f}" if spent else "",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_table(directory: Path, table: ResultTable) -> None:
    """Write the rows, the section and the pictures of a table; replaces those of an earlier run."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob(f"{table.name}-*.svg"):
        old.unlink()
    for metric, svg in table.pictures().items():
        (directory / _picture_name(table.name, metric)).write_text(svg)
    (directory / f"{table.name}.md").write_text("\n".join(_section(table)) + "\n")
    write_json(directory / f"{table.name}.json", rows_to_json(table.rows))


def assemble_page(directory: Path, page: Path, order: Sequence[str]) -> list[str]:
    """Write the sections of a directory into the page, and their pictures beside it.

    Args:
        directory: Where `write_table` wrote.
        page: The Markdown file; pictures go into a folder of its stem's name. Sections that it has
            already and the directory has not stay.
        order: Names of tables; those without a section are left out.

    Returns:
        Names of the tables on the page.
    """
    folder = page.parent / page.stem
    folder.mkdir(parents=True, exist_ok=True)
    sections = _sections_of(page.read_text()) if page.exists() else {}
    for name in order:
        if (directory / f"{name}.md").exists():
            text = (directory / f"{name}.md").read_text()
            sections[name] = text.strip().replace("(pictures/", f"({page.stem}/")
            for old in folder.glob(f"{name}-*.svg"):
                old.unlink()
            for svg in sorted(directory.glob(f"{name}-*.svg")):
                shutil.copyfile(svg, folder / svg.name)
    found = [name for name in order if name in sections]
    marked = (f"<!-- table: {name} -->\n{sections[name]}\n" for name in found)
    page.write_text("\n".join([PAGE_HEAD, *marked]))
    return found


def _sections_of(page: str) -> dict[str, str]:
    """Text by table, told from the marks that `assemble_page` writes."""
    parts = re.split(r"^<!-- table: (\w+) -->$", page, flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


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


def _section(table: ResultTable) -> Iterator[str]:
    yield f"## {table.title}"
    yield ""
    yield table.text
    yield ""
    yield markdown(table)
    for metric in table.pictures():
        yield ""
        yield f"![{table.shown.get(metric, metric)}](pictures/{_picture_name(table.name, metric)})"
    if table.findings:
        yield ""
        yield from (f"- {finding}" for finding in table.findings)
    made = table.provenance
    yield ""
    yield (
        f"{made.day.isoformat()}, commit `{made.commit}`, data {made.data}, config {made.config}, "
        f"seeds {', '.join(map(str, made.seeds))}. Budget: {made.budget}."
    )


def _picture_name(table: str, metric: str) -> str:
    return f"{table}-{re.sub(r'[^a-z0-9]+', '-', metric.lower()).strip('-')}.svg"


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
