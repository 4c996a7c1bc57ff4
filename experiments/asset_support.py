"""What the assets of experiments share: how a table becomes a result."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.support import SETTINGS

if TYPE_CHECKING:
    from experiments.reporting.result_tables import ResultTable

GROUP = "experiments"


def written(
    tables: "Sequence[ResultTable]", metadata: Mapping[str, Any] | None = None
) -> dg.MaterializeResult:
    """A table asset's result: the tables where `make tables` looks for them, and shown in the UI.

    The data version is that of the figures, without the seconds that they took.
    """
    from experiments.reporting import markdown, rows_to_json, write_table
    from onerec.pictures import svg_markdown

    shown: dict[str, Any] = {}
    for table in tables:
        write_table(SETTINGS.tables_dir, table)
        shown[table.name] = dg.MetadataValue.md(markdown(table))
        findings = "\n".join(f"- {finding}" for finding in table.findings)
        shown[f"{table.name}: findings"] = dg.MetadataValue.md(findings or "none")
        for metric, svg in table.pictures().items():
            shown[f"{table.name}: {metric}"] = dg.MetadataValue.md(svg_markdown(svg))
    rows = [row | {"seconds": None} for table in tables for row in rows_to_json(table.rows)]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest[:16]),
        metadata={
            "directory": dg.MetadataValue.path(str(SETTINGS.tables_dir)),
            **shown,
            **(metadata or {}),
        },
    )
