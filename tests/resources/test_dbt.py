"""When dbt's manifest is made again."""

import os
from pathlib import Path
from typing import Any

import pytest

from resources import dbt


def test_the_manifest_is_of_the_files_whatever_their_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, target, parsed = tmp_path / "project", tmp_path / "dbt", []
    (project / "models").mkdir(parents=True)
    (project / "dbt_project.yml").write_text("name: p\nprofile: p\n")
    model, other = project / "models" / "a.sql", project / "models" / "b.sql"
    model.write_text("select 1")
    other.write_text("select 2")

    def parse(target: Path, warehouse: Path, variables: dict[str, Any], sources: str) -> None:
        target.mkdir(exist_ok=True)
        (target / "manifest.json").write_text("{}")
        (target / dbt._MADE_OF).write_text(sources)
        parsed.append(sources)

    def num_parsed() -> int:
        dbt.dbt_project(target, tmp_path / "warehouse.duckdb", {})
        return len(parsed)

    monkeypatch.setattr(dbt, "PROJECT_DIR", project)
    monkeypatch.setattr(dbt, "_parse", parse)
    assert [num_parsed(), num_parsed()] == [1, 1]
    model.write_text("select 3")  # an older version, unpacked with its own time
    os.utime(model, (0, 0))
    assert [num_parsed(), num_parsed()] == [2, 2]
    other.unlink()
    assert [num_parsed(), num_parsed()] == [3, 3]
