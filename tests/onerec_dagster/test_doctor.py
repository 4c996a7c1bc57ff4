"""The doctor names each problem with its remedy, and examines the rest nevertheless."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from onerec.artifacts import write_json
from onerec.schema import RECOMMENDATIONS
from onerec.serving.current import BUNDLE, CURRENT, PUBLISH_AGAIN, SERVED, TABLE
from onerec_dagster import doctor
from onerec_dagster.doctor import Diagnosis, examine
from onerec_dagster.nights import TERMINATE
from resources.settings import Settings, load_settings
from tests.damaged_warehouse import write_damaged

DAY, DAY_BEFORE = "2026-06-15", "2026-06-14"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"ONEREC_HOME": str(tmp_path)})


@pytest.fixture
def instance(tmp_path: Path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


def found(settings: Settings, instance: dg.DagsterInstance) -> dict[str, Diagnosis]:
    """What is found, by the first word of each subject."""
    return {one.subject.split()[0].strip(":"): one for one in examine(settings, instance)}


def test_a_damaged_warehouse_is_one_problem_among_others(settings, instance) -> None:
    settings.warehouse_path.parent.mkdir(parents=True)
    write_damaged(settings.warehouse_path)
    all_found = found(settings, instance)
    assert "cannot be read: Corrupt database file" in all_found["warehouse"].problem
    assert "move it away" in all_found["warehouse"].problem
    assert not all_found["disk"].problem


def test_recommendations_that_are_stored_and_not_served_are_named(settings, instance) -> None:
    store = settings.artifact_store()
    for day in (DAY_BEFORE, DAY):
        with store.write("recommendations", day, config={}, upstream={}, code_version="1"):
            pass
    current = settings.serving_dir / CURRENT
    (current / BUNDLE).mkdir(parents=True)
    pq.write_table(RECOMMENDATIONS.empty_table(), current / TABLE)
    facts = {"day": DAY_BEFORE, "serve_date": DAY, "version": "v", "model_version": "m"}
    write_json(current / SERVED, facts | {"degraded": None})
    problem = f"recommendations of {DAY} are there and not current: {PUBLISH_AGAIN}"
    assert found(settings, instance)["what"].problem == problem


def test_a_run_that_does_not_end_is_named(
    settings, instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dg.DagsterRun(job_name="nightly", status=dg.DagsterRunStatus.STARTED)
    instance.add_run(run)
    assert not found(settings, instance)["runs"].problem
    monkeypatch.setattr(doctor, "LONG_RUN", timedelta(0))
    problem = found(settings, instance)["runs"].problem
    assert run.run_id in problem
    assert TERMINATE in problem
