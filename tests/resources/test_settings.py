"""Environment over remembered settings over defaults; wrong values name the remedy."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from onerec.config import SettingError
from resources import resources_for
from resources.settings import load_settings


def test_defaults_are_the_simulated_demo(tmp_path: Path):
    settings = load_settings({"ONEREC_HOME": str(tmp_path)})
    assert (settings.dataset, settings.preset) == ("simulated", "tiny")
    assert settings.root == tmp_path / "simulated"


def test_later_commands_open_what_was_remembered(tmp_path: Path):
    env = {"ONEREC_HOME": str(tmp_path), "ONEREC_DATASET": "kuairand", "ONEREC_DATA_DIR": "data"}
    first = load_settings(env)
    first.remember()
    again = load_settings({"ONEREC_HOME": str(tmp_path)})
    assert again == first
    assert Path(again.data_dir or "").is_absolute()


def test_another_data_set_forgets_the_remembered_directory(tmp_path: Path):
    env = {"ONEREC_HOME": str(tmp_path), "ONEREC_DATASET": "kuairand", "ONEREC_DATA_DIR": "data"}
    load_settings(env).remember()
    other = load_settings({"ONEREC_HOME": str(tmp_path), "ONEREC_DATASET": "simulated"})
    assert other.data_dir is None


def test_a_file_that_describes_events_is_ones_own_data(tmp_path: Path):
    config = tmp_path / "my.yaml"
    config.write_text("events: {path: log.csv}\n")
    env = {"ONEREC_HOME": str(tmp_path), "ONEREC_CONFIG": str(config)}
    load_settings({"ONEREC_HOME": str(tmp_path), "ONEREC_DATASET": "kuairand"}).remember()
    assert load_settings(env).dataset == "own"
    with pytest.raises(SettingError, match="no such section"):
        load_settings({**env, "ONEREC_DATASET": "simulated"})


def test_yaml_changes_a_stage(tmp_path: Path):
    config = tmp_path / "my.yaml"
    config.write_text("stages:\n  tokenizer:\n    codebook_size: 16\n")
    settings = load_settings({"ONEREC_HOME": str(tmp_path), "ONEREC_CONFIG": str(config)})
    assert settings.stages.tokenizer.codebook_size == 16


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"ONEREC_DATASET": "netflix"}, "ONEREC_DATASET='netflix': use one of simulated, kuairand"),
        ({"ONEREC_PRESET": "huge"}, "ONEREC_PRESET='huge': use one of tiny, small, base, large"),
        ({"ONEREC_CONFIG": "/nowhere.yaml"}, "no such file"),
    ],
)
def test_a_wrong_name_is_answered_with_the_known_ones(tmp_path: Path, env, message: str):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        load_settings({"ONEREC_HOME": str(tmp_path), **env})


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("stages:\n  tokeniser: {}\n", "stages.tokeniser={}: no such stage; use one of"),
        ("stages:\n  tokenizer:\n    k: 3\n", "stages.tokenizer.k=3: no such setting"),
        ("stages:\n  tokenizer:\n    codebook_size: 1\n", "codebook_size=1: use a whole number"),
        ("stages: [1]\n", "stages=[1]: must map stages to settings"),
        ("stages: {model: 3}\n", "stages.model=3: must map names to values"),
        ("stages: {model: {d_ff: 1, d_ff: 2}}\n", "d_ff='given twice'"),
        ("stage: {}\n", "stage={}: no such section; the data set simulated has stages, simulator"),
        ("items: {}\n", "items={}: no such section"),
        ("- a\n", "must be a YAML mapping"),
    ],
)
def test_a_wrong_setting_names_field_value_and_remedy(tmp_path: Path, yaml: str, message: str):
    config = tmp_path / "my.yaml"
    config.write_text(yaml)
    with pytest.raises(SettingError) as raised:
        load_settings({"ONEREC_HOME": str(tmp_path), "ONEREC_CONFIG": str(config)})
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["ONEREC_DATA_DIR", "ONEREC_ARTIFACTS"])
def test_credentials_in_a_url_are_neither_remembered_nor_shown(tmp_path: Path, name: str):
    env = {"ONEREC_HOME": str(tmp_path), name: "s3://AKIA123:hush/hush@bucket/night"}
    with pytest.raises(SettingError, match=rf"{name}='s3://\*\*\*@bucket/night': holds") as error:
        load_settings(env)
    assert "hush" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_one_variable_chooses_the_engine_of_the_session_sql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from resources.spark import SparkSessionDbt

    settings = load_settings({"ONEREC_HOME": str(tmp_path)})
    on_duckdb = resources_for(settings)
    assert not isinstance(on_duckdb["dbt"], SparkSessionDbt)
    monkeypatch.setenv("ONEREC_SQL", "spark")
    monkeypatch.setenv("ONEREC_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("ONEREC_SPARK_PORT", "10015")
    on_spark = resources_for(settings)
    assert isinstance(on_spark["dbt"], SparkSessionDbt)
    assert (on_spark["dbt"].lake, on_spark["dbt"].port) == (str(tmp_path / "lake"), 10015)
    # the views of a lake never meet the tables of the same names
    assert on_spark["warehouse"].path != on_duckdb["warehouse"].path
    assert on_spark["dbt"].warehouse_path == on_spark["warehouse"].path
    monkeypatch.setenv("ONEREC_SQL", "oracle")
    with pytest.raises(SettingError, match="ONEREC_SQL='oracle': use duckdb or spark"):
        resources_for(settings)


def test_nights_are_due_in_the_time_zone_of_the_log(tmp_path: Path):
    (tmp_path / "log.csv").write_text(
        "user_id,item_id,event_time\nu,i,2026-06-01 10:00\nu,i,2026-06-02 10:00\n"
    )
    config = tmp_path / "my.yaml"
    config.write_text("events: {path: log.csv}\ntime_zone: Asia/Tokyo\n")
    settings = load_settings({"ONEREC_HOME": str(tmp_path), "ONEREC_CONFIG": str(config)})
    assert settings.time_zone == "Asia/Tokyo"
    due = datetime.combine(date(2026, 6, 2), settings.night_starts_at)
    assert due.astimezone(UTC) == datetime(2026, 6, 1, 18, 15, tzinfo=UTC)
