"""Runs whose process was killed: found by a lock file, reported as failed, their pools freed."""

import atexit
import fcntl
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

LOCK_TAG = "onerec/lock"
"""Tag of a run: the name of the file that its process holds locked."""
_HELD = ExitStack()
"""Locks that this process holds until it ends."""
atexit.register(_HELD.close)


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
            path.unlink(missing_ok=True)


class _LockingExecutor(dg.Executor):
    """Works as another executor does, and holds a lock file until the process of the run ends."""

    def __init__(self, inner: dg.Executor) -> None:
        self.inner = inner

    @property
    def retries(self) -> Any:
        return self.inner.retries

    @property
    def step_dependency_config(self) -> Any:
        return self.inner.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        instance, run_id = plan_context.instance, plan_context.run_id
        # not released with the last step: the run counts as started until its end is recorded
        instance.add_run_tags(run_id, _HELD.enter_context(lock_of_this_process(instance)))
        yield from self.inner.execute(plan_context, execution_plan)


def with_lock(executor: dg.ExecutorDefinition) -> dg.ExecutorDefinition:
    """An executor for runs whose death is to be noticed, whoever launched them.

    Dagster's own launcher cannot tell whether the process of a run still exists.
    """
    create = executor.executor_creation_fn
    assert create is not None, executor.name
    return dg.ExecutorDefinition(
        name=executor.name,
        config_schema=executor.config_schema,  # type: ignore[arg-type]
        requirements=executor.get_requirements,
        executor_creation_fn=lambda context: _LockingExecutor(create(context)),
        description=executor.description,
    )


def fail_killed_runs(instance: dg.DagsterInstance) -> int:
    """Report runs that were killed as failed, and free the pools they hold.

    A killed run cannot report its end. While it counts as running it keeps its slot in a pool and
    in the queue, and the next run would wait for them for ever.

    Returns:
        Number of runs.
    """
    running = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
    killed = [run for run in instance.get_runs(running) if _was_killed(instance, run)]
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


def _was_killed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether its process is gone without its end: that is recorded before the lock goes."""
    if not _has_own_lock(instance, run) or _is_locked(_lock_file(instance, run.tags[LOCK_TAG])):
        return False
    now = instance.get_run_by_id(run.run_id)
    return now is not None and not now.is_finished


def _has_own_lock(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the tag is the run's own: one that repeats another begins with a copy of its tags."""
    parent = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    copied = parent.tags.get(LOCK_TAG) if parent else None
    return run.tags.get(LOCK_TAG) not in (None, copied)


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


@dg.sensor(
    name="killed_runs",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports runs as failed whose process was killed, by a restart of the machine say: "
    "their slots are free again, and their day gets served.",
)
def killed_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Report killed runs."""
    return dg.SkipReason(f"{fail_killed_runs(context.instance)} runs had been killed")
