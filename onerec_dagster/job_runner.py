"""Jobs run on the instance from a command line, with their steps on the terminal."""

import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import dagster as dg
import psutil

from onerec.disk import DiskFullError, disk_named
from onerec_dagster.killed_runs import lock_of_this_process

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


class StepProgress:
    """Prints each step of a run as it ends, and collects when each began and ended."""

    def __init__(self, instance: dg.DagsterInstance, tag: tuple[str, str], terminal: IO) -> None:
        self.instance, self.tag, self.terminal = instance, tag, terminal
        self.spans: dict[str, tuple[float, float]] = {}

    def poll(self) -> None:
        runs = self.instance.get_runs(dg.RunsFilter(tags=dict([self.tag])), limit=1)
        for step in self.instance.get_run_step_stats(runs[0].run_id) if runs else ():
            if step.step_key in self.spans or step.end_time is None or step.start_time is None:
                continue
            self.spans[step.step_key] = (step.start_time, step.end_time)
            mark = "ok" if step.status and step.status.value == "SUCCESS" else "FAILED"
            line = f"  {mark:>6}  {step.end_time - step.start_time:6.1f} s  {step.step_key}"
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
    """Send what this process and its children print to a file; yields the terminal."""
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
    """End a command whose disk is full with one line, whoever met it: Dagster's SQLite too.

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


def run_job(
    instance: dg.DagsterInstance, job: str, tags: dict[str, str], log: Path
) -> dict[str, tuple[float, float]]:
    """Execute a job through the instance, so that it shows in the UI like any other run.

    Args:
        instance: Where the run is recorded.
        job: Name of a job of the code location.
        tags: Of the run; they choose its partitions.
        log: File for everything that is printed.

    Returns:
        When each step began and ended, in Unix seconds.

    Raises:
        SystemExit: The run failed; the failed steps and their errors are printed.
    """
    mine = ("onerec/command", uuid.uuid4().hex)
    with (
        lock_of_this_process(instance) as lock,
        output_to(log) as terminal,
        StepProgress(instance, mine, terminal).shown() as progress,
    ):
        result = dg.execute_job(
            dg.build_reconstructable_job(__name__, job_named.__name__, (job,)),
            instance=instance,
            run_config=QUIET,
            tags={**tags, mine[0]: mine[1], **lock},
        )
        with result:
            if result.success:
                return progress.spans
            failures = [
                (e.step_key, e.step_failure_data.error)
                for e in result.all_events
                if e.is_step_failure
            ]
    lines = [f"{job} failed; nothing of it was published half-done."]
    for step, error in failures:
        reason = (error.cause or error).message.strip() if error else "see the run's log"
        lines.append(f"  {step}: {reason}")
    lines.append(f"  everything that was logged: {log}")
    sys.exit("\n".join([*lines, "Fix the cause and run the command again: it starts over safely."]))
