"""Staging directories of drafts, and the removal of those that killed processes left."""

import shutil
import uuid
from pathlib import Path

from onerec.processes import ProcessTag

STAGING = ".staging"


def staging_directory(parent: Path) -> Path:
    """A new empty directory, named after this process; those of ended processes are deleted.

    Another host's are left alone: this host cannot know whether it still writes.

    Args:
        parent: On the file system to publish to, as a rename does not cross file systems.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        tag = ProcessTag.parse(left.name)
        if tag is not None and tag.has_ended():
            shutil.rmtree(left, ignore_errors=True)
    # not tempfile: its directories are the owner's alone, and this one becomes what others read
    directory = parent / f"{ProcessTag.mine()}~{uuid.uuid4().hex[:8]}"
    directory.mkdir()
    return directory
