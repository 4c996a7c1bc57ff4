"""Sharded recommendation: throughput by engine, and a simulation of 100 million users.

    python -m benchmarks.shards                     # measure, then project
    python -m benchmarks.shards --users 2048        # a shorter measurement

Measured: recommendations of the `tiny` shape with random weights over 2,000 items, one torch
thread a worker, in this process and with one and two Ray actors on this machine, in turn, the best
of the repeats. Starting Ray and loading the weights is not counted: a nightly run pays for it once.
What a shard costs the driver is measured with a function that does nothing.

Projected: `simulate` draws a time for every shard around the measured mean and hands shards to the
worker that is free first; the driver gives one out at a time. The assumptions are printed.
"""

import argparse
import heapq
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from onerec.config import PRESETS, BeamConfig
from onerec.model import OneRec, save_model
from onerec.serving.batch import Lists, load_list_maker
from onerec.serving.recommender import write_bundle
from onerec.shards import ShardFunction, ShardPool, columns_of, map_shards
from onerec.tokenizer.semantic_ids import SemanticIds

ITEMS, CODES, SID_TOKENS, HISTORY, SESSION = 2_000, 64, 3, 20, 5
USERS_PROJECTED = 100_000_000
SHARD_ROWS = 8192
SPREAD = 0.2
"""Standard deviation of a shard's time over its mean, assumed."""
RESULT_BYTES_PER_USER = 10 * 60
"""Ten recommended items of a user in memory, assumed."""


@dataclass(frozen=True)
class Measured:
    """Measurements that the projection starts from.

    Attributes:
        seconds_per_user: Seconds per user of one worker.
        driver_seconds_per_shard: Overhead of the driver per shard.
        input_bytes_per_user: Size of a user's row in a shard.
    """

    seconds_per_user: float
    driver_seconds_per_shard: float
    input_bytes_per_user: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--users", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        measured = _measure(Path(directory), given.users, given.repeats)
    _project(measured)


