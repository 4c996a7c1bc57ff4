"""Work in shards: the same rows whatever runs them, nothing lost when a worker or the driver dies.

Ray's tests need the extra `ray`, and skip without.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from onerec.config import Runtime
from onerec.shards import ShardPool, arrays_of, columns_of, gathered, map_shards, start_ray
from tests.core.shard_functions import load_square

VALUES = pa.table({"value": pa.array(range(10), pa.int64())})
SQUARES = [n * n for n in range(10)]


def squares(pool: ShardPool, notes: Path, *, multiple_of: int = 1, **options) -> list[int]:
    load = partial(load_square, notes, **options)
    made = list(map_shards(load, VALUES, pool, multiple_of=multiple_of))
    return pa.concat_tables(made).column("square").to_pylist()


def shards_of(notes: Path) -> list[int]:
    return sorted(int(f.name.split("-")[1]) for f in notes.glob("shard-*"))


def loads_of(notes: Path) -> int:
    return len(list(notes.glob("load-*")))


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """Ray on localhost, two workers."""
    if find_spec("ray") is None:
        pytest.skip("the extra `ray` is not installed")
    start_ray(2)
    yield
    import ray

    ray.shutdown()


def test_the_runtime_chooses_engine_workers_and_shards(tmp_path: Path) -> None:
    runtime = Runtime(workers="ray", num_workers=3, shard_rows=7, threads=1)
    pool = ShardPool.of(runtime, tmp_path, lambda line: None)
    assert (pool.engine, pool.num_workers, pool.shard_rows, pool.threads) == ("ray", 3, 7, 1)


def test_shards_are_whole_batches_in_order(notes: Path) -> None:
    done: list[tuple[int, int]] = []
    pool = ShardPool(shard_rows=3, on_progress=lambda *counts: done.append(counts))
    assert squares(pool, notes, multiple_of=2) == SQUARES
    assert shards_of(notes) == [0, 4, 8]  # 3 rows are raised to 4, two batches of 2
    assert done == [(4, 10), (8, 10), (10, 10)]
    assert loads_of(notes) == 1


def test_a_killed_run_goes_on_with_the_missing_shards(tmp_path: Path, notes: Path) -> None:
    pool = ShardPool(shard_rows=2, directory=tmp_path / "shards")
    made = map_shards(partial(load_square, notes), VALUES, pool)
    next(made)  # all were computed before the first is handed over
    outputs = sorted((tmp_path / "shards").glob("*/out/*.parquet"))
    assert len(outputs) == 5
    for file in (outputs[1], outputs[3]):
        file.unlink()
    for note in notes.iterdir():
        note.unlink()
    done: list[int] = []
    again = ShardPool(
        shard_rows=2, directory=tmp_path / "shards", on_progress=lambda n, of: done.append(n)
    )
    assert squares(again, notes) == SQUARES
    assert shards_of(notes) == [2, 6]
    assert done == [8, 10]
    # another table never finds these shards
    other = pa.table({"value": pa.array([5], pa.int64())})
    load = partial(load_square, notes)
    assert [t.to_pylist() for t in map_shards(load, other, again)] == [[{"square": 25}]]


def test_a_killed_run_goes_on_with_shards_of_another_length(tmp_path: Path, notes: Path) -> None:
    for rows, multiple_of in ((2, 1), (3, 1), (3, 4)):
        pool = ShardPool(shard_rows=rows, directory=tmp_path / "shards")
        assert squares(pool, notes, multiple_of=multiple_of) == SQUARES


def test_arrays_keep_shape_and_type_through_parquet(tmp_path: Path) -> None:
    arrays = {
        "items": np.arange(24, dtype=np.int32).reshape(4, 3, 2),
        "score": np.array([-np.inf, 0.0, 0.5, 1.0]),
        "legal": np.array([True, False, True, True]),
    }
    pool = ShardPool(shard_rows=3, directory=tmp_path)
    found = gathered(map_shards(_load_same, columns_of(arrays), pool))
    for name, wanted in arrays.items():
        assert found[name].dtype == wanted.dtype
        np.testing.assert_array_equal(found[name], wanted)
    assert arrays_of(columns_of(arrays))["items"].shape == (4, 3, 2)


def _load_same():
    return lambda table: table


def test_ray_needs_a_directory(notes: Path) -> None:
    with pytest.raises(ValueError, match="name a directory that every worker reaches"):
        squares(ShardPool(engine="ray"), notes)


@pytest.mark.slow
def test_two_workers_make_the_same_files(ray, tmp_path: Path, notes: Path) -> None:
    done: list[int] = []
    for engine in ("in_process", "ray"):
        pool = ShardPool(
            engine=engine,
            shard_rows=2,
            directory=tmp_path / engine,
            on_progress=lambda n, of: done.append(n),
        )
        assert squares(pool, notes, seconds=0.3) == SQUARES
    assert done == [2, 4, 6, 8, 10] * 2
    alone, spread = (
        {f.relative_to(tmp_path / engine): f.read_bytes() for f in sorted(found)}
        for engine in ("in_process", "ray")
        for found in [(tmp_path / engine).glob("**/*.parquet")]
    )
    assert alone == spread
    assert loads_of(notes) == 3, "this process and two workers, each once"


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(ray, tmp_path: Path, notes: Path) -> None:
    pool = ShardPool(engine="ray", shard_rows=2, directory=tmp_path / "shards")
    assert squares(pool, notes, dies_at=5, seconds=0.2) == SQUARES
    assert (notes / "died").exists()
    assert sorted(set(shards_of(notes))) == [0, 2, 4, 6, 8]


@pytest.mark.slow
def test_a_killed_driver_resumes_from_finished_shards(ray, tmp_path: Path, notes: Path) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path / "shards"), str(notes)],
        start_new_session=True,
    )
    outputs = tmp_path / "shards"
    deadline = time.monotonic() + 120
    while len(list(outputs.glob("*/out/*.parquet"))) < 2 and time.monotonic() < deadline:
        assert driver.poll() is None
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(3.0)  # Ray ends the workers of a driver that is gone
    finished = {f.name: f.stat().st_mtime_ns for f in outputs.glob("*/out/*.parquet")}
    assert 2 <= len(finished) < 5
    before = len(shards_of(notes))
    pool = ShardPool(engine="ray", shard_rows=2, directory=outputs)
    assert squares(pool, notes, seconds=1.0) == SQUARES
    assert len(shards_of(notes)) - before == 5 - len(finished)
    after = {f.name: f.stat().st_mtime_ns for f in outputs.glob("*/out/*.parquet")}
    assert after.items() >= finished.items()


DRIVER = """
import sys
from functools import partial
from pathlib import Path
from onerec.shards import ShardPool, start_ray, map_shards
from tests.core.shard_functions import load_square
from tests.core.test_shards import VALUES
shards, notes = map(Path, sys.argv[1:])
pool = ShardPool(engine="ray", shard_rows=2, directory=shards)
list(map_shards(partial(load_square, notes, seconds=1.0), VALUES, pool))
"""


@pytest.mark.slow
def test_ray_listens_on_localhost_alone(ray) -> None:
    me = psutil.Process()
    addresses = {
        c.laddr.ip
        for process in [me, *me.children(recursive=True)]
        for c in process.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN
    }
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, addresses
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
