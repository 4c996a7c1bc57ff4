"""DuckDB's memory does not grow with the machine's."""

from types import SimpleNamespace

import psutil
import pytest

from resources.duckdb_memory import memory_limit


@pytest.mark.parametrize(
    ("machine_gib", "expected"), [(2, "1024MiB"), (6, "1536MiB"), (256, "2048MiB")]
)
def test_a_quarter_of_the_machine_within_bounds(machine_gib, expected, monkeypatch) -> None:
    machine = SimpleNamespace(total=machine_gib * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    assert memory_limit() == expected
