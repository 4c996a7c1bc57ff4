"""A killed run is found and gives its slot in a pool back; a living one is left alone."""

import multiprocessing
import os
import signal
from pathlib import Path

import dagster as dg
import pytest

from onerec_dagster.definitions import defs
from onerec_dagster.killed_runs import (
    LOCK_TAG,
    _is_locked,
    fail_killed_runs,
    killed_runs,
    lock_of_this_process,
    with_lock,
)
from tests.other_user import without_rights

POOL = "warehouse"


@pytest.fixture
def instance(tmp_path: Path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        made.event_log_storage.set_concurrency_slots(POOL, 1)
        yield made


def run_holding_the_pool(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, tags: dict[str, str]
) -> str:
    run = dg.DagsterRun(job_name="night", status=status, tags=tags)
    instance.add_run(run)
    claimed = instance.event_log_storage.claim_concurrency_slot(POOL, run.run_id, "raw_items")
    assert claimed.is_claimed
    return run.run_id


def slots_taken(instance: dg.DagsterInstance) -> int:
    return len(instance.event_log_storage.get_concurrency_info(POOL).claimed_slots)


def work_until_killed(home: str, ready) -> None:
    """Hold the lock of a run, as the process of a command does."""
    with dg.DagsterInstance.local_temp(home) as instance, lock_of_this_process(instance) as tags:
        ready.send(tags)
        signal.pause()


def test_a_run_is_alive_until_its_process_is_killed(instance, tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    ready, send = context.Pipe(duplex=False)
    process = context.Process(target=work_until_killed, args=(str(tmp_path), send))
    process.start()
    try:
        tags = ready.recv()
        run_id = run_holding_the_pool(instance, dg.DagsterRunStatus.STARTED, tags)
        assert fail_killed_runs(instance) == 0
        assert slots_taken(instance) == 1
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert fail_killed_runs(instance) == 1
    assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.FAILURE
    assert slots_taken(instance) == 0
    assert not list((tmp_path / "locks").iterdir())
    assert fail_killed_runs(instance) == 0


def test_a_run_of_this_process_is_alive(instance):
    with lock_of_this_process(instance) as tags:
        run_holding_the_pool(instance, dg.DagsterRunStatus.STARTED, tags)
        assert fail_killed_runs(instance) == 0
    assert fail_killed_runs(instance) == 1


def test_a_run_that_was_stopped_inside_a_step_gives_its_slot_back(instance):
    run_holding_the_pool(instance, dg.DagsterRunStatus.FAILURE, {})
    assert slots_taken(instance) == 1
    assert fail_killed_runs(instance) == 0
    assert slots_taken(instance) == 0


def test_a_run_that_others_started_is_left_alone(instance):
    run_holding_the_pool(instance, dg.DagsterRunStatus.STARTED, {})
    assert fail_killed_runs(instance) == 0
    assert slots_taken(instance) == 1


def test_a_tag_names_no_file_elsewhere(instance, tmp_path: Path):
    mine = tmp_path / "precious"
    mine.write_text("kept")
    tags = {LOCK_TAG: "../precious"}
    run_holding_the_pool(instance, dg.DagsterRunStatus.STARTED, tags)
    assert fail_killed_runs(instance) == 1
    assert mine.read_text() == "kept"


def test_a_run_of_another_user_is_left_alone(instance, tmp_path: Path):
    with lock_of_this_process(instance) as tags:
        run_holding_the_pool(instance, dg.DagsterRunStatus.STARTED, tags)
        lock = tmp_path / "locks" / tags[LOCK_TAG]
        with without_rights(lock):
            assert _is_locked(lock)
        assert fail_killed_runs(instance) == 0


def test_another_process_with_the_id_of_the_killed_one_does_not_keep_its_run_alive(instance):
    """Of a killed run its lock file is left, and the lock is gone, whoever has the process id."""
    with lock_of_this_process(instance) as tags:
        pass
    (Path(instance.root_directory) / "locks" / tags[LOCK_TAG]).write_text(str(os.getpid()))
    run_holding_the_pool(instance, dg.DagsterRunStatus.STARTED, tags)
    assert fail_killed_runs(instance) == 1


WAITS = "waits"
"""File that shows that the step of `launched` works."""


@dg.op
def wait_for_the_end(context: dg.OpExecutionContext) -> None:
    (Path(context.instance.root_directory) / WAITS).touch()
    signal.pause()


@dg.job(executor_def=with_lock(dg.in_process_executor))
def launched() -> None:
    wait_for_the_end()


def run_launched(home: str) -> None:
    """A run as the daemon launches it: no command holds a lock for it."""
    with dg.DagsterInstance.local_temp(home) as instance:
        dg.execute_job(dg.reconstructable(launched), instance=instance)


def test_a_run_of_the_daemon_is_alive_until_its_process_is_killed(instance, tmp_path: Path):
    process = multiprocessing.get_context("spawn").Process(
        target=run_launched, args=(str(tmp_path),)
    )
    process.start()
    try:
        while not (tmp_path / WAITS).exists():
            process.join(0.1)
            assert process.is_alive()
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.STARTED
        context = dg.build_sensor_context(instance)
        assert killed_runs(context).skip_message == "0 runs had been killed"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert killed_runs(context).skip_message == "1 runs had been killed"
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE


def test_a_run_that_repeats_a_killed_one_does_not_count_by_the_copied_tag(instance):
    tags = {LOCK_TAG: "gone.lock"}
    run_id = run_holding_the_pool(instance, dg.DagsterRunStatus.FAILURE, tags)
    again = dg.DagsterRun(
        job_name="night",
        status=dg.DagsterRunStatus.STARTED,
        tags={**tags, "dagster/parent_run_id": run_id, "dagster/root_run_id": run_id},
        parent_run_id=run_id,
        root_run_id=run_id,
    )
    instance.add_run(again)
    assert fail_killed_runs(instance) == 0


def test_a_run_that_ends_meanwhile_was_not_killed(instance, monkeypatch: pytest.MonkeyPatch):
    run_id = run_holding_the_pool(instance, dg.DagsterRunStatus.STARTED, {LOCK_TAG: "a.lock"})

    def ends(path: Path) -> bool:
        instance.report_dagster_event(
            dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, "night"), run_id
        )
        return _is_locked(path)

    monkeypatch.setattr("onerec_dagster.killed_runs._is_locked", ends)
    assert fail_killed_runs(instance) == 0
    assert instance.get_run_by_id(run_id).status == dg.DagsterRunStatus.SUCCESS


@pytest.mark.parametrize("job", ["ingest", "nightly", "weekly_retokenize", "serve_degraded"])
def test_every_run_of_a_day_holds_a_lock(job: str):
    create = defs.resolve_job_def(job).executor_def.executor_creation_fn
    assert create.__qualname__.startswith(with_lock.__name__)
