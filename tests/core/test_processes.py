"""An ended process is distinguished from a living one, here only and never by its id alone."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from onerec.artifacts import staging
from onerec.artifacts.staging import left_behind, staging_directory
from onerec.processes import ProcessTag

MINE = ProcessTag.mine()


def test_a_tag_is_read_from_its_text() -> None:
    assert ProcessTag.parse(str(MINE)) == MINE
    assert ProcessTag.parse(f"{MINE}~0a1b") == MINE
    assert (MINE.pid, MINE.has_ended()) == (os.getpid(), False)


@pytest.mark.parametrize("text", ["", "123-abc", "a~b~c~d", "a~b~1"])
def test_other_names_are_no_tags(text: str) -> None:
    assert ProcessTag.parse(text) is None


@pytest.mark.parametrize(
    ("changed", "ended"),
    [
        ({"started": "1"}, True),  # the number was given to another process meanwhile
        ({"boot": "before"}, True),
        ({"pid": 2**22 + 1}, True),  # above the largest there is
        ({"host": "elsewhere"}, False),
        ({"host": "elsewhere", "boot": "other", "pid": 2**22 + 1}, False),
    ],
    ids=["reused number", "rebooted", "gone", "other host", "other host, gone"],
)
def test_what_has_ended(changed: dict, ended: bool) -> None:
    assert dataclasses.replace(MINE, **changed).has_ended() is ended


def test_a_killed_process_has_ended_even_before_it_is_waited_for() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "print('ready', flush=True); import time; time.sleep(60)"],
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        stat = Path(f"/proc/{child.pid}/stat").read_text()
        tag = dataclasses.replace(MINE, pid=child.pid, started=stat.rpartition(")")[2].split()[19])
        assert not tag.has_ended()
        child.kill()
        psutil.wait_procs([], timeout=0)
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        assert tag.has_ended()


def test_only_what_ended_processes_of_this_host_left_is_deleted(tmp_path: Path) -> None:
    gone = dataclasses.replace(MINE, started="1")
    elsewhere = dataclasses.replace(gone, host="elsewhere")
    for tag in (gone, elsewhere, MINE):
        (tmp_path / f"{tag}~0").mkdir()
        (tmp_path / f"{tag}~0" / "half.txt").write_text("half")
    (tmp_path / "somebody's").mkdir()
    mine = staging_directory(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        f"{elsewhere}~0",
        f"{MINE}~0",
        "somebody's",
        mine.name,
    }
    assert ProcessTag.parse(mine.name) == MINE


def test_what_another_host_left_is_deleted_when_nothing_was_written_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = dataclasses.replace(MINE, started="1")
    elsewhere = dataclasses.replace(gone, host="elsewhere")
    place = tmp_path / staging.STAGING / "codebook" / "2026-06-14"
    for tag in (gone, elsewhere, MINE):
        (place / f"{tag}~0" / "files").mkdir(parents=True)
    (tmp_path / staging.STAGING / "downloads" / f"{gone}~0").mkdir(parents=True)
    assert {p.parent.name for p in left_behind(tmp_path)} == {"2026-06-14", "downloads"}
    assert {p.name for p in left_behind(tmp_path)} == {f"{gone}~0"}
    monkeypatch.setattr(staging, "LEFT_AFTER_DAYS", -1.0)
    assert {p.name for p in left_behind(tmp_path)} == {f"{gone}~0", f"{elsewhere}~0"}
    mine = staging_directory(place)
    assert {p.name for p in place.iterdir()} == {f"{MINE}~0", mine.name}
