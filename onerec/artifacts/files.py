"""Files and directories of artifacts: hashed once per process, forced to disk, JSON."""

import hashlib
import json
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    """Parse a JSON file."""
    return json.loads(path.read_text())


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values give equal bytes."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def file_entry(path: Path) -> dict[str, Any]:
    """What a manifest says about a file; a file that did not change is hashed once per process."""
    now = path.stat()
    # the inode follows a directory that is renamed; the change time cannot be set back
    state = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
    return {"sha256": _sha256(_State(path, state)), "size_bytes": now.st_size}


class _State:
    """A file as it is now; equal, wherever it is moved, until something changes it."""

    def __init__(self, path: Path, state: tuple[int, ...]) -> None:
        self.path, self.state = path, state

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _State) and self.state == other.state

    def __hash__(self) -> int:
        return hash(self.state)


@lru_cache(maxsize=65_536)
def _sha256(file: _State) -> str:
    with file.path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def open_to_readers(directory: Path) -> None:
    """Give each file the mode that the umask gave the directory: safetensors writes 0600."""
    mode = stat.S_IMODE(directory.stat().st_mode) & 0o666
    for file in directory.rglob("*"):
        if file.is_file() and stat.S_IMODE(file.stat().st_mode) != mode:
            file.chmod(mode)


def sync_tree(directory: Path) -> None:
    """Force every file and directory of a tree to disk, so that a rename cannot overtake them."""
    for parent, _, names in os.walk(directory, topdown=False):
        for name in names:
            sync(Path(parent) / name)
        sync(Path(parent))


def sync(path: Path) -> None:
    """Force a file, or the entries of a directory, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
