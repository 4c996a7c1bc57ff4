"""A forgotten user is in no file of the artifacts any more."""

import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onerec.artifacts import ArtifactStore, write_json
from onerec.retention.erasure import erase_users


def publish(store: ArtifactStore, asset: str, day: str, users: list[str]) -> str:
    with store.write(asset, day, config={"c": 1}, upstream={"u": "v"}, code_version="1") as draft:
        (draft.path / "split=train").mkdir()
        rows = pa.table({"user_id": users, "n": range(len(users))})
        pq.write_table(rows, draft.path / "split=train" / "part.parquet", row_group_size=2)
        pq.write_table(pa.table({"item_id": users}), draft.path / "items.parquet")
        attributes = pa.table({"user_id": sorted(set(users)), "plan": ["free"] * len(set(users))})
        pq.write_table(attributes, draft.path / "users.parquet")
        write_json(draft.path / "stats.json", {"rows": len(users)})
        draft.row_counts["rows"] = len(users)
    return draft.artifact.version


def test_rows_of_the_users_are_gone_from_every_version(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    earlier = publish(store, "session_dataset", "2026-06-01", ["a", "b", "a"])
    current = publish(store, "session_dataset", "2026-06-01", ["a", "b", "c", "a", "d"])
    untouched = publish(store, "session_dataset", "2026-06-02", ["b", "c"])
    found = list(erase_users(store, ["a", "d", "nobody"]))
    assert sorted((e.partition, e.rows) for e in found) == [("2026-06-01", 3), ("2026-06-01", 5)]
    names = {version for _, version in store.versions("session_dataset")}
    assert not {earlier, current} & names
    assert untouched in names
    after = store.latest("session_dataset", "2026-06-01").verify()
    kept = pq.read_table(after.path / "split=train" / "part.parquet")
    assert kept.to_pylist() == [{"user_id": "b", "n": 1}, {"user_id": "c", "n": 2}]
    attributes = pq.read_table(after.path / "users.parquet")
    assert attributes["user_id"].to_pylist() == ["b", "c"]
    # an item that is called like a user is not erased
    assert pq.read_table(after.path / "items.parquet").num_rows == 5
    assert after.manifest["config"] == {"c": 1}
    assert after.manifest["upstream"] == {"u": "v"}
    assert after.manifest["metadata"]["erased_rows"] == 5
    assert list(erase_users(store, ["a"])) == []


def test_the_copy_of_a_remote_version_goes_with_it(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    store = ArtifactStore(f"memory://{uuid.uuid4().hex}", cache_dir=str(cache))
    publish(store, "session_dataset", "2026-06-01", ["a", "b"])
    publish(store, "session_dataset", "2026-06-01", ["a", "b", "c"])
    assert len(list(erase_users(store, ["a"]))) == 2
    tables = [pq.read_table(file) for file in cache.rglob("part.parquet")]
    assert [table["user_id"].to_pylist() for table in tables] == [["b", "c"]]


@pytest.mark.parametrize("damaged", ["split=train/part.parquet", "manifest.json"])
def test_an_earlier_version_that_is_damaged_goes_and_a_current_one_is_a_problem(
    tmp_path: Path, damaged: str
) -> None:
    store = ArtifactStore(str(tmp_path))
    publish(store, "session_dataset", "2026-06-01", ["a", "b", "a"])
    (file,) = tmp_path.glob(f"session_dataset/2026-06-01/*/{damaged}")
    file.unlink()
    publish(store, "session_dataset", "2026-06-01", ["a", "b"])
    current = publish(store, "session_dataset", "2026-06-02", ["a", "b"])
    (tmp_path / "session_dataset" / "2026-06-02" / current / damaged).unlink()
    publish(store, "session_dataset", "2026-06-03", ["a", "b"])
    found = sorted(erase_users(store, ["a"]))
    assert [(e.partition, e.rows) for e in found] == [
        ("2026-06-01", 0),
        ("2026-06-01", 2),
        ("2026-06-02", 0),
        ("2026-06-03", 2),
    ]
    assert "an earlier version that is damaged, removed" in found[0].done
    assert [bool(e.problem) for e in found] == [False, False, True, False]
    remedy = "materialise session_dataset for 2026-06-02 again"
    assert f"session_dataset/2026-06-02/{current}/{damaged}" in found[2].problem
    assert remedy in found[2].problem
    assert len(list(store.versions("session_dataset"))) == 3


def test_examples_of_the_users_go_from_their_page(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    page = "Refused.\n\n## a\n\nBefore: i1\n\n## ab\n\nBefore: i2\n"
    with store.write(
        "user_examples", "2026-06-01", config={}, upstream={}, code_version="1"
    ) as draft:
        (draft.path / "user_examples.md").write_text(page)
    assert [e.rows for e in erase_users(store, ["a", "b"])] == [1]
    (file,) = tmp_path.rglob("*.md")
    assert file.is_relative_to(store.latest("user_examples", "2026-06-01").path)
    assert file.read_text() == "Refused.\n\n## ab\n\nBefore: i2\n"
    assert list(erase_users(store, ["a", "b"])) == []
