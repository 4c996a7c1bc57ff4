"""Erasing users: what is found is erased, and what may still hold them is said."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onerec.artifacts import ArtifactError, ArtifactStore
from onerec_dagster.maintenance import erase_everywhere
from resources.warehouse import Warehouse

FIRST, SECOND = "2026-06-01", "2026-06-02"


def publish(store: ArtifactStore, day: str, *users: str) -> Path:
    with store.write("session_dataset", day, config={}, upstream={}, code_version="1") as draft:
        pq.write_table(pa.table({"user_id": users}), draft.path / "users.parquet")
    return draft.artifact.path


def erase(store: ArtifactStore, home: Path, user: str, said: list[str]) -> None:
    warehouse = Warehouse(path=str(home / "warehouse.duckdb"))
    for line in erase_everywhere(store, warehouse, home / "serving", [user]):
        said.append(line)


def test_a_damaged_current_version_fails_it_after_everything_else_was_erased(
    tmp_path: Path,
) -> None:
    store, said = ArtifactStore(str(tmp_path / "artifacts")), []
    (publish(store, FIRST, "a") / "users.parquet").write_bytes(b"")
    publish(store, SECOND, "a", "b")
    with pytest.raises(ArtifactError, match=f"materialise session_dataset for {FIRST} again"):
        erase(store, tmp_path, "a", said)
    users = pq.read_table(store.latest("session_dataset", SECOND).path / "users.parquet")
    assert users["user_id"].to_pylist() == ["b"]
    assert f"artifact session_dataset of {SECOND}: 1 rows, published again without them" in said
    assert said[-1].startswith("still holds them: the source")
