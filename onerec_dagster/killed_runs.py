"""Runs whose process was killed: found by a lock file, reported as failed, their pools freed."""

import fcntl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

LOCK_TAG = "onerec/lock"
"""Tag of a run: the name of the file that its process holds locked."""


@contextmanager
def lock_of_this_process(instance: dg.DagsterInstance) -> Iterator[dict[str, str]]:
    """Hold a lock file as long as this process works; yields the tag for its runs.

    The kernel releases the lock however the process ends. Process ids and host names would not do:
    in a container both come back.
    """
    name = f"{uuid.uuid4().hex}.lock"
    path = _lock_file(instance, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield {LOCK_TAG: name}
        finally:
            path.unlink()


def fail_killed_runs(instance: dg.DagsterInstance) -> int:
    """Report runs of commands that were killed as failed, and free the pools they hold.

    A killed run cannot report its end. While it counts as running it keeps its slot in a pool, and
    the next run would wait for that pool for ever.

    Returns:
        Number of runs.
    """
    running = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
    killed = [
        run
        for run in instance.get_runs(running)
        if LOCK_TAG in run.tags and not _is_locked(_lock_file(instance, run.tags[LOCK_TAG]))
    ]
    for run in killed:
        instance.report_run_failed(run, "the process that ran it was killed")
        _lock_file(instance, run.tags[LOCK_TAG]).unlink(missing_ok=True)
    _free_pools_of_ended_runs(instance)
    return len(killed)


def _free_pools_of_ended_runs(instance: dg.DagsterInstance) -> None:
    """A run that was stopped in the middle of a step may have ended and still hold its slot."""
    storage = instance.event_log_storage
    pools = [storage.get_concurrency_info(pool) for pool in storage.get_concurrency_keys()]
    steps = [step for pool in pools for step in (*pool.claimed_slots, *pool.pending_steps)]
    for run_id in {step.run_id for step in steps}:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            storage.free_concurrency_slots_for_run(run_id)


def _lock_file(instance: dg.DagsterInstance, name: str) -> Path:
    # a tag can be edited in the UI: only its last part names a file
    return Path(instance.root_directory) / "locks" / Path(name).name


def _is_locked(path: Path) -> bool:
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except (BlockingIOError, PermissionError):  # the lock of another user's process may be held
        return True
    return False
