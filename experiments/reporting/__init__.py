"""Experiments: the comparisons that answer whether OneRec is better, than what, and by how much.

One module per table of `docs/results.md`; `tables` is what all of them end in.
"""

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
