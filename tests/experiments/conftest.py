"""Fixtures shared by the tests of assets."""

from pathlib import Path

import pytest

from assets.support import SETTINGS


@pytest.fixture
def tables_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where table assets write during a test."""
    path = tmp_path / "tables"
    monkeypatch.setattr(type(SETTINGS), "tables_dir", property(lambda _: path))
    return path
