"""`make demo`: one nightly run with one command, then a table and where to look.

Two Dagster runs, the same a team has in production: `ingest` over the days before, then
`weekly_retokenize` (the nightly run that opens a tokenizer version) for the last day.
"""

import os
import sys
import time
from datetime import date, timedelta

import dagster as dg

from onerec.config import SettingError, require
from onerec.disk import require_free_space
from onerec.session_dataset.splits import FEWEST_DAYS_BEFORE
from onerec_dagster.dagster_home import prepare_home
from onerec_dagster.job_runner import (
    PeakMemory,
    RunRequest,
    full_disk_in_one_line,
    run_job,
    run_night,
)
from onerec_dagster.killed_runs import fail_killed_runs
from onerec_dagster.process_end import run_and_exit
from onerec_dagster.state_errors import StateError, state_errors_named
from resources.file_source import FileSource
from resources.settings import Settings, load_settings

DEMO_DAYS = 14


def demo_days(settings: Settings) -> tuple[date, date]:
    """First and last day of the demo: the whole log, or the first two weeks of one that goes on.

    `ONEREC_TEST_DAY` names another last day.

    Raises:
        SettingError: `ONEREC_TEST_DAY` is no day, or the log has too few days before the last one.
    """
    first, last = settings.partition_range()
    earliest = first + timedelta(days=FEWEST_DAYS_BEFORE)
    given = os.environ.get("ONEREC_TEST_DAY")
    needed = "two days before it are needed, one to train and one to validate"
    if given:
        try:
            last = date.fromisoformat(given)
        except ValueError:
            raise SettingError("ONEREC_TEST_DAY", given, "use a day, 2026-06-14 say") from None
        remedy = f"use a day from {earliest} on: {needed}"
        require(last >= earliest, "ONEREC_TEST_DAY", given, remedy)
    elif last is not None:
        remedy = f"the log begins on {first}, and the last day is tested: {needed}. Give more days"
        require(last >= earliest, "last_day", str(last), remedy)
    return first, last or first + timedelta(days=DEMO_DAYS - 1)


def write_demo_report(
    settings: Settings, day: str, runs: list[dict[str, tuple[float, float]]], peak: PeakMemory
) -> str:
    """Write numbers and pictures to `report/`; returns the table for the terminal."""
    from onerec.report.nightly import load_report, text_table, write_report

    store = settings.artifact_store()
    seconds: dict[str, float] = {}
    peak_gib: dict[str, float] = {}
    for name, (start, end) in [span for spans in runs for span in spans.items()]:
        seconds[name] = round(seconds.get(name, 0.0) + end - start, 2)
        peak_gib[name] = round(max(peak_gib.get(name, 0.0), peak.between(start, end)), 3)
    report = load_report(
        store,
        day,
        settings.dataset,
        seconds=seconds,
        peak_gib=peak_gib,
        peak_rss_gib=round(peak.gib, 3),
    )
    write_report(settings.report_dir, report, store=store)
    return text_table(report)


def main() -> None:
    """Ingest the days, run the nightly job for the last one, print the results."""
    try:
        settings = load_settings()
        with state_errors_named(settings):
            prepare_home(settings)
        first, last = demo_days(settings)
        notes = []
        if isinstance(settings.source, FileSource):
            settings.source.require_readable()  # before anything is landed
            notes = settings.source.notes()
    except ValueError as error:  # what a user can correct: the message says how
        sys.exit(f"make demo: {error}")
    try:
        with full_disk_in_one_line("make demo", settings.root), state_errors_named(settings):
            require_free_space(settings.root, "a nightly run")
            print(
                f"{settings.dataset}: {first} to {last}, preset {settings.preset}, test day {last}"
            )
            for note in notes:
                print(f"  note: {note}")
            run_demo(settings, first, last)
    except StateError as error:
        sys.exit(f"make demo: {error}")


def run_demo(settings: Settings, first: date, last: date) -> None:
    """Both runs, and the table of the last day."""
    log = settings.root / "demo.log"
    started, peak = time.monotonic(), PeakMemory()
    with dg.DagsterInstance.get() as instance, peak.sampled():
        if killed := fail_killed_runs(instance):
            print(f"{killed} earlier run(s) had been killed; this one starts over safely")
        before = last - timedelta(days=1)
        print(f"1/2 ingest {first}..{before}: the log into DuckDB, cut into sessions")
        ingested = run_job(
            instance, RunRequest.of_days("ingest", first.isoformat(), before.isoformat()), log
        )
        print(f"2/2 nightly run for {last}: tokenise, train, align, measure, promote, recommend")
        request = RunRequest.of_day("weekly_retokenize", last.isoformat())
        night = run_night(instance, request, settings.serving_dir, log)
    table = write_demo_report(settings, last.isoformat(), [ingested, night], peak)
    print(f"\n{table}\n")
    print(f"{time.monotonic() - started:.0f} s, peak memory {peak.gib:.2f} GiB. Where to look:")
    print(f"  {settings.report_dir / 'report.html'}   the same with pictures")
    print(f"  {settings.report_dir / 'metrics.json'}   for programs")
    print(f"  {settings.serving_dir / 'current'}   what consumers read: Parquet and bundle")
    print("  make dev   the Dagster UI: lineage, checks, every run of this")


if __name__ == "__main__":
    run_and_exit(main)
