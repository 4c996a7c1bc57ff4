"""A Postgres of Debian's package on a free port of localhost, as an unprivileged user."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "only-for-this-test"


def binary(name: str) -> str:
    """Path of a program of Postgres; skips the test where it is not installed."""
    found = shutil.which(name) or next(
        (str(p) for p in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None
    )
    if found is None:
        pytest.skip("no Postgres on this machine; Debian's package `postgresql` has it")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def postgres() -> Iterator[str]:
    """URL of an empty database, in the form of deploy/dagster.yaml."""
    initdb, server = binary("initdb"), binary("postgres")
    user = None
    if os.geteuid() == 0:  # Postgres refuses to run as root
        try:
            user = pwd.getpwnam("postgres").pw_name
        except KeyError:
            pytest.skip("root cannot run Postgres, and there is no user postgres")
    home = Path(tempfile.mkdtemp(prefix="onerec-postgres-"))
    (home / "password").write_text(PASSWORD)
    if user is not None:
        for path in (home, home / "password"):
            shutil.chown(path, user)
    port = free_port()
    try:
        subprocess.run(
            [initdb, "-D", home / "data", "-U", "onerec", "-A", "scram-sha-256",
             f"--pwfile={home / 'password'}"],
            check=True, capture_output=True, user=user, cwd=home,
        )  # fmt: skip
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [server, "-D", home / "data", "-p", str(port), "-h", "127.0.0.1", "-k", home],
                stdout=log, stderr=log, user=user, cwd=home,
            )  # fmt: skip
        try:
            _wait_for(port, process, home / "log")
            yield f"postgresql+psycopg2://onerec:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            process.terminate()
            process.wait(timeout=30)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
