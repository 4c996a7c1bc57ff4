"""An instance's own settings stay; a copy of the checkout's follows it."""

import dataclasses
import os
from pathlib import Path

import pytest

from onerec_dagster import dagster_home as homes
from onerec_dagster.dagster_home import FILE, prepare_home
from onerec_dagster.event_log import BATCH_SIZE
from resources.settings import CHECKOUT, Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("DAGSTER_HOME", "ONEREC_HOME", "OMP_WAIT_POLICY", BATCH_SIZE):
        monkeypatch.setenv(name, "set anew by the test, and put back after it")
    return dataclasses.replace(load_settings({}), home=tmp_path)


def test_without_settings_the_checkout_s_are_copied_and_follow_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = prepare_home(settings) / FILE
    assert copied.read_text() == (CHECKOUT / FILE).read_text()
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / FILE).write_text("telemetry: {enabled: false}\n")
    monkeypatch.setattr(homes, "CHECKOUT", newer)
    prepare_home(settings)
    assert copied.read_text() == "telemetry: {enabled: false}\n"


def test_settings_that_somebody_changed_stay(settings: Settings) -> None:
    copied = prepare_home(settings) / FILE
    copied.write_text(
        copied.read_text().replace("max_concurrent_runs: 2", "max_concurrent_runs: 1")
    )
    prepare_home(settings)
    assert "max_concurrent_runs: 1" in copied.read_text()


def test_settings_that_were_there_before_stay(settings: Settings) -> None:
    settings.dagster_home.mkdir(parents=True)
    own = settings.dagster_home / FILE
    own.write_text("storage: {postgres: {postgres_url: {env: ONEREC_POSTGRES_URL}}}\n")
    prepare_home(settings)
    assert own.read_text().startswith("storage: {postgres")


def test_a_copy_of_an_earlier_version_of_the_project_is_renewed(settings: Settings) -> None:
    settings.dagster_home.mkdir(parents=True)
    (settings.dagster_home / FILE).write_text(f"{homes.FORMER_COPIES} into ...\nold: true\n")
    copied = prepare_home(settings) / FILE
    assert copied.read_text() == (CHECKOUT / FILE).read_text()


def test_relative_paths_are_those_of_the_working_directory_in_every_process(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_data.yaml").write_text("stages: {}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONEREC_CONFIG", "my_data.yaml")
    monkeypatch.setenv("ONEREC_DATA_DIR", "")
    monkeypatch.setenv("ONEREC_ARTIFACTS", "s3://bucket/here")
    prepare_home(settings)
    monkeypatch.chdir(CHECKOUT / "dbt_sessions")  # where dbt leaves the process that ran it
    assert load_settings().config == tmp_path / "my_data.yaml"
    assert load_settings().data_dir is None
    assert os.environ["ONEREC_ARTIFACTS"] == "s3://bucket/here"
