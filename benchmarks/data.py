"""The data layer: delivered files to sessions, against pandas and polars on the same files.

Ours is what a nightly run does: land every row typed, keep rejected rows with their reason, test
keys, and build session tables that are replaced day by day. The peers compute the same sessions
(drop duplicates, join the catalogue, sort, cut at gaps, aggregate) in memory and keep nothing else.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from benchmarks.section import Section, Table

FIRST = date(2026, 6, 1)
DAYS = 10
GAP_MINUTES = 30
WATCHED_SECONDS = 3.0

LOG = """
copy (
    select
        'u' || (hash(i // 8, $day) % $users) as user_id,
        'v' || cast(floor($items * pow((hash(i, $day, 1) % 1000003) / 1000003.0, 3)) as bigint)
            as item_id,
        cast($day as timestamp) + to_seconds(
            cast(hash(i // 8, $day, 2) % 80000 + (i % 8) * 25 + hash(i, $day, 3) % 20 as bigint)
        ) as event_time,
        (hash(i, $day, 4) % 60000) / 1000.0 as watch_seconds,
        hash(i, $day, 5) % 20 = 0 as is_like
    from range($rows) as t(i)
) to '{path}' (format parquet)
"""
ITEMS = """
copy (
    select 'v' || i as item_id, 5.0 + hash(i) % 60 as duration_seconds, 'title ' || i as title
    from range($items) as t(i)
) to '{path}' (format parquet)
"""
CONFIG = """
events: {path: 'events/{date}.parquet'}
items: {path: items.parquet}
"""


def run(quick: bool) -> Section:
    """Measure; `quick` takes a log that needs seconds."""
    sizes = (20_000,) if quick else (1_000_000, 10_000_000)
    rows, figures = [], {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="onerec-data-") as directory:
            found = _measure(Path(directory), size)
        rows += [[f"{size:,}", *row] for row in found]
        seconds = {row[0]: row[1] for row in found}
        figures[f"data_{size}_seconds_over_pandas"] = seconds["all days"] / seconds["pandas"]
        figures[f"data_{size}_seconds_over_polars"] = seconds["all days"] / seconds["polars"]
    return Section(
        title="Data layer",
        text=(
            f"{DAYS} daily Parquet files, as many users as a 50th of the events, as many items as "
            "a 200th. `all days` is the `ingest` job over all days and `session_dataset`; `the "
            "last day` is `ingest` of one more day alone. Every row is a process of its own, in "
            "turn on the same files; start-up of Python, Dagster and dbt is included in ours."
        ),
        tables=[
            Table(
                caption="From files to sessions",
                columns=("events", "what", "seconds", "peak GiB", "sessions", "GiB on disk"),
                rows=rows,
            )
        ],
        figures=figures,
    )


def make_log(data: Path, num_events: int) -> None:
    """Write the files of a log; the same size gives the same rows."""
    (data / "events").mkdir(parents=True)
    items = max(200, num_events // 200)
    with duckdb.connect() as connection:
        connection.execute(ITEMS.format(path=data / "items.parquet"), {"items": items})
        for number in range(DAYS):
            day = FIRST + timedelta(days=number)
            connection.execute(
                LOG.format(path=data / "events" / f"{day}.parquet"),
                {
                    "day": day,
                    "rows": num_events // DAYS,
                    "users": max(20, num_events // 50),
                    "items": items,
                },
            )
    (data / "log.yaml").write_text(CONFIG)


def _measure(directory: Path, num_events: int) -> list[list[Any]]:
    data, home = directory / "data", directory / "home"
    make_log(data, num_events)
    last = FIRST + timedelta(days=DAYS - 1)
    peers = [_peer(name, data) for name in ("pandas", "polars")]
    most = _ours("before", FIRST, last - timedelta(days=1), data, home)
    one = _ours("the last day", last, last, data, home)
    dataset = _ours("session_dataset", last, last, data, home)
    disk = sum(f.stat().st_size for f in home.rglob("*") if f.is_file()) / 2**30
    with duckdb.connect(str(home / "own" / "warehouse.duckdb"), read_only=True) as connection:
        row = connection.execute("select count(*) from sessions").fetchone()
    assert row is not None, "a count is one row"
    parts = (most, one, dataset)
    whole = ["all days", sum(p[1] for p in parts), max(p[2] for p in parts), row[0], disk]
    return [whole, [*one, "", ""], *[[*peer, ""] for peer in peers]]


def _ours(what: str, first: date, last: date, data: Path, home: Path) -> list[Any]:
    environment = {
        **os.environ,
        "ONEREC_HOME": str(home),
        "ONEREC_DATASET": "own",
        "ONEREC_CONFIG": str(data / "log.yaml"),
    }
    command = [sys.executable, "-m", "benchmarks.data", what, str(first), str(last)]
    seconds, gib, _ = _timed(command, environment)
    return [what, seconds, gib]


def _peer(name: str, data: Path) -> list[Any]:
    command = [sys.executable, "-m", "benchmarks.data", name, str(data)]
    seconds, gib, printed = _timed(command, dict(os.environ))
    return [name, seconds, gib, int(printed)]


def _timed(command: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Seconds of a process, GiB of the largest process in it, and its last line."""
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{' '.join(command[2:])} failed: {done.stderr[-2000:]}")
    lines = done.stdout.split("\n")[:-1]
    return seconds, float(lines[-1]), lines[-2] if len(lines) > 1 else ""


def _in_process(arguments: list[str]) -> None:
    """Do what a process of the measurement is started for; the last line is its memory."""
    if arguments[0] in PEERS:
        print(PEERS[arguments[0]](Path(arguments[1])))
    else:
        _run_ours(*arguments)
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    print(max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20)


def _run_ours(what: str, first: str, last: str) -> None:
    import dagster as dg

    from onerec_dagster.dagster_home import prepare_home
    from onerec_dagster.job_runner import QUIET, job_named, output_to
    from resources.settings import load_settings

    settings = load_settings()
    prepare_home(settings)
    days = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    dataset = what == "session_dataset"
    with (
        dg.DagsterInstance.get() as instance,
        output_to(settings.root / "bench.log"),
        dg.execute_job(
            dg.build_reconstructable_job(
                "onerec_dagster.job_runner",
                job_named.__name__,
                ("nightly" if dataset else "ingest",),
            ),
            instance=instance,
            run_config=QUIET,
            tags={"dagster/partition": last} if dataset else days,
            asset_selection=[dg.AssetKey(what)] if dataset else None,
            raise_on_error=True,
        ) as result,
    ):
        failed = [str(e.step_key) for e in result.all_events if e.is_step_failure]
        assert result.success, f"{what}: {', '.join(failed)} failed"


def _pandas_sessions(data: Path) -> int:
    events = pd.concat([pd.read_parquet(f) for f in sorted((data / "events").iterdir())])
    events = events.drop_duplicates(["user_id", "item_id", "event_time"])
    events = events.merge(pd.read_parquet(data / "items.parquet"), on="item_id")
    events["day"] = events["event_time"].dt.date
    events = events.sort_values(["user_id", "event_time"], kind="stable")
    before = events.groupby(["user_id", "day"])["event_time"].shift()
    opens = before.isna() | (events["event_time"] - before >= pd.Timedelta(minutes=GAP_MINUTES))
    events["session"] = opens.cumsum()
    enough = events["duration_seconds"].clip(upper=WATCHED_SECONDS)
    events["watched"] = events["watch_seconds"] >= enough
    sessions = events.groupby("session").agg(
        user_id=("user_id", "first"),
        started_at=("event_time", "min"),
        ended_at=("event_time", "max"),
        exposures=("item_id", "size"),
        watched=("watched", "sum"),
        watch_seconds=("watch_seconds", "sum"),
        likes=("is_like", "sum"),
    )
    sessions.to_parquet(data / "pandas.parquet")
    return len(sessions)


def _polars_sessions(data: Path) -> int:
    import polars as pl  # pyright: ignore[reportMissingImports]

    day = pl.col("event_time").dt.date()
    before = pl.col("event_time").shift().over("user_id", day)
    opens = before.is_null() | (pl.col("event_time") - before >= pl.duration(minutes=GAP_MINUTES))
    enough = pl.min_horizontal("duration_seconds", pl.lit(WATCHED_SECONDS))
    sessions = (
        pl.scan_parquet(data / "events" / "*.parquet")
        .unique(["user_id", "item_id", "event_time"])
        .join(pl.scan_parquet(data / "items.parquet"), on="item_id")
        .sort("user_id", "event_time")
        .with_columns(opens.cum_sum().alias("session"))
        .with_columns((pl.col("watch_seconds") >= enough).alias("watched"))
        .group_by("session")
        .agg(
            pl.col("user_id").first(),
            pl.col("event_time").min().alias("started_at"),
            pl.col("event_time").max().alias("ended_at"),
            pl.len().alias("exposures"),
            pl.col("watched").sum(),
            pl.col("watch_seconds").sum(),
            pl.col("is_like").sum().alias("likes"),
        )
        .collect()
    )
    sessions.write_parquet(data / "polars.parquet")
    return len(sessions)


PEERS = {"pandas": _pandas_sessions, "polars": _polars_sessions}

if __name__ == "__main__":
    _in_process(sys.argv[1:])
