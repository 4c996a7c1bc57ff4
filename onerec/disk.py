"""Full disks: one message that names the disk, and a check of free space before a nightly run."""

import errno
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onerec.config.fields import SettingError

GIB = 2**30
MIN_FREE_GIB = 1.0
"""Three times what the demo writes; `ONEREC_MIN_FREE_GIB` sets another minimum."""

NOTHING_LEFT = 2**16
"""Bytes; a library that failed on a disk with less failed for that."""

# Arrow, safetensors, DuckDB and SQLite report a full disk in words only
_WORDS = re.compile(
    r"no space left on device|disk quota exceeded|database or disk is full", re.IGNORECASE
)


class DiskFullError(OSError):
    """There is no room for what has to be written; the message names the disk."""


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that a disk is full."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        number = error.errno if isinstance(error, OSError) else None
        full = isinstance(error, DiskFullError) or number in (errno.ENOSPC, errno.EDQUOT)
        if full or _WORDS.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def disk_named(path: Path, what: str) -> Iterator[None]:
    """Turn an error about a full disk, of whatever library, into one that names the disk.

    Args:
        path: Where it is written; the directory need not exist.
        what: What is written.

    Raises:
        DiskFullError: The block failed on a full disk.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        # torch.save says nothing of the cause
        if not is_disk_full(error) and shutil.disk_usage(_existing(path)).free >= NOTHING_LEFT:
            raise
        raise DiskFullError(f"{_disk(path)}: no room to write {what}. {_REMEDY}") from error


def require_free_space(path: Path, what: str, needed_bytes: float = 0) -> None:
    """Stop before work begins that a disk has no room for.

    Args:
        path: A directory on the disk; it need not exist.
        what: The work.
        needed_bytes: What it is known to write; `ONEREC_MIN_FREE_GIB` (default 1) is the floor.

    Raises:
        DiskFullError: Less is free.
        SettingError: `ONEREC_MIN_FREE_GIB` is no number.
    """
    text = os.environ.get("ONEREC_MIN_FREE_GIB") or str(MIN_FREE_GIB)
    try:
        floor = float(text) * GIB
    except ValueError:
        floor = math.nan
    if not 0 <= floor < math.inf:
        raise SettingError("ONEREC_MIN_FREE_GIB", text, "must be a number of GiB, 0 or more")
    needed = max(floor, needed_bytes)
    if shutil.disk_usage(_existing(path)).free < needed:
        raise DiskFullError(f"{_disk(path)}, {what} needs {needed / GIB:.2f} GiB. {_REMEDY}")


_REMEDY = (
    "Free some space, or set ONEREC_HOME (or ONEREC_ARTIFACTS) to a larger disk, and run it "
    "again: nothing was published half-done"
)


def _disk(path: Path) -> str:
    usage = shutil.disk_usage(_existing(path))
    return f"the disk of {path} has {usage.free / GIB:.2f} GiB free of {usage.total / GIB:.2f} GiB"


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
