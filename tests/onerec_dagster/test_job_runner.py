"""What a killed or stopped run held is given back."""

from pathlib import Path

import dagster as dg
import pytest

from onerec_dagster.job_runner import PROCESS_TAG, bury_killed_runs

POOL = "warehouse"


@pytest.fixture
def instance(tmp_path: Path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        made.event_log_storage.set_concurrency_slots(POOL, 1)
        yield made


def run_holding(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, pid: int) -> str:
    run = dg.DagsterRun(job_name="night", status=status, tags={PROCESS_TAG: str(pid)})
    instance.add_run(run)
    claimed = instance.event_log_storage.claim_concurrency_slot(POOL, run.run_id, "raw_items")
    assert claimed.is_claimed
    return run.run_id


def places_taken(instance: dg.DagsterInstance) -> int:
    return len(instance.event_log_storage.get_concurrency_info(POOL).claimed_slots)


def test_a_run_whose_process_is_gone_has_failed_and_gives_its_place_back(instance):
    nobody = 2**22 + 1  # above the largest process id
    run_id = run_holding(instance, dg.DagsterRunStatus.STARTED, nobody)
    assert bury_killed_runs(instance) == 1
    assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.FAILURE
    assert places_taken(instance) == 0


def test_a_run_that_was_stopped_inside_a_step_gives_its_place_back(instance):
    run_holding(instance, dg.DagsterRunStatus.FAILURE, 1)
    assert places_taken(instance) == 1
    assert bury_killed_runs(instance) == 0
    assert places_taken(instance) == 0


def test_a_run_that_others_started_is_left_alone(instance):
    run = dg.DagsterRun(job_name="night", status=dg.DagsterRunStatus.STARTED)
    instance.add_run(run)
    instance.event_log_storage.claim_concurrency_slot(POOL, run.run_id, "raw_items")
    assert bury_killed_runs(instance) == 0
    assert places_taken(instance) == 1
