"""A full disk is one message that names it."""

import errno
import subprocess
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from onerec import disk
from onerec.artifacts import ArtifactStore
from onerec.disk import GIB, DiskFullError, disk_named, is_disk_full, require_free_space

Usage = namedtuple("Usage", "total used free")

WRITERS = {
    "text": lambda path: path.write_text("x" * 2**21),
    "parquet": lambda path: pq.write_table(pa.table({"x": range(2**20)}), str(path)),
    "safetensors": lambda path: save_file({"x": torch.zeros(2**20)}, path),
    "torch": lambda path: torch.save(torch.zeros(2**20), path),
}


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_writer_s_error_names_the_disk(write, full_disk: Path) -> None:
    store = ArtifactStore(str(full_disk / "artifacts"))

    def publish() -> None:
        with store.write("codebook", "day", config={}, upstream={}, code_version="c") as draft:
            write(draft.path / "file")

    message = (
        rf"the disk of {store.root} has 0.00 GiB free of 0.00 GiB: no room to write "
        r"codebook\[day\].*ONEREC_HOME.*run it again"
    )
    with pytest.raises(DiskFullError, match=message):
        publish()
    assert store.partitions("codebook") == []
    assert [p for p in full_disk.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "no"), True),
        (OSError(errno.EDQUOT, "no"), True),
        (OSError(errno.EACCES, "no"), False),
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), True),
        (RuntimeError("IO Error: Could not write file: No space left on device"), True),
        (ValueError("the disk is fine"), False),
        (None, False),
    ],
)
def test_what_means_that_a_disk_is_full(error: Exception | None, full: bool) -> None:
    assert is_disk_full(error) is full
    outer = RuntimeError("a step failed")
    outer.__cause__ = error
    assert is_disk_full(outer) is full


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(KeyError), disk_named(tmp_path, "x"):
        raise KeyError("x")


@pytest.mark.parametrize(
    ("free", "needed", "floor", "fits"),
    [
        (2.0, 0.0, None, True),
        (0.5, 0.0, None, False),
        (2.0, 3.0, None, False),
        (4.0, 3.0, None, True),
        (0.5, 0.0, "0.25", True),
        (2.0, 0.0, "20", False),
    ],
)
def test_space_is_looked_at_before(
    free: float,
    needed: float,
    floor: str | None,
    fits: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: Usage(10 * GIB, 0, int(free * GIB)))
    if floor is not None:
        monkeypatch.setenv("ONEREC_MIN_FREE_GIB", floor)
    place = tmp_path / "not" / "there" / "yet"
    if fits:
        require_free_space(place, "the training", needed * GIB)
        return
    most = max(needed, float(floor or 1))
    message = (
        rf"the disk of {place} has {free:.2f} GiB free of 10.00 GiB, the training needs "
        rf"{most:.2f} GiB"
    )
    with pytest.raises(DiskFullError, match=message):
        require_free_space(place, "the training", needed * GIB)


def test_a_floor_that_is_no_number_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEREC_MIN_FREE_GIB", "much")
    with pytest.raises(ValueError, match="ONEREC_MIN_FREE_GIB='much'"):
        require_free_space(tmp_path, "x")
