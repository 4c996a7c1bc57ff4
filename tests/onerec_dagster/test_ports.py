"""A server of ours that cannot listen says so in one line before it starts."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from onerec_dagster.ports import require_free_port
from resources.settings import CHECKOUT


def test_a_port_that_is_taken_or_none_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port={port}: .*in use; name a free one, [0-9]+ say"):
            require_free_port(port)
    require_free_port(port)
    for wrong in (-1, 0, 99_999):
        with pytest.raises(ValueError, match=f"port={wrong}: .*name a free one"):
            require_free_port(wrong)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ONEREC_DATASET", "nope", "ONEREC_DATASET='nope': use one of"),
        ("ONEREC_CONFIG", "none.yaml", "no such file"),
        ("ONEREC_HOME", "/dev/null/home", "has to be a directory that this user can write"),
    ],
)
def test_the_ui_does_not_start_on_wrong_settings(
    tmp_path: Path, name: str, value: str, message: str
) -> None:
    env = {"ONEREC_HOME": str(tmp_path), "PATH": "", name: value}
    command = [sys.executable, "-m", "onerec_dagster.dev"]
    ended = subprocess.run(
        command, cwd=CHECKOUT, env=env, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("make dev: ")
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
