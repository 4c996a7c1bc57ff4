"""`make tables`: which tables, where each runs, and what is not launched again."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import dagster as dg
import pytest
import yaml

from experiments import make_tables
from experiments.backfill_launcher import Launcher, cancel_unfinished, running_ui
from experiments.definitions import defs
from experiments.make_tables import (
    home_of,
    missing_partitions,
    night_is_current,
    process_environment,
    run_nights,
    take_files,
)
from experiments.nightly_artifacts import NEEDED
from experiments.table_specs import (
    KUAIRAND,
    KUAIRAND_NIGHTS,
    PAGE_ORDER,
    QUICK,
    SEEDED,
    SIMULATED,
    TABLES,
    chosen_tables,
    environment_of_seed,
    quick_table,
)
from experiments.variants import assets
from experiments.variants.grids import ALIGNED, PRETRAINED
from onerec.artifacts import ArtifactStore
from onerec.config import PRESETS
from onerec.datasets import DATASETS
from resources.settings import load_settings
from tests.experiments import published_night as small

ALIGNMENT = next(table for table in TABLES if table.name == "alignment")
CODES = {PRETRAINED: assets.CODE, ALIGNED: assets.CODE}


def test_tables_are_chosen_by_name_in_their_order():
    assert [t.name for t in chosen_tables(("alignment", "walk_forward"))] == [
        "walk_forward",
        "alignment",
    ]
    assert chosen_tables(()) == list(TABLES)
    with pytest.raises(ValueError, match="use names out of walk_forward"):
        chosen_tables(("alignments",))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_an_entry_names_assets_and_partitions_that_there_are(table):
    known = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    assert known[table.asset].partitions_def is None
    assert set(table.files) <= set(PAGE_ORDER)
    for wanted in (*table.variant_partitions(), *quick_table(table).variant_partitions()):
        assert known[wanted.asset].partitions_def.has_partition_key(wanted.dagster_key)
    for asset, keys in table.partitions.items():
        assert set(keys) <= set(known[asset].partitions_def.get_partition_keys())
    assert quick_table(table).environment == QUICK


def test_an_environment_has_a_home_and_settings_of_its_own(tmp_path: Path):
    given = {"ONEREC_DATA_DIR": str(tmp_path), "ONEREC_PRESET": "large"}
    found = load_settings(process_environment(KUAIRAND, tmp_path, given))
    assert found.home.parent == tmp_path / "runs"
    assert found.home.name.startswith("kuairand-")
    assert "cascade" in found.stages.evaluation.systems
    assert found.preset == "tiny"
    other = load_settings(process_environment(SIMULATED, tmp_path, given))
    assert other.stages.model == PRESETS["tiny"].model
    assert other.data_dir is None
    config = process_environment(QUICK, tmp_path, {})["ONEREC_CONFIG"]
    assert yaml.safe_load(Path(config).read_text())["simulator"]["initial_users"] == 260


def test_tables_do_not_reach_what_serves(tmp_path: Path):
    machine = {"ONEREC_THREADS": "3", "PATH": "/bin"}
    serving = {
        name: "production"
        for name in (
            *("ONEREC_SERVING_DIR", "ONEREC_WAREHOUSE", "ONEREC_POSTGRES_URL", "DAGSTER_HOME"),
            *("ONEREC_ALERT_WEBHOOK", "ONEREC_ALERT_EMAIL_TO", "ONEREC_TEST_DAY", "ONEREC_HOME"),
        )
    }
    found = process_environment(QUICK, tmp_path, machine | serving)
    assert machine.items() <= found.items()
    assert "production" not in found.values()


def test_a_run_is_not_awaited_when_the_ui_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with (
        dg.DagsterInstance.local_temp(str(tmp_path)) as instance,
        subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as ended,
    ):
        ended.wait()
        run = instance.create_run_for_job(dg.GraphDefinition(name="lost").to_job())
        launcher = Launcher(0, instance, ended)
        launched = {"launchRun": {"run": {"runId": run.run_id}}}
        monkeypatch.setattr(Launcher, "query", lambda self, *query, **variables: launched)
        with pytest.raises(RuntimeError, match=r"the Dagster UI ended \(exit status 3\)"):
            launcher.run_job("nowhere", "lost", {})


def test_an_environment_with_other_settings_has_another_home(tmp_path: Path):
    changed = replace(SIMULATED, settings={"stages": {"alignment": {"rounds": 2}}})
    homes = {
        home_of(SIMULATED, tmp_path, ""), home_of(changed, tmp_path, ""),
        home_of(KUAIRAND, tmp_path, "a"), home_of(KUAIRAND, tmp_path, "b"),
    }  # fmt: skip
    assert len(homes) == 4
    assert home_of(SIMULATED, tmp_path, "a") == home_of(SIMULATED, tmp_path, "b")


def test_a_changed_default_has_another_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = home_of(SIMULATED, tmp_path, "")
    changed = replace(DATASETS["simulated"], stages={"training": {"max_epochs": 3}})
    monkeypatch.setitem(DATASETS, "simulated", changed)
    assert home_of(SIMULATED, tmp_path, "") != before


def test_a_seed_has_a_home_of_its_own_and_moves_the_seed_of_every_stage_that_draws(tmp_path: Path):
    given = {"ONEREC_DATA_DIR": str(tmp_path)}
    first, second = (
        load_settings(process_environment(environment_of_seed(KUAIRAND_NIGHTS, n), tmp_path, given))
        for n in (0, 2)
    )
    assert environment_of_seed(KUAIRAND_NIGHTS, 0) == KUAIRAND_NIGHTS
    assert first.home != second.home
    changed = {
        f"{stage}.{name}": (value, asdict(second.stages)[stage][name])
        for stage, values in asdict(first.stages).items()
        for name, value in values.items()
        if value != asdict(second.stages)[stage][name]
    }
    assert changed.keys() == {f"{stage}.seed" for stage in SEEDED}
    assert all(after == before + 2 for before, after in changed.values())


def test_files_without_a_directory_are_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="make tables DATA_DIR="):
        process_environment(KUAIRAND, tmp_path, {})


def test_taking_a_tables_files_replaces_its_pictures_and_no_others(tmp_path: Path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for name in ("a.parquet", "a.md", "a-recall.svg", "b.parquet"):
        (source / name).write_text("new")
    for name in ("a-old.svg", "a_longer.parquet", "c.parquet"):
        (target / name).write_text("old")
    assert take_files(source, target, ["a", "missing"]) == ["a"]
    names = {file.name for file in target.iterdir()}
    assert names == {"a.parquet", "a.md", "a-recall.svg", "a_longer.parquet", "c.parquet"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return small.publish_night(tmp_path_factory.mktemp("artifacts"))


def test_a_night_is_current_if_all_of_it_was_made_by_the_present_code(store: ArtifactStore):
    held = store.latest("offline_metrics", small.DAY).manifest["config"]["baselines"]
    assert night_is_current(store, small.DAY, held, {"reward_model": "1"})
    assert not night_is_current(store, small.DAY, held, {"reward_model": "2"})
    assert not night_is_current(store, small.DAY, "popularity", {})
    assert not night_is_current(store, "2026-06-01", held, {})


class Launches:
    """A UI that only notes what is launched."""

    url = "nowhere"

    def __init__(self) -> None:
        self.jobs: list[tuple[str, dict[str, str]]] = []
        self.assets: list[tuple[str, ...]] = []
        self.configs: list[dict] = []

    def code_versions(self) -> dict[str, str]:
        return {}

    def upstream_of(self, names: Sequence[str], job: str) -> list[str]:
        return [*names, job]

    def run_job(
        self, location: str, job: str, tags: dict[str, str], assets=(), config=None
    ) -> bool:
        self.assets.append(tuple(assets))
        self.jobs.append((job, {key.removeprefix("dagster/"): tags[key] for key in tags}))
        self.configs += [config] if config else []
        return job != "ingest" or "asset_partition_range_end" in str(self.jobs[-1])


def test_nights_run_one_after_the_other_and_days_between_are_ingested(tmp_path: Path):
    ui, settings = Launches(), load_settings(process_environment(QUICK, tmp_path, {}))
    nights = ["2026-06-05", "2026-06-06", "2026-06-08"]
    run_nights(ui, nights, settings, ArtifactStore(str(tmp_path / "none")))  # pyright: ignore
    spans = [
        {f"asset_partition_range_{end}": day for end, day in (("start", first), ("end", last))}
        for first, last in (("2026-06-01", "2026-06-04"), ("2026-06-07", "2026-06-07"))
    ]
    assert ui.jobs == [
        ("ingest", spans[0]),
        ("weekly_retokenize", {"partition": "2026-06-05"}),
        ("nightly", {"partition": "2026-06-06"}),
        ("ingest", spans[1]),
        ("nightly", {"partition": "2026-06-08"}),
    ]
    wanted = [() if job == "ingest" else (*NEEDED, job) for job, _ in ui.jobs]
    assert ui.assets == wanted


def test_nights_of_every_seed_have_their_own_store_and_are_pooled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    launched: list[tuple[str, Launches]] = []

    @contextmanager
    def noted(environ: dict[str, str], directory: Path) -> Iterator[Launches]:
        launched.append((environ["ONEREC_ARTIFACTS"], Launches()))
        yield launched[-1][1]

    monkeypatch.setattr(make_tables, "running_ui", noted)
    walk = quick_table(next(table for table in TABLES if table.name == "walk_forward"))
    make_tables.make_result_table(replace(walk, seeds=(0, 2)), tmp_path)
    (other, by_other), (_, by_first) = launched
    days = [{"partition": day} for day in QUICK.test_days]
    for ui in (by_other, by_first):
        assert [tags for job, tags in ui.jobs if job in ("weekly_retokenize", "nightly")] == days
    config = {"walk_forward_table": {"config": {"other_seeds": [other]}}}
    assert by_first.jobs[-1] == ("__ASSET_JOB", {})
    assert by_first.configs == [{"ops": config}]
    assert not by_other.configs

    launched.clear()
    make_tables.make_result_table(replace(walk, seeds=(0,)), tmp_path)
    assert [ui.configs for _, ui in launched] == [[]]


def test_only_what_is_missing_is_launched(store: ArtifactStore):
    table = quick_table(ALIGNMENT)
    assert missing_partitions(table, store, CODES) == {
        PRETRAINED: ["0|default", "1|default"],
        ALIGNED: ["0|ipa", "0|grpo", "1|ipa", "1|grpo"],
    }


@pytest.mark.slow
def test_a_backfill_runs_partitions_after_their_starts_and_is_not_repeated(tmp_path: Path):
    """On the real queue and daemon; the artifacts are those of a small published night."""
    environ = process_environment(QUICK, tmp_path, {**os.environ, "OMP_NUM_THREADS": "1"})
    settings = load_settings(environ)
    store = small.publish_night(Path(environ["ONEREC_ARTIFACTS"]))
    table = quick_table(ALIGNMENT)
    with running_ui(environ, settings.home) as ui:
        codes = ui.code_versions()
        assert codes[ALIGNED] == assets.CODE
        wanted = {PRETRAINED: ["0|default"], ALIGNED: ["0|ipa"]}
        with pytest.raises(ValueError, match="another make tables works on it"):
            with running_ui(environ, settings.home):
                pass
        ui.backfill(wanted)
        assert missing_partitions(table, store, codes) == {
            PRETRAINED: ["1|default"],
            ALIGNED: ["0|grpo", "1|ipa", "1|grpo"],
        }
        assert ui.run_job("experiments.definitions", "__ASSET_JOB", {}, [table.asset])
    assert take_files(settings.tables_dir, tmp_path, table.files) == ["alignment_simulated"]


def test_what_a_killed_command_left_unfinished_is_cancelled(tmp_path: Path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        job = dg.GraphDefinition(name="killed").to_job()
        left = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        ended = instance.create_run_for_job(job, status=dg.DagsterRunStatus.SUCCESS)
        cancel_unfinished(instance)
        found = {run.run_id: run.status for run in instance.get_runs()}
    assert found == {
        left.run_id: dg.DagsterRunStatus.CANCELED,
        ended.run_id: dg.DagsterRunStatus.SUCCESS,
    }
