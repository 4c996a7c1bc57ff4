"""What Dagster shows of the tables of a dbt build: row counts, column types, column lineage.

dagster-dbt finds types and lineage with an adapter of dbt and a parser of SQL. That takes seconds
in every nightly run, although both change only with the SQL, the variables of dbt or the columns
that are there. So they are kept, and found anew where one of these changed.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

COLUMNS = ("dagster/column_schema", "dagster/column_lineage")
"""The metadata that are kept."""


@dataclass(frozen=True)
class KeptColumns:
    """Column types and lineage of the project's tables in a file.

    Attributes:
        file: The JSON file; a damaged one counts as empty.
        key: `columns_key` of what they depend on; those of another key are not read.
    """

    file: Path
    key: str

    def added_to(self, tables: Sequence[dg.Output]) -> list[dg.Output] | None:
        """The outputs of a build with these metadata; None if those of a table are not known."""
        try:
            kept = json.loads(self.file.read_text())
            if kept["key"] != self.key:
                return None
            columns = [kept["columns"][_model(table)] for table in tables]
            found = [{k: dg.deserialize_value(v) for k, v in some.items()} for some in columns]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        described = []
        for table, some in zip(tables, found, strict=True):
            metadata: dict[str, Any] = {**table.metadata, **some}
            described.append(table.with_metadata(metadata))
        return described

    def keep(self, tables: Iterable[dg.Output]) -> None:
        """Write down what dagster-dbt found for every table of the project.

        Nothing is written where it did not find the types of one, which it says with a warning
        alone, or where the disk does not take it: the next build looks for them again.
        """
        found = {}
        for table in tables:
            metadata: dict[str, Any] = dict(table.metadata)
            known = [name for name in COLUMNS if name in metadata]
            found[_model(table)] = {name: dg.serialize_value(metadata[name]) for name in known}
        if not all(COLUMNS[0] in metadata for metadata in found.values()):
            return
        aside = self.file.with_suffix(".new")
        with suppress(OSError):
            aside.write_text(json.dumps({"key": self.key, "columns": found}))
            os.replace(aside, self.file)


def columns_key(
    manifest: Mapping[str, Any], variables: Mapping[str, Any], connection: duckdb.DuckDBPyConnection
) -> str:
    """Hash of what column types and lineage depend on: the SQL, dbt's variables, the columns that
    are there, and the versions of dbt and Dagster."""
    columns = connection.execute(
        "select schema_name, table_name, column_name, data_type from duckdb_columns() "
        "where not internal order by all"
    ).fetchall()
    sql = [node.get("raw_code", "") for node in manifest["nodes"].values()]
    macros = [macro["macro_sql"] for macro in manifest["macros"].values()]
    parts = (sql, macros, variables, columns, manifest["metadata"]["dbt_version"], dg.__version__)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def with_row_counts(
    tables: Iterable[dg.Output], manifest: Mapping[str, Any], connection: duckdb.DuckDBPyConnection
) -> list[dg.Output]:
    """The outputs of a build with the number of rows of each table, of a view without."""
    counted = []
    for table in tables:
        node = manifest["nodes"][_model(table)]
        if node["config"]["materialized"] != "view":
            # a name of the project's own models
            rows = connection.execute(f"select count(*) from {node['relation_name']}").fetchall()
            counts = {"dagster/row_count": rows[0][0], "dagster/storage_kind": "duckdb"}
            table = table.with_metadata({**table.metadata, **counts})
        counted.append(table)
    return counted


def _model(table: dg.Output) -> str:
    """dbt's name of the model that an output is of."""
    return str(table.metadata["unique_id"].value)
