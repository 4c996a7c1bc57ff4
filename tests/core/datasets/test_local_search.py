"""Directories that hold more than a log, links in circles, and what may not be listed."""

import os
from pathlib import Path

import pytest

from onerec.datasets import local_search
from onerec.datasets.file_search import find
from onerec.datasets.local_search import BoundedLocalFileSystem


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a\n1\n")


def names(root: Path, pattern: str = "") -> list[str]:
    return [f.path.removeprefix(f"{root}/") for f in find(f"{root}/{pattern}".rstrip("/")).files]


def test_a_search_ends_after_so_many_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        touch(tmp_path / f"{number % 3}" / f"{number}.csv")
    assert len(names(tmp_path)) == 30
    monkeypatch.setattr(local_search, "MOST_ENTRIES", 20)
    for pattern in ("", "**/*.csv", "*/*.csv"):
        with pytest.raises(ValueError, match=r"^\d\d files .* at most 20|after 20 of them"):
            names(tmp_path, pattern)


def test_a_search_ends_after_so_many_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "a.csv")
    monkeypatch.setattr(local_search, "LONGEST_SECONDS", -1.0)
    with pytest.raises(ValueError, match="Name the directory that holds the log"):
        names(tmp_path)


def test_links_are_followed_once_and_never_in_a_circle(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "x.csv")
    log = tmp_path / "log"
    touch(log / "day=1" / "a.csv")
    (log / "day=2").symlink_to(tmp_path / "elsewhere")
    (log / "day=1" / "up").symlink_to(log)
    (log / "day=1" / "itself").symlink_to(log / "day=1")
    (tmp_path / "elsewhere" / "back").symlink_to(log / "day=1")
    (log / "nowhere").symlink_to(tmp_path / "missing")
    assert names(log) == ["day=1/a.csv", "day=2/x.csv"]
    assert names(log, "day=*/*.csv") == ["day=1/a.csv", "day=2/x.csv"]
    # a second name of a directory that is there itself
    (log / "a_latest").symlink_to(log / "day=1")
    assert names(log) == ["day=1/a.csv", "day=2/x.csv"]


def test_a_directory_that_may_not_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "log" / "a.csv")
    touch(tmp_path / "log" / "lost+found" / "b.csv")

    def denied(path: str) -> object:
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", denied)
    found = find(str(tmp_path / "log"))
    assert [Path(f.path).name for f in found.files] == ["a.csv"]
    assert found.unreadable == (str(tmp_path / "log" / "lost+found"),)


def test_each_search_counts_for_itself() -> None:
    assert BoundedLocalFileSystem() is not BoundedLocalFileSystem()
