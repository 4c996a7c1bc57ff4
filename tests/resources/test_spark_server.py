"""Spark's server that does not start says why."""

from pathlib import Path

import pytest

from resources import spark_server


def test_the_end_of_its_log_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark_server, "missing", lambda: None)
    command = ["sh", "-c", "echo Unsupported class file version; exit 1"]
    monkeypatch.setattr(spark_server, "_command", lambda *_: command)
    said = r"did not start.*\n.*Unsupported class file version"
    with pytest.raises(RuntimeError, match=said), spark_server.thrift_server(tmp_path):
        pass
