"""Erasing users says what may still hold them; pruning leaves nothing of days that are gone."""

import dataclasses
import uuid
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onerec.artifacts import ArtifactError, ArtifactStore
from onerec.processes import ProcessTag
from onerec_dagster.maintenance import erase_everywhere
from onerec_dagster.prune import PruneConfig, State, remove_superseded
from resources.settings import load_settings
from resources.warehouse import Warehouse

LONG_AGO, FIRST, SECOND = "2026-01-01", "2026-06-01", "2026-06-02"


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


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "local":
        return ArtifactStore(str(tmp_path / "artifacts"))
    return ArtifactStore(f"memory://{uuid.uuid4().hex}", cache_dir=str(tmp_path / "cache"))


def damage_and_repair(store: ArtifactStore, day: str) -> None:
    publish(store, day, "a")
    (_, version), *_ = [v for v in store.versions("session_dataset") if v[0] == day]
    store.fs.pipe_file(f"{store.root}/session_dataset/{day}/{version}/users.parquet", b"cut off")
    publish(store, day, "a")


def prune(store: ArtifactStore, home: Path, *, dry_run: bool) -> list[str]:
    settings = load_settings({"ONEREC_HOME": str(home)})
    warehouse = Warehouse(path=str(home / "warehouse.duckdb"))
    with dg.DagsterInstance.ephemeral() as instance:
        state = State(settings, store, warehouse, instance)
        return list(remove_superseded(state, PruneConfig(keep_nights=1, dry_run=dry_run)))


def test_damaged_versions_and_drafts_of_killed_processes_are_pruned(
    store: ArtifactStore, tmp_path: Path
) -> None:
    with store.write("recommendations", SECOND, config={}, upstream={}, code_version="1"):
        pass
    for day in (LONG_AGO, FIRST):
        damage_and_repair(store, day)
    gone = dataclasses.replace(ProcessTag.mine(), started="1")
    left = store.work / ".staging" / "codebook" / FIRST / f"{gone}~0"
    left.mkdir(parents=True)
    lines = prune(store, tmp_path, dry_run=True)
    assert any(line.startswith("would remove 1 days of damaged artifacts") for line in lines)
    assert any(line.startswith("would remove 1 drafts of killed processes") for line in lines)
    assert len(store.set_aside()) == 2
    assert left.exists()
    prune(store, tmp_path, dry_run=False)
    assert store.set_aside() == [("session_dataset", FIRST)]
    assert not left.exists()


def test_a_forgotten_user_is_in_no_damaged_version_and_unfinished_work_is_named(
    store: ArtifactStore, tmp_path: Path
) -> None:
    damage_and_repair(store, FIRST)
    gone = dataclasses.replace(ProcessTag.mine(), started="1")
    left = store.work / ".staging" / "session_dataset" / FIRST / f"{gone}~0"
    left.mkdir(parents=True)
    scratch = store.scratch("reward_model", FIRST, {})
    (scratch / "resume").write_bytes(b"half way")
    said: list[str] = []
    erase(store, tmp_path, "a", said)
    assert store.set_aside() == []
    assert not left.exists()
    assert f"artifact session_dataset of {FIRST}: what was set aside as damaged, removed" in said
    named = [line for line in said if line.startswith("may still hold them")]
    assert str(scratch.parent) in named[0]
    is_remote = str(store.work) != store.root
    assert ["caches of other machines" in line for line in named[1:]] == [True] * is_remote
