"""`make tables`: which tables, where each runs, and what is not made again."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
import yaml

from experiments import make_tables as tables
from experiments.definitions import defs
from experiments.make_tables import (
    chosen_tables,
    materialize,
    missing_results,
    night_to_run,
    process_environment,
    quick_table,
    take_files,
)
from experiments.table_registry import KUAIRAND, ORDER, QUICK, SIMULATED, TABLES
from experiments.variants.assets import GRIDS
from onerec.artifacts import ArtifactStore
from onerec.config import PRESETS, PipelineConfig
from onerec_dagster.killed_runs import LOCK_TAG
from resources.settings import load_settings
from tests.experiments import published_night as small


def test_tables_are_chosen_by_name_in_the_registrys_order():
    assert [t.name for t in chosen_tables(["alignment", "walk_forward"])] == [
        "walk_forward",
        "alignment",
    ]
    assert chosen_tables([]) == list(TABLES)
    with pytest.raises(ValueError, match="use names out of walk_forward"):
        chosen_tables(["alignments"])


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_an_entry_names_assets_and_partitions_that_there_are(table):
    known = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    assert set(table.assets) <= known
    assert set(table.writes) <= set(ORDER)
    assert quick_table(table).environment == QUICK
    for grid, quick in zip(table.grids, quick_table(table).grids, strict=True):
        there = set(GRIDS[grid.asset][1](PipelineConfig(), 0))
        assert set(grid.variants) <= there
        assert len(there & set(quick.variants)) >= 2, "a reference and something to compare"


def test_an_environment_has_a_home_and_settings_of_its_own(tmp_path: Path):
    given = {"ONEREC_DATA_DIR": str(tmp_path), "ONEREC_PRESET": "large"}
    found = load_settings(process_environment(KUAIRAND, tmp_path, given))
    assert found.home == tmp_path / "runs" / "kuairand"
    assert "cascade" in found.stages.evaluation.systems
    assert found.preset == "tiny"
    other = load_settings(process_environment(SIMULATED, tmp_path, given))
    assert other.stages == PRESETS["tiny"]
    assert other.data_dir is None
    config = process_environment(QUICK, tmp_path, {})["ONEREC_CONFIG"]
    assert yaml.safe_load(Path(config).read_text())["simulator"]["initial_users"] == 260


def test_a_day_that_something_was_chosen_on_is_no_test_day(tmp_path: Path):
    settings = load_settings(process_environment(SIMULATED, tmp_path, {}))
    days = replace(SIMULATED, days=4, left_out=("2026-06-13",))
    assert tables.test_days(days, settings) == ["2026-06-11", "2026-06-12", "2026-06-14"]


def test_days_before_a_night_are_ingested_if_they_were_not():
    with dg.DagsterInstance.ephemeral() as instance:
        for day in ("2022-05-03", "2022-05-05"):
            event = dg.AssetMaterialization("good_sessions", partition=day)
            instance.report_runless_asset_event(event)
        missing = tables.not_ingested(instance, date(2022, 5, 2), date(2022, 5, 7))
    assert missing == ["2022-05-02", "2022-05-04", "2022-05-06"]


def test_files_that_nobody_named_are_asked_for(tmp_path: Path):
    with pytest.raises(ValueError, match="make tables DATA_DIR="):
        process_environment(KUAIRAND, tmp_path, {})


def test_taking_a_tables_files_replaces_its_pictures_and_no_others(tmp_path: Path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for name in ("a.json", "a.md", "a-recall.svg", "b.json"):
        (source / name).write_text("new")
    for name in ("a-old.svg", "a_longer.json", "c.json"):
        (target / name).write_text("old")
    assert take_files(source, target, ["a", "missing"]) == ["a"]
    names = {file.name for file in target.iterdir()}
    assert names == {"a.json", "a.md", "a-recall.svg", "a_longer.json", "c.json"}


def test_only_what_is_missing_is_made(tmp_path: Path):
    store = ArtifactStore(str(tmp_path))
    assert night_to_run(store, small.DAY, "popularity", {}) == "night"
    small.publish_night(tmp_path)
    held = store.latest("offline_metrics", small.DAY).manifest["config"]["baselines"]
    assert night_to_run(store, small.DAY, held, {"reward_model": "1"}) == ""
    assert night_to_run(store, small.DAY, held, {"reward_model": "2"}) == "night"
    assert night_to_run(store, small.DAY, "popularity", {}) == "baselines"
    grid = quick_table(TABLES[-1]).grids[0]
    wanted = list(missing_results(grid, store, small.DAY, [2]))
    assert [(seed, is_missing) for _, seed, is_missing in wanted] == [(2, True)] * len(wanted)
    assert {name for name, _, _ in wanted} == {"ipa", "share_5_percent"}


def test_a_killed_grid_can_be_told_by_its_process(tmp_path, monkeypatch):
    """Else the run that was killed keeps its place in the pool, and the next one waits for ever."""

    @dg.asset
    def something() -> None:
        pass

    monkeypatch.setattr("onerec_dagster.definitions.ASSETS", [something])
    monkeypatch.setattr("experiments.definitions.ASSETS", [])
    monkeypatch.setattr("onerec_dagster.definitions.RESOURCES", {})
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert materialize(instance, tmp_path / "log", ["something"], None) == []
        (run,) = instance.get_runs()
        assert LOCK_TAG in run.tags
