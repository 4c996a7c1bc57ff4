"""Result tables: rows with intervals over users and seeds, and the page that shows them."""

from experiments.reporting.result_tables import (
    Provenance,
    ResultTable,
    Row,
    assemble_page,
    current_commit,
    markdown,
    rows_to_json,
    write_table,
)
from experiments.reporting.seed_intervals import (
    SeededValues,
    interval_of,
    seeded_interval,
    seeded_rows,
)

__all__ = [
    "Provenance",
    "ResultTable",
    "Row",
    "SeededValues",
    "assemble_page",
    "current_commit",
    "interval_of",
    "markdown",
    "rows_to_json",
    "seeded_interval",
    "seeded_rows",
    "write_table",
]
