"""Tags that name the process that made a directory, to recognise leftovers of killed ones."""

import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

_SEPARATOR = "~"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class ProcessTag:
    """A process, unlike a later one or another machine's with the same id.

    Machines and containers that share a volume need host names of their own.

    Attributes:
        host: Name of the machine or container.
        boot: The start of its kernel; another one after a reboot.
        pid: Process id.
        started: When the process began, in the system's own count; equal for the same process only.
    """

    host: str
    boot: str
    pid: int
    started: str

    @classmethod
    def mine(cls) -> "ProcessTag":
        """The tag of this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot(), pid, _start_of(pid) or "")

    @classmethod
    def parse(cls, text: str) -> "ProcessTag | None":
        """Read `str(tag)`, whatever follows it after another `~`; None if it is no tag."""
        parts = text.split(_SEPARATOR)
        if len(parts) < 4 or not parts[2].isdecimal():
            return None
        return cls(parts[0], parts[1], int(parts[2]), parts[3])

    def __str__(self) -> str:
        return _SEPARATOR.join((self.host, self.boot, str(self.pid), self.started))

    @property
    def is_of_this_host(self) -> bool:
        """Whether this machine can know if the process has ended."""
        return self.host == socket.gethostname()

    def has_ended(self) -> bool:
        """True only where this machine can know it: it is the same host, rebooted or without it."""
        if not self.is_of_this_host:
            return False
        return self.boot != _boot() or _start_of(self.pid) != self.started


@lru_cache(maxsize=1)
def _boot() -> str:
    if _BOOT_ID.exists():
        return _BOOT_ID.read_text().strip()
    return f"{psutil.boot_time():.0f}"


def _start_of(pid: int) -> str | None:
    """When a living process began; None where there is none."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists():  # no Linux
            return f"{process.create_time():.0f}"
        # field 22, ticks since boot: create_time() would move with every step of the clock. The
        # second field is the command in parentheses and may hold anything
        return stat.read_text().rpartition(")")[2].split()[19]
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None