def _measure(directory: Path, users: int, repeats: int) -> Measured:
    load = partial(load_list_maker, _bundle(directory), "cpu", _wanted())
    history = np.random.default_rng(0).integers(0, ITEMS, (users, HISTORY))
    table = columns_of({"history": history})
    table = table.append_column("user_id", pa.array([f"user {n}" for n in range(users)]))
    shard = max(users // 16, 1)
    best: dict[tuple[str, int], float] = {}
    for repeat in range(repeats):
        for engine, workers in (("in_process", 1), ("ray", 1), ("ray", 2)):
            spread = ShardPool(
                engine=engine,
                num_workers=workers,
                shard_rows=shard,
                directory=directory / f"{engine}-{workers}-{repeat}",
                threads=1,
            )
            seconds = _seconds_after_the_first(load, table, spread)
            best[engine, workers] = min(best.get((engine, workers), np.inf), seconds)
    alone = best["in_process", 1]
    print(f"recommendations, {users:,} users in 16 shards, {ITEMS:,} items, shape `tiny`")
    for (engine, workers), seconds in best.items():
        rate = users / seconds
        name = f"{engine}, {workers} worker{'s' if workers > 1 else ''}"
        print(f"  {name:24} {rate:8,.0f} users/s  {alone / seconds:5.2f} x one process")
    return Measured(alone / users, _driver_seconds(directory), table.nbytes / users)


def _seconds_after_the_first(load, table: pa.Table, pool: ShardPool) -> float:
    """Seconds for all rows, at the rate from the first finished shard on.

    The time before includes starting workers and loading weights.
    """
    moments: list[tuple[float, int]] = []
    timed = ShardPool(
        **{
            **vars(pool),
            "on_progress": lambda done, total: moments.append((time.perf_counter(), done)),
        }
    )
    for _ in map_shards(load, table, timed):
        pass
    (began, first), (ended, last) = moments[0], moments[-1]
    return (ended - began) / (last - first) * table.num_rows


def _driver_seconds(directory: Path, shards: int = 100) -> float:
    """Driver overhead per shard in seconds, measured with a function that does nothing."""
    table = columns_of({"row": np.arange(shards)})
    spread = ShardPool(engine="ray", shard_rows=1, directory=directory / "idle", threads=1)
    return _seconds_after_the_first(_load_nothing, table, spread) / shards


def _load_nothing() -> ShardFunction:
    return lambda table: table


def simulate(
    measured: Measured, workers: int, *, users: int = USERS_PROJECTED, seed: int = 0
) -> float:
    """Simulated seconds until all users are served, by the number of workers."""
    shards = -(-users // SHARD_ROWS)
    mean = measured.seconds_per_user * SHARD_ROWS
    draw = np.random.default_rng(seed)
    durations = draw.gamma(1 / SPREAD**2, mean * SPREAD**2, shards)
    free = [0.0] * workers
    driver = ended = 0.0
    for duration in durations:
        started = max(heapq.heappop(free), driver)
        driver = started + measured.driver_seconds_per_shard
        heapq.heappush(free, driver + duration)
        ended = max(ended, driver + duration)
    return ended


def _project(measured: Measured) -> None:
    shards = -(-USERS_PROJECTED // SHARD_ROWS)
    print(f"\nsimulated: {USERS_PROJECTED:,} users in {shards:,} shards of {SHARD_ROWS:,}")
    print(f"  a worker serves {1 / measured.seconds_per_user:,.0f} users/s (measured here, assumed")
    print("  of every worker); a shared file system is never the limit; times of shards vary by")
    print(f"  {SPREAD:.0%}; a shard costs the driver {measured.driver_seconds_per_shard:.4f} s")
    print(f"  {'workers':>8}  {'hours':>8}  {'of linear':>9}")
    one = measured.seconds_per_user * USERS_PROJECTED
    for workers in (1, 10, 100, 1_000, 4_000, 12_000):
        seconds = simulate(measured, workers)
        print(f"  {workers:8,}  {seconds / 3600:8.2f}  {one / workers / seconds:9.0%}")
    longest = measured.seconds_per_user * SHARD_ROWS
    at_driver = longest / max(measured.driver_seconds_per_shard, 1e-9)
    print(
        f"  the driver keeps {at_driver:,.0f} workers busy; a shard takes {longest:,.0f} s, so with"
    )
    print(f"  {shards:,} workers and more nothing is gained: make shard_rows smaller first")
    memory = USERS_PROJECTED * (measured.input_bytes_per_user + RESULT_BYTES_PER_USER) / 2**30
    print(
        f"  the driver holds histories and lists of all users: {memory:,.0f} GiB, the first limit;"
    )
    print("  beyond a machine with that memory split the users over several runs")


def _wanted() -> Lists:
    return Lists(date(2026, 6, 15), "random", 10)


def _bundle(directory: Path) -> Path:
    """A generator with random weights and its catalogue."""
    torch.manual_seed(0)
    number = np.arange(ITEMS)
    ids = SemanticIds(
        item_ids=np.array([f"item {n}" for n in number], dtype=object),
        codes=torch.from_numpy(np.stack([number // CODES**d % CODES for d in range(3)], axis=1)),
        tokenizer_version="random",
        first_seen=np.full(ITEMS, np.datetime64("2026-06-01")),
        codebook_size=CODES,
    )
    model = OneRec(
        PRESETS["tiny"].model,
        codebook_size=CODES,
        num_sid_tokens=SID_TOKENS,
        history_length=HISTORY,
        session_items=SESSION,
    )
    checkpoint = directory / "checkpoint"
    checkpoint.mkdir()
    save_model(model.eval(), checkpoint, tokenizer_version="random")
    ids.save(checkpoint)
    write_bundle(
        directory / "bundle", checkpoint=checkpoint, semantic_ids=checkpoint, config=BeamConfig()
    )
    return directory / "bundle"


if __name__ == "__main__":
    main()
