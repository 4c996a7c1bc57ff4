"""Files of Dagster's state that cannot be used end a command with one line that names them."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from onerec_dagster.dagster_home import prepare_home
from onerec_dagster.state_errors import StateError, state_errors_named
from resources.settings import Settings, load_settings
from tests.other_user import without_rights


def garbage(file: Path) -> None:
    file.write_bytes(b"no database at all" * 100)


def settings_key(file: Path) -> None:
    file.write_text("storag: {}\n")


def opened(settings: Settings) -> None:
    with state_errors_named(settings):
        prepare_home(settings)
        with dg.DagsterInstance.get() as instance:
            instance.get_runs()


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("dagster.yaml", lambda file: file.write_text(": ["), "dagster.yaml: .*delete it to get"),
        ("dagster.yaml", settings_key, "unexpected config entry .*storag.*delete it to get"),
        ("history/runs.db", garbage, "not a database.*move it aside: runs and events"),
    ],
)
def test_a_damaged_file_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    damage: Callable[[Path], object],
    message: str,
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    settings = load_settings({"ONEREC_HOME": str(tmp_path)})
    opened(settings)
    file = settings.dagster_home / name
    for beside in file.parent.glob(f"{file.name}-*"):
        beside.unlink()
    damage(file)
    with pytest.raises(StateError, match=message) as raised:
        opened(settings)
    assert "\n" not in str(raised.value)


def test_a_home_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    (tmp_path / "home").write_text("")
    settings = load_settings({"ONEREC_HOME": str(tmp_path / "home")})
    with pytest.raises(StateError, match=r"home.* has to be a directory that this user can write"):
        opened(settings)


@pytest.mark.parametrize("name", ["", "history", "history/runs.db", "dagster.yaml"])
def test_state_of_another_user_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    settings = load_settings({"ONEREC_HOME": str(tmp_path)})
    opened(settings)
    with (
        without_rights(settings.dagster_home / name),
        pytest.raises(StateError, match=r"This user has to|that this user can") as raised,
    ):
        opened(settings)
    assert "move it aside" not in str(raised.value)


def test_errors_of_other_files_pass(tmp_path: Path) -> None:
    settings = load_settings({"ONEREC_HOME": str(tmp_path / "home")})
    with pytest.raises(FileNotFoundError), state_errors_named(settings):
        (tmp_path / "elsewhere").read_text()
    with (
        pytest.raises(sqlite3.DatabaseError),
        state_errors_named(settings),
        closing(sqlite3.connect(":memory:")) as database,
    ):
        database.execute("no sql")
