"""`make demo`: one whole night on one command, then a table and where to look.

Two Dagster runs, the same a team has in production: `ingest` over the days before, then
`weekly_retokenize` (the night run that opens a tokenizer generation) for the last day.
"""

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import IO

import dagster as dg
import psutil

from onerec.artifacts import ArtifactStore, read_json
from onerec_dagster.home import prepare_home
from resources.settings import Settings, load_settings

DEMO_DAYS = 14
PROCESS_TAG = "onerec/process"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def demo_days(settings: Settings) -> tuple[date, date]:
    """First and last day of the demo: the whole log, or the first two weeks of one that goes on.

    `ONEREC_TEST_DAY` names another last day.
    """
    first, last = settings.partition_range()
    given = os.environ.get("ONEREC_TEST_DAY")
    if given:
        last = date.fromisoformat(given)
    return first, last or first + timedelta(days=DEMO_DAYS - 1)


def ingest_job() -> dg.JobDefinition:
    """The job, where a forked step can find it."""
    from onerec_dagster.definitions import defs

    return defs.resolve_job_def("ingest")


def retokenize_job() -> dg.JobDefinition:
    """The job, where a forked step can find it."""
    from onerec_dagster.definitions import defs

    return defs.resolve_job_def("weekly_retokenize")


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


def bury_killed_runs(instance: dg.DagsterInstance) -> int:
    """Report the runs of earlier demos that were killed as failed, and free the pools they hold.

    A killed run cannot say that it ended; while it counts as running it keeps its place in the
    warehouse's pool, and the next one would wait for ever.

    Returns:
        Number of runs.
    """
    running = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
    killed = [
        run
        for run in instance.get_runs(running)
        if PROCESS_TAG in run.tags and not _is_demo(int(run.tags[PROCESS_TAG]))
    ]
    for run in killed:
        instance.report_run_failed(run, "the process that ran it was killed")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return len(killed)


def _is_demo(pid: int) -> bool:
    try:
        return "onerec_dagster.demo" in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


def run_job(
    instance: dg.DagsterInstance,
    job: Callable[[], dg.JobDefinition],
    tags: dict[str, str],
    log: Path,
) -> dict[str, tuple[float, float]]:
    """Execute a job through the instance, so that it shows in the UI like any other run.

    Returns:
        When each step began and ended, in Unix seconds.

    Raises:
        SystemExit: The run failed; which steps, and why, is printed.
    """
    mine = ("onerec/demo", uuid.uuid4().hex)
    with output_to(log) as terminal, StepProgress(instance, mine, terminal).shown() as progress:
        result = dg.execute_job(
            dg.reconstructable(job),
            instance=instance,
            run_config=QUIET,
            tags={**tags, mine[0]: mine[1], PROCESS_TAG: str(os.getpid())},
        )
        with result:
            if result.success:
                return progress.spans
            failures = [
                (e.step_key, e.step_failure_data.error)
                for e in result.all_events
                if e.is_step_failure
            ]
    lines = [f"{job.__name__} failed; nothing of it was published half-done."]
    for step, error in failures:
        reason = (error.cause or error).message.strip() if error else "see the run's log"
        lines.append(f"  {step}: {reason}")
    lines.append(f"  everything that was logged: {log}")
    sys.exit("\n".join([*lines, "Fix the cause and run the command again: it starts over safely."]))


def write_demo_report(
    settings: Settings, day: str, runs: list[dict[str, tuple[float, float]]], peak: PeakMemory
) -> str:
    """Put the night's numbers and pictures under `report/`; returns the table for the terminal."""
    from onerec.report import metric_table, write_report

    store = ArtifactStore(settings.artifacts_url)
    metrics = dict(read_json(store.latest("offline_metrics", day).path / "metrics.json"))
    decision = read_json(store.latest("champion", day).path / "champion.json")
    metrics["promoted"] = decision["promoted"]
    for name, (start, end) in [span for spans in runs for span in spans.items()]:
        seconds = metrics.get(f"seconds_{name}", 0.0) + end - start
        gib = max(metrics.get(f"peak_gib_{name}", 0.0), peak.between(start, end))
        metrics |= {f"seconds_{name}": round(seconds, 2), f"peak_gib_{name}": round(gib, 3)}
    metrics["peak_rss_gib"] = round(peak.gib, 3)
    metrics["dataset"] = settings.dataset
    write_report(settings.report_dir, metrics, store=store, day=day)
    return metric_table(metrics)


def main() -> None:
    """Ingest the days, run the night for the last one, print what came of it."""
    try:
        settings = load_settings()
        prepare_home(settings)
        first, last = demo_days(settings)
    except ValueError as error:  # what a user can mend: the message says how
        sys.exit(f"make demo: {error}")
    print(f"{settings.dataset}: {first} to {last}, preset {settings.preset}, test day {last}")
    log = settings.root / "demo.log"
    started, peak = time.monotonic(), PeakMemory()
    with dg.DagsterInstance.get() as instance, peak.sampled():
        if killed := bury_killed_runs(instance):
            print(f"{killed} earlier run(s) had been killed; this one starts over safely")
        before = last - timedelta(days=1)
        print(f"1/2 ingest {first}..{before}: the log into DuckDB, cut into sessions")
        ingested = run_job(
            instance,
            ingest_job,
            {
                "dagster/asset_partition_range_start": first.isoformat(),
                "dagster/asset_partition_range_end": before.isoformat(),
            },
            log,
        )
        print(f"2/2 the night run for {last}: tokenise, train, align, measure, promote, recommend")
        night = run_job(instance, retokenize_job, {"dagster/partition": last.isoformat()}, log)
    table = write_demo_report(settings, last.isoformat(), [ingested, night], peak)
    print(f"\n{table}\n")
    print(f"{time.monotonic() - started:.0f} s, peak memory {peak.gib:.2f} GiB. Where to look:")
    print(f"  {settings.report_dir / 'report.html'}   the same with pictures")
    print(f"  {settings.report_dir / 'metrics.json'}   for programs")
    print("  make dev   the Dagster UI: lineage, checks, every run of this")


if __name__ == "__main__":
    main()
