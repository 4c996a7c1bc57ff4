"""Files of result tables, and the page that combines them.

`write_table` writes three kinds of files per table to a directory, by convention
`$ONEREC_HOME/tables`:

    <name>.parquet  metrics (`schema.OFFLINE_METRICS`)
    <name>.md       section of the page: protocol, table, provenance
    <name>-*.svg    pictures

`assemble_page` combines the sections. A table that was not run again, or was run on another
machine, keeps its section on the page, with that run's date and commit.
"""

import re
import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from experiments.reporting.result_tables import ResultTable, cells
from onerec.evaluation.metric_table import ALL, TableColumn
from onerec.markdown import template

METHOD_CHANGED = date(2026, 11, 27)
"""The date since which models learn the newest days and have a recency prior."""
OLDER = (
    f"**Made before {METHOD_CHANGED}**: by models that did not learn the newest days and had no "
    "recency prior; paths and names may have changed since."
)
PAGE_HEAD = """# Results

Written by `make tables`; [Measurements in short](measurements.md) says what came out, and
[How to read the results](reading_results.md) what the columns mean. Every figure was measured by
this code in the run that its table names; ranking is by item over the full catalogue, and brackets
are 95 % intervals.
"""
SECTION = template(
    """\
## {{ table.title }}

{{ table.text }}

{{ markdown_table(lines[0], lines[1:]) }}
{% for column, file in pictures.items() %}

![{{ table.shown.get(column, column.metric) }}](pictures/{{ file }})
{% endfor %}
{% for finding in table.findings %}
{% if loop.first %}

{% endif %}
- {{ finding }}
{% endfor %}

{{ made.day }}, {{ made.commits }}, data {{ made.data }}, config {{ made.config }}, \
seeds {{ made.seeds | join(", ") }}. Budget: {{ made.budget }}.
"""
)


def write_table(directory: Path, table: ResultTable) -> None:
    """Write metrics, section and pictures of a table; replaces those of an earlier run."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob(f"{table.name}-*.svg"):
        old.unlink()
    files = {}
    for column, svg in table.pictures().items():
        files[column] = f"{table.name}-{_in_file_name(column)}.svg"
        (directory / files[column]).write_text(svg)
    (directory / f"{table.name}.md").write_text(section(table, files))
    table.metrics.save(directory, f"{table.name}.parquet")


def section(table: ResultTable, pictures: dict[TableColumn, str] | None = None) -> str:
    """A table's section in Markdown; `pictures` are file names by column."""
    return SECTION.render(
        table=table, lines=cells(table), pictures=pictures or {}, made=table.provenance
    )


def assemble_page(directory: Path, page: Path, order: Sequence[str]) -> list[str]:
    """Update the page with the sections of a directory, and copy their pictures.

    Args:
        directory: Directory that `write_table` wrote to.
        page: The Markdown file; its sections of tables missing in the directory are kept. Pictures
            go to a folder with the page's stem as name beside it.
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
    marked = (f"<!-- table: {name} -->\n{with_age(sections[name])}\n" for name in found)
    page.write_text("\n".join([PAGE_HEAD, *marked]))
    return found


def with_age(section: str) -> str:
    """The section, with a note under its heading if it was made by an earlier method."""
    made = re.search(r"^(\d{4}-\d\d-\d\d), commit ", section, flags=re.MULTILINE)
    if made is None or date.fromisoformat(made[1]) >= METHOD_CHANGED or OLDER in section:
        return section
    heading, rest = section.split("\n\n", 1)
    return f"{heading}\n\n{OLDER}\n\n{rest}"


def _sections_of(page: str) -> dict[str, str]:
    """Section by table, from the comments that `assemble_page` writes."""
    parts = re.split(r"^<!-- table: (\w+) -->$", page, flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def _in_file_name(column: TableColumn) -> str:
    shown = [column.metric, *([] if column.slice == ALL else [column.slice])]
    text = "-".join([*shown, *(["minus", column.reference] if column.reference else [])])
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
