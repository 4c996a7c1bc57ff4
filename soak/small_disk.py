"""A directory on a file system of its own that really runs full: `ENOSPC`, not a setting."""

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
    """This user may not mount; the message says how to."""


@contextmanager
def small_disk(directory: Path, room: int) -> Iterator[None]:
    """Lay a `tmpfs` over a directory, with its files and so much room for more.

    What is there at the end is written back below. Where the process is killed before, the kernel
    drops the file system with its mount namespace, and the directory is what it was.

    Args:
        directory: It; nobody else may write to it meanwhile.
        room: Bytes that are free at first.

    Raises:
        NoMountError: This user may not mount.
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
    """Take the last byte of a small file system as long as the block lasts."""
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
    """What a command leaves running for a moment (multiprocessing's tracker) holds its output."""
    deadline = time.monotonic() + LONGEST_UNMOUNT_SECONDS
    while True:
        done = subprocess.run(["umount", directory], capture_output=True, text=True)
        if done.returncode == 0:
            return
        if time.monotonic() > deadline:
            raise OSError(done.stderr.strip())
        time.sleep(0.5)
