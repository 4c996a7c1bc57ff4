"""Staging directories of drafts, and what killed processes left of them."""

import shutil
import time
import uuid
from pathlib import Path

from onerec.processes import ProcessTag

STAGING, SCRATCH = ".staging", ".scratch"
"""Directories with drafts, and with unfinished work that a run goes on from."""
LEFT_AFTER_DAYS = 7.0
"""A draft is not written to while its training runs, which may take days."""


def staging_directory(parent: Path) -> Path:
    """A new empty directory, named after this process; what killed processes left is deleted.

    Args:
        parent: On the file system to publish to, as a rename does not cross file systems.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        if ProcessTag.parse(left.name) and is_left_behind(left):
            shutil.rmtree(left, ignore_errors=True)
    # not tempfile: its directories are the owner's alone, and this one becomes what others read
    directory = parent / f"{ProcessTag.mine()}~{uuid.uuid4().hex[:8]}"
    directory.mkdir()
    return directory


def is_left_behind(directory: Path) -> bool:
    """Whether the process that wrote to a directory was killed.

    Where this host cannot know it, for want of a name or as it is another host's: whether nothing
    was written there for `LEFT_AFTER_DAYS`.
    """
    tag = ProcessTag.parse(directory.name)
    if tag is not None and tag.is_of_this_host:
        return tag.has_ended()
    try:
        # copying sets the modification time back, and not the change time
        last = max(path.lstat().st_ctime for path in (directory, *directory.rglob("*")))
    except FileNotFoundError:
        return False  # its process is at work
    return time.time() - last > LEFT_AFTER_DAYS * 86_400


def left_behind(work: Path) -> list[Path]:
    """Staging directories that killed processes left.

    Args:
        work: `ArtifactStore.work`.
    """
    found = [path for depth in ("*/*", "*/*/*") for path in (work / STAGING).glob(depth)]
    return [path for path in found if ProcessTag.parse(path.name) and is_left_behind(path)]


def unfinished(work: Path) -> list[Path]:
    """Drafts, downloads and unfinished work that are there, by asset and partition.

    Args:
        work: `ArtifactStore.work`.
    """
    found = [path for name in (STAGING, SCRATCH) for path in (work / name).glob("*/*")]
    return sorted(path for path in found if any(path.iterdir()))
