"""Jobs run on the instance from a command line, with their steps on the terminal."""

import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import dagster as dg
import psutil

from onerec.disk import DiskFullError, disk_named
from onerec_dagster.degraded import degraded_run
from onerec_dagster.killed_runs import lock_of_this_process
from onerec_dagster.run_findings import run_findings

RESUMED = ("ingest", "nightly", "weekly_retokenize")
"""Jobs whose failed run `resume` goes on with."""
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class PeakMemory:
    """Resident memory of this process and all its children together, sampled.

    Attributes:
        samples: Unix seconds and GiB.
    """

    samples: list[tuple[float, float]] = field(default_factory=list)

    @property
    def gib(self) -> float:
        """The largest sample."""
        return max((gib for _, gib in self.samples), default=0.0)

    def between(self, start: float, end: float, *, slack: float = 2.0) -> float:
        """The largest sample from `start` to `end`, in GiB; a short step may have none: 0."""
        return max((gib for at, gib in self.samples if start <= at <= end + slack), default=0.0)

    @contextmanager
    def sampled(self, every_seconds: float = 2.0) -> Iterator["PeakMemory"]:
        stop = threading.Event()
        me = psutil.Process()

        def sample() -> None:
            while not stop.wait(every_seconds):
                total = 0
                for process in [me, *me.children(recursive=True)]:
                    try:
                        memory = process.memory_full_info()
                        # pss shares pages among the forked steps that share them
                        total += getattr(memory, "pss", memory.rss)
                    except psutil.Error:
                        continue
                self.samples.append((time.time(), total / 2**30))

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()


PROGRESS_SECONDS = 10.0
"""A step's own messages are shown at most this often."""
LONGEST_MESSAGE = 160
LARGEST_LOG_BYTES = 2**25
REQUEST_ID = "onerec/request"
"""Tag of a run that a command of this package made."""
NOT_EXECUTED = "Dependencies for step"
"""How Dagster's line of a step begins that an earlier failure left out."""


class StepProgress:
    """Prints the progress of long steps and a line when a step ends; records when each began and
    ended.

    Attributes:
        spans: When each step that ended began and ended, in Unix seconds.
    """

    def __init__(self, instance: dg.DagsterInstance, request: "RunRequest", terminal: IO) -> None:
        self.instance, self.request, self.terminal = instance, request, terminal
        self.spans: dict[str, tuple[float, float]] = {}
        self.cursor: str | None = None
        self.shown_at: dict[str, float] = {}

    def poll(self) -> None:
        run = self.request.run_of(self.instance)
        if run is None:
            return
        run_id = run.run_id
        self._show_messages(run_id)
        for step in self.instance.get_run_step_stats(run_id):
            if step.step_key in self.spans or step.end_time is None or step.start_time is None:
                continue
            self.spans[step.step_key] = (step.start_time, step.end_time)
            mark = "ok" if step.status and step.status.value == "SUCCESS" else "FAILED"
            line = f"  {mark:>6}  {step.end_time - step.start_time:6.1f} s  {step.step_key}"
            print(line, file=self.terminal, flush=True)

    def _show_messages(self, run_id: str) -> None:
        """The newest message of each step, unless one was shown just before."""
        found = self.instance.get_records_for_run(run_id, self.cursor)
        self.cursor = found.cursor
        newest = {
            entry.step_key: entry.user_message
            for entry in (record.event_log_entry for record in found.records)
            if entry.step_key and not entry.is_dagster_event and int(entry.level) >= logging.INFO
        }
        for step, message in newest.items():
            if message.startswith(NOT_EXECUTED):
                continue
            if time.monotonic() - self.shown_at.get(step, -PROGRESS_SECONDS) < PROGRESS_SECONDS:
                continue
            self.shown_at[step] = time.monotonic()
            line = f"     ...            {step}: {' '.join(message.split())[:LONGEST_MESSAGE]}"
            print(line, file=self.terminal, flush=True)

    @contextmanager
    def shown(self) -> Iterator["StepProgress"]:
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(1.0):
                self.poll()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()
            self.poll()


@contextmanager
def output_to(log: Path) -> Iterator[IO]:
    """Send what this process and its children print to a file; yields the terminal.

    A file that has grown large becomes `<name>.1`, in the place of the one before.
    """
    if log.exists() and log.stat().st_size > LARGEST_LOG_BYTES:
        os.replace(log, log.with_name(f"{log.name}.1"))
    sys.stdout.flush()
    sys.stderr.flush()
    terminals = [os.dup(1), os.dup(2)]
    with log.open("ab") as file, os.fdopen(os.dup(1), "w") as terminal:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            yield terminal
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, saved in enumerate(terminals, start=1):
                os.dup2(saved, fd)
                os.close(saved)


@contextmanager
def full_disk_in_one_line(command: str, path: Path) -> Iterator[None]:
    """End a command with one line when the disk is full, also where Dagster's SQLite finds it full.

    Raises:
        SystemExit: The disk of `path` is full.
    """
    try:
        with disk_named(path, "the state of the run"):
            yield
    except DiskFullError as error:
        sys.exit(f"{command}: {error}")


