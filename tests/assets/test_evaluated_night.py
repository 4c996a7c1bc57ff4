"""Baselines to recommendations as Dagster runs them, from small artifacts of the stages before."""

import dataclasses
import shutil
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets import evaluation, report, user_examples
from onerec.artifacts import ArtifactStore, read_json
from onerec.evaluation.example_page import without_ids
from resources.warehouse import Warehouse
from tests.assets.small_night import ASSETS, CHECKS, DAY, RUN, publish, resources
from tests.core.evaluation import night as small


def test_the_night_ends_and_its_checks_pass(night_result: dg.ExecuteInProcessResult) -> None:
    assert night_result.success
    passed = {e.check_name: e.passed for e in night_result.get_asset_check_evaluations()}
    # Untrained generators do not beat a simple system, which is a warning.
    assert passed.pop("beats_best_simple_system") is False
    assert set(passed) == {
        "every_id_is_legal",
        "sessions_are_repeat_free",
        "every_active_user_is_served",
        "no_item_is_repeated",
        "every_item_is_in_the_catalogue",
        "made_by_its_own_nightly_run",
    }
    assert all(passed.values())


def test_a_test_day_without_users_publishes_recommendations_and_skips_the_metrics(
    night_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SETTINGS", dataclasses.replace(report.SETTINGS, home=tmp_path))
    shutil.copytree(night_home, tmp_path, dirs_exist_ok=True)
    store = ArtifactStore(str(tmp_path / "artifacts"))
    rows = [row for row in small.rows() if row["split"] != "test"]
    publish(store, "session_dataset", lambda d: small.write_sessions(d, rows))
    with dg.DagsterInstance.ephemeral() as instance:
        night = dg.materialize(
            [*ASSETS, report.nightly_report, *CHECKS],
            partition_key=DAY,
            resources=resources(tmp_path),
            run_config=RUN,
            instance=instance,
        )
    assert night.success
    assert "refused" in (tmp_path / "report" / "report.html").read_text()
    evaluations = {e.check_name: e for e in night.get_asset_check_evaluations()}
    assert all(e.passed for e in evaluations.values())
    assert evaluations["every_id_is_legal"].description == evaluation.SKIPPED
    shown = night.asset_materializations_for_node("offline_metrics")[0].metadata
    assert shown["metrics"].value == evaluation.SKIPPED
    decision = read_json(store.latest("champion", DAY).path / "champion.json")
    assert not decision["promoted"]
    assert "nobody watched" in decision["reasons"][0]
    served = pq.read_table(store.latest("recommendations", DAY).path / "recommendations.parquet")
    assert set(served["user_id"].to_pylist()) == {row["user_id"] for row in rows}


def test_ids_of_example_users_stand_in_their_file_and_in_no_event(
    night_result: dg.ExecuteInProcessResult, night_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = pa.table({"item_id": pa.array([], pa.string()), "title": pa.array([], pa.string())})
    monkeypatch.setattr(Warehouse, "catalogue", lambda self, day: titles)
    with dg.DagsterInstance.ephemeral() as instance:
        made = dg.materialize(
            [user_examples.user_examples],
            partition_key=DAY,
            resources=resources(night_home),
            instance=instance,
        )
    (event,) = made.asset_materializations_for_node("user_examples")
    file = ArtifactStore(str(night_home / "artifacts")).latest("user_examples", DAY).path
    page = (file / "user_examples.md").read_text()
    users = {row["user_id"] for row in small.rows()}
    shown = {line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")}
    assert shown
    assert shown <= users
    assert event.metadata["users"].value == without_ids(page)
    assert night_result.success
