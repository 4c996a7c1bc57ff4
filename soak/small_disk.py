"""A small file system for a directory, to test real `ENOSPC` errors."""

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 2**20
LONGEST_UNMOUNT_SECONDS = 60


class NoMountError(OSError):
    """The user may not mount file systems; the message has the remedy."""


@contextmanager
def small_disk(directory: Path, room: int) -> Iterator[None]:
    """Mount a `tmpfs` with a copy of a directory's files over it, and limited free space.

    At the end the files are copied back. If the process is killed before that, the kernel discards
    the file system with its mount namespace, and the directory is unchanged.

    Args:
        directory: The directory; no other process may write to it meanwhile.
        room: Free bytes at the start.

    Raises:
        NoMountError: The user may not mount file systems.
    """
    aside = directory.with_name(f".{directory.name}.disk")
    aside.mkdir(exist_ok=True)
    taken = sum(f.lstat().st_size for f in directory.rglob("*") if not f.is_symlink())
    _mount("-t", "tmpfs", "-o", f"size={taken + room}", "tmpfs", aside)
    try:
        shutil.copytree(directory, aside, symlinks=True, dirs_exist_ok=True)
        _mount("--bind", aside, directory)
        try:
            yield
        finally:
            _unmount(directory)
            shutil.rmtree(directory)
            shutil.copytree(aside, directory, symlinks=True)
    finally:
        _unmount(aside)
        aside.rmdir()


@contextmanager
def filled(directory: Path) -> Iterator[None]:
    """Fill a small file system completely inside the block."""
    file = directory / "ballast"
    with file.open("wb", buffering=0) as ballast:
        for size in (MIB, 4096, 1):
            _write_all(ballast.fileno(), size)
    try:
        yield
    finally:
        file.unlink()


def _write_all(descriptor: int, size: int) -> None:
    block = b"\0" * size
    while True:
        try:
            os.write(descriptor, block)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return


def _mount(*arguments: str | Path) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise NoMountError(
            f"{done.stderr.strip()}: run it as `unshare --user --map-root-user --mount make soak`"
        )


def _unmount(directory: Path) -> None:
    """Unmount, with retries: child processes (multiprocessing's tracker) may briefly use it."""
    deadline = time.monotonic() + LONGEST_UNMOUNT_SECONDS
    while True:
        done = subprocess.run(["umount", directory], capture_output=True, text=True)
        if done.returncode == 0:
            return
        if time.monotonic() > deadline:
            raise OSError(done.stderr.strip())
        time.sleep(0.5)
