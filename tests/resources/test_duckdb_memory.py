"""DuckDB's share of the machine's memory."""

from types import SimpleNamespace

import psutil
import pytest

from resources.duckdb_memory import memory_limit


@pytest.mark.parametrize(
    ("machine_gib", "expected"), [(2, "1024MiB"), (24, "2048MiB"), (240, "20480MiB")]
)
def test_a_twelfth_of_the_machine_and_not_too_little(machine_gib, expected, monkeypatch) -> None:
    machine = SimpleNamespace(total=machine_gib * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    assert memory_limit() == expected
