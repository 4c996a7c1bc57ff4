"""Deleted runs leave nothing behind: the state grows with what is kept."""

import sqlite3
from contextlib import closing
from pathlib import Path

import dagster as dg
import yaml

from onerec_dagster.delete_runs import delete_runs
from resources.settings import CHECKOUT


@dg.asset
def made() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"text": "x" * 10_000})


@dg.asset_check(asset=made)
def is_right() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True, metadata={"text": "x" * 10_000})


def run_of(instance: dg.DagsterInstance) -> str:
    return dg.materialize([made, is_right], instance=instance).run_id


def test_a_deleted_run_leaves_no_results_no_file_and_no_free_pages(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        kept, *gone = [run_of(instance) for _ in range(4)]
        delete_runs(instance, gone)
        directory = tmp_path / "history" / "runs"
        assert {file.stem for file in directory.glob("*.db")} == {"index", kept}
        with closing(sqlite3.connect(directory / "index.db")) as database:
            query = "select distinct run_id from asset_check_executions"
            assert database.execute(query).fetchall() == [(kept,)]
            assert database.execute("pragma freelist_count").fetchone() == (0,)
        assert instance.get_latest_materialization_event(dg.AssetKey("made")) is not None
        again = run_of(instance)
        assert {run.run_id for run in instance.get_runs()} == {kept, again}


def test_results_of_runs_deleted_in_the_ui_go_too(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.delete_run(run_of(instance))
        delete_runs(instance, [])
        with closing(sqlite3.connect(tmp_path / "history" / "runs" / "index.db")) as database:
            assert database.execute("select * from asset_check_executions").fetchall() == []


def test_the_output_of_runs_goes_wherever_it_is_kept(tmp_path: Path) -> None:
    logs = tmp_path / "logs"  # not in the storage directory: so in a deployment
    manager = yaml.safe_load((CHECKOUT / "deploy" / "dagster.yaml").read_text())["compute_logs"]
    overrides = {"compute_logs": manager | {"config": {"base_dir": str(logs)}}}
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home"), overrides) as instance:
        kept, gone = run_of(instance), run_of(instance)
        assert {path.name for path in logs.iterdir()} == {kept, gone}
        delete_runs(instance, [gone])
        assert {path.name for path in logs.iterdir()} == {kept}