def job_named(name: str) -> dg.JobDefinition:
    """A job of the code location, from whichever process."""
    from onerec_dagster.definitions import defs

    return defs.resolve_job_def(name)


class RunFailedError(SystemExit):
    """A run failed: uncaught, it ends the command with the reasons.

    Attributes:
        run_id: The run.
    """

    def __init__(self, run_id: str, message: str) -> None:
        super().__init__(message)
        self.run_id = run_id


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A run to make.

    Attributes:
        job: Name of a job of the code location.
        tags: Of the run; they choose its partitions.
        config: Its configuration.
        continues: A failed run of the same job: what it made is not made again.
        id: Tag of the run, by which it is found.
    """

    job: str
    tags: Mapping[str, str]
    config: Mapping[str, Any] = field(default_factory=dict)
    continues: str | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def run_of(self, instance: dg.DagsterInstance) -> dg.DagsterRun | None:
        """Its run; None as long as it is not created."""
        runs = instance.get_runs(dg.RunsFilter(tags={REQUEST_ID: self.id}), limit=1)
        return runs[0] if runs else None

    def by(self, person: str) -> "RunRequest":
        """The same, tagged with the user who started it."""
        return replace(self, tags={**self.tags, "onerec/by": person})

    @staticmethod
    def of_day(job: str, day: str, config: Mapping[str, Any] | None = None) -> "RunRequest":
        """A run of one partition."""
        return RunRequest(job=job, tags={"dagster/partition": day}, config=config or {})

    @staticmethod
    def of_days(job: str, first: str, last: str) -> "RunRequest":
        """One run of a range of partitions."""
        ends = {"start": first, "end": last}
        tags = {f"dagster/asset_partition_range_{end}": day for end, day in ends.items()}
        return RunRequest(job=job, tags=tags)


def run_job(
    instance: dg.DagsterInstance, request: RunRequest, log: Path
) -> dict[str, tuple[float, float]]:
    """Execute a job through the instance, so that it shows in the UI like any other run.

    Args:
        instance: Where the run is recorded.
        request: What to run.
        log: File for everything that is printed.

    Returns:
        When each step began and ended, in Unix seconds.

    Raises:
        RunFailedError: The run failed; its message holds failed checks with their findings, failed
            steps with their errors, and what to do.
    """
    options = None
    if request.continues is not None:
        options = dg.ReexecutionOptions.from_failure(request.continues, instance)
    with (
        lock_of_this_process(instance) as lock,
        output_to(log) as terminal,
        StepProgress(instance, request, terminal).shown() as progress,
    ):
        result = dg.execute_job(
            dg.build_reconstructable_job(__name__, job_named.__name__, (request.job,)),
            instance=instance,
            run_config={**QUIET, **request.config},
            tags={**request.tags, REQUEST_ID: request.id, **lock},
            reexecution_options=options,
        )
        with result:
            if result.success:
                return progress.spans
            run_id = result.run_id
    raise RunFailedError(run_id, end_of_log(instance, request.job, run_id, log))


def logged(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """What the steps of a run logged themselves, in order."""
    return [
        entry.user_message
        for entry in instance.all_logs(run_id)
        if entry.step_key and not entry.is_dagster_event and int(entry.level) >= logging.INFO
    ]


def end_of_log(instance: dg.DagsterInstance, job: str, run_id: str, log: Path) -> str:
    """Why a run failed and how to go on, for a terminal."""
    return "\n".join(
        [
            f"{job} failed{'; nothing of it was published half-done' if job in RESUMED else ''}.",
            *run_findings(instance, run_id).lines(),
            f"  everything that was logged: {log}",
            *how_to_go_on(job, run_id),
        ]
    )


def how_to_go_on(job: str, run_id: str) -> list[str]:
    """The command to go on with."""
    if job not in RESUMED:
        return ["Fix the cause, then run it again."]
    return [
        "Fix the cause, then go on from where it failed:",
        f"  python -m onerec_dagster resume {run_id}",
    ]


def run_night(
    instance: dg.DagsterInstance, request: RunRequest, serving: Path, log: Path
) -> dict[str, tuple[float, float]]:
    """`run_job` of a nightly run; if it fails, its day gets degraded recommendations.

    Args:
        instance: Where runs are recorded.
        request: What to run.
        serving: The directory that consumers read.
        log: File for everything that is printed.

    Raises:
        RunFailedError: The nightly run failed, whether or not its day could be served.
    """
    try:
        return run_job(instance, request, log)
    except RunFailedError as failed:
        run = instance.get_run_by_id(failed.run_id)
        makeup = None if run is None else degraded_run(instance, run, serving)
        if makeup is None:
            raise
        day, config = makeup
        try:
            run_job(instance, RunRequest.of_day("serve_degraded", day, config), log)
            served = "the last champion serves in its place (recommendations are marked degraded)"
        except RunFailedError as unserved:
            served = f"nothing serves in its place: {unserved}"
        raise RunFailedError(failed.run_id, f"{failed}\n{day}: {served}") from None
