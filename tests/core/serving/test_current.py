"""What consumers read: whole, open to others, and never of an earlier day than it was."""

import os
import shutil
import stat
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onerec.artifacts import staging
from onerec.schema import RECOMMENDATIONS
from onerec.serving.current import (
    BUNDLE,
    CURRENT,
    KEPT,
    SERVED,
    TABLE,
    VERSIONS,
    ServedVersion,
    problem_of_current,
    publish_current,
    read_served,
)


def table(*items: str) -> pa.Table:
    rows = [
        {
            "user_id": "u1",
            "serve_date": date(2026, 6, 15),
            "rank": place + 1,
            "item_id": item,
            "score": -0.5 * place,
            "reward": None,
            "model_version": "m",
            "tokenizer_version": "t",
        }
        for place, item in enumerate(items)
    ]
    return pa.Table.from_pylist(rows, schema=RECOMMENDATIONS)


TITLES = pa.table({"item_id": ["b", "a"], "title": ["Bee", None]})


def publish(root: Path, bundle: Path, day: str, version: str, degraded: str | None = None) -> bool:
    bundle.mkdir(exist_ok=True)
    (bundle / "model.safetensors").write_bytes(b"weights")
    (bundle / "model.safetensors").chmod(0o600)
    served = ServedVersion(
        day=day, serve_date="2026-06-15", version=version, model_version="m", degraded=degraded
    )
    return publish_current(root, served, table=table("a", "b", "c"), titles=TITLES, bundle=bundle)


def test_the_table_has_titles_where_there_are_any_and_null_rewards(tmp_path: Path) -> None:
    root = tmp_path / "serving"
    assert publish(root, tmp_path / "bundle", "2026-06-14", "v1", degraded="no memory")
    found = pq.read_table(root / CURRENT / TABLE)
    assert found.column("title").to_pylist() == [None, "Bee", None]
    assert found.column("reward").null_count == 3
    assert found.column_names.index("title") == found.column_names.index("item_id") + 1
    served = read_served(root)
    assert served is not None
    assert (served.day, served.degraded) == ("2026-06-14", "no memory")


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_another_user_may_read_everything(tmp_path: Path, umask: int) -> None:
    root, before = tmp_path / "serving", os.umask(umask)
    try:
        publish(root, tmp_path / "bundle", "2026-06-14", "v1")
    finally:
        os.umask(before)
    for path in (root, *root.rglob("*")):
        expected = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_an_earlier_day_does_not_become_current(tmp_path: Path) -> None:
    root = tmp_path / "serving"
    assert publish(root, tmp_path / "bundle", "2026-06-14", "v1")
    for day in ("2026-06-10", "2026-06-11"):
        assert not publish(root, tmp_path / "bundle", day, "v2")
    assert (root / CURRENT).resolve().name == "2026-06-14-v1"
    assert len(list((root / VERSIONS).iterdir())) == 1  # not even a copy that nobody reads
    # the same day made again does: a rollback, or a rerun
    assert publish(root, tmp_path / "bundle", "2026-06-14", "v3")
    assert (root / CURRENT).resolve().name == "2026-06-14-v3"


def test_a_copy_of_the_state_that_followed_the_link_is_published_to_again(tmp_path: Path) -> None:
    publish(tmp_path / "serving", tmp_path / "bundle", "2026-06-14", "v1")
    copied = shutil.copytree(tmp_path / "serving", tmp_path / "copied")
    assert not (copied / CURRENT).is_symlink()
    assert publish(copied, tmp_path / "bundle", "2026-06-15", "v2")
    assert (copied / CURRENT).resolve().name == "2026-06-15-v2"


@pytest.mark.parametrize("name", [TABLE, SERVED, f"{BUNDLE}/model.safetensors"])
def test_a_damaged_file_is_found_and_publishing_again_repairs_it(tmp_path: Path, name: str) -> None:
    root = tmp_path / "serving"
    publish(root, tmp_path / "bundle", "2026-06-14", "v1")
    assert problem_of_current(root) == ""
    damaged = (root / CURRENT).resolve() / name
    os.truncate(damaged, 5)
    if name != f"{BUNDLE}/model.safetensors":  # weights are verified where they are loaded
        assert "publish it again" in problem_of_current(root)
    assert publish(root, tmp_path / "bundle", "2026-06-14", "v1")
    assert problem_of_current(root) == ""
    assert pq.read_table(root / CURRENT / TABLE).num_rows == 3
    assert (root / CURRENT / BUNDLE / "model.safetensors").read_bytes() == b"weights"
    again = (root / CURRENT).resolve()
    assert publish(root, tmp_path / "bundle", "2026-06-14", "v1")  # nothing is damaged now
    assert len(list((root / VERSIONS).iterdir())) <= KEPT
    assert again.exists()


def test_a_reader_that_opened_a_version_keeps_it_while_the_next_ones_come(tmp_path: Path) -> None:
    root = tmp_path / "serving"
    publish(root, tmp_path / "bundle", "2026-06-01", "v")
    opened = (root / CURRENT).resolve()
    for day in range(2, KEPT + 1):
        publish(root, tmp_path / "bundle", f"2026-06-{day:02d}", "v")
        assert pq.read_table(opened / TABLE).num_rows == 3
    publish(root, tmp_path / "bundle", "2026-06-20", "v")
    assert not opened.exists()
    assert len(list((root / VERSIONS).iterdir())) == KEPT


def test_the_version_before_stays_for_its_readers_although_the_clock_was_set_back(
    tmp_path: Path,
) -> None:
    root = tmp_path / "serving"
    for day in range(1, KEPT + 1):
        publish(root, tmp_path / "bundle", f"2026-06-{day:02d}", "v")
    opened = (root / CURRENT).resolve()
    os.utime(opened, (0, 0))
    publish(root, tmp_path / "bundle", "2026-06-20", "v")
    assert opened.exists()
    assert len(list((root / VERSIONS).iterdir())) == KEPT


def test_a_directory_that_a_group_shares_stays_so(tmp_path: Path) -> None:
    root = tmp_path / "serving"
    root.mkdir()
    root.chmod(0o2775)
    publish(root, tmp_path / "bundle", "2026-06-14", "v1")
    assert stat.S_IMODE(root.stat().st_mode) == 0o2775


def test_a_copy_that_a_killed_process_left_goes_when_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "serving"
    left = root / VERSIONS / ".0123456789abcdef"
    (left / BUNDLE).mkdir(parents=True)
    publish(root, tmp_path / "bundle", "2026-06-14", "v1")
    assert left.exists()  # it may still be written
    monkeypatch.setattr(staging, "LEFT_AFTER_DAYS", -1.0)
    publish(root, tmp_path / "bundle", "2026-06-15", "v1")
    assert {path.name for path in (root / VERSIONS).iterdir()} == {"2026-06-14-v1", "2026-06-15-v1"}
