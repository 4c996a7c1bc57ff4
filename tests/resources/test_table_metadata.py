"""Column types and lineage are kept as long as nothing that they depend on changed."""

from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from resources.table_metadata import COLUMNS, KeptColumns, columns_key, with_row_counts

MANIFEST = {
    "nodes": {
        "model.a": {
            "raw_code": "select 1 as x",
            "config": {"materialized": "table"},
            "relation_name": '"memory"."main"."a"',
        },
        "model.b": {"raw_code": "from a", "config": {"materialized": "view"}, "relation_name": "b"},
    },
    "macros": {"m": {"macro_sql": "{% macro m() %}{% endmacro %}"}},
    "metadata": {"dbt_version": "1.11"},
}


@pytest.fixture
def connection():
    with duckdb.connect() as connection:
        connection.execute("create table a as select 1 as x from range(3)")
        connection.execute("create view b as from a")
        yield connection


def output(name: str, **metadata: Any) -> dg.Output:
    return dg.Output(None, output_name=name, metadata={"unique_id": f"model.{name}", **metadata})


def described(name: str) -> dg.Output:
    schema = dg.TableSchema([dg.TableColumn(f"column of {name}", "integer")])
    deps = {"x": [dg.TableColumnDep(asset_key=dg.AssetKey("up"), column_name="y")]}
    return output(
        name, **dict(zip(COLUMNS, (schema, dg.TableColumnLineage(deps)), strict=True)), rows=7
    )


def test_what_was_found_is_added_to_the_tables_of_a_later_build(tmp_path: Path) -> None:
    kept = KeptColumns(tmp_path / "columns.json", "key")
    assert kept.added_to([output("a")]) is None
    kept.keep([described("a"), described("b")])
    found = kept.added_to([output("b", rows=9)])
    assert found is not None
    (again,) = found
    assert again.output_name == "b"
    assert again.metadata["rows"].value == 9
    assert {k: again.metadata[k] for k in COLUMNS} == {
        k: described("b").metadata[k] for k in COLUMNS
    }


@pytest.mark.parametrize("text", ["", "{", '{"key": "other", "columns": {"model.a": {}}}'])
def test_another_build_or_a_damaged_file_has_nothing(tmp_path: Path, text: str) -> None:
    kept = KeptColumns(tmp_path / "columns.json", "key")
    kept.file.write_text(text)
    assert kept.added_to([output("a")]) is None


def test_a_table_that_was_not_described_is_looked_at(tmp_path: Path) -> None:
    kept = KeptColumns(tmp_path / "columns.json", "key")
    kept.keep([described("a")])
    assert kept.added_to([output("a"), output("b")]) is None


def test_the_key_changes_with_sql_variables_and_columns(connection) -> None:
    changed = MANIFEST | {
        "nodes": MANIFEST["nodes"] | {"model.b": MANIFEST["nodes"]["model.b"] | {"raw_code": "?"}}
    }
    keys = [
        columns_key(MANIFEST, {"v": 1}, connection),
        columns_key(MANIFEST, {"v": 2}, connection),
        columns_key(changed, {"v": 1}, connection),
        columns_key(MANIFEST | {"macros": {}}, {"v": 1}, connection),
    ]
    connection.execute("insert into a values (4)")
    assert columns_key(MANIFEST, {"v": 1}, connection) == keys[0]
    connection.execute("alter table a alter x type bigint")
    keys.append(columns_key(MANIFEST, {"v": 1}, connection))
    assert len(set(keys)) == len(keys)


def test_tables_are_counted_and_views_are_not(connection) -> None:
    a, b = with_row_counts([output("a"), output("b")], MANIFEST, connection)
    assert a.metadata["dagster/row_count"].value == 3
    assert "dagster/row_count" not in b.metadata
