"""Work over users or items in shards: in this process, or as actors on a Ray cluster.

A stage that grows with users is a pure function of a table: so many rows in, so many out. It is
loaded once for each worker, weights and all, and called with a shard of rows at a time. Shards are
the same whatever runs them, and each is computed as it would be alone, so that the rows do not
depend on the engine or on the number of workers.

With a directory, shards are Parquet files in it: a finished one is moved into place in one step,
and a run that was killed goes on with those that are missing.

    <directory>/<hash of the table>-<rows>/in/00000.parquet    rows of a shard, so many at most
    <directory>/<hash of the table>-<rows>/out/00000.parquet   what the function made of them
"""

# the extra `ray` need not be installed:
# pyright: reportMissingImports=false

import hashlib
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from onerec.config import Runtime

log = logging.getLogger(__name__)

ShardFunction = Callable[[pa.Table], pa.Table]
"""A pure function of a shard's rows."""
Load = Callable[[], ShardFunction]
"""Makes the function, with whatever it needs loaded; it is pickled, what it returns is not."""


@dataclass(frozen=True, kw_only=True)
class ShardPool:
    """How a stage is spread.

    Attributes:
        engine: `in_process` or `ray`.
        num_workers: Ray actors at most.
        shard_rows: Rows of a shard.
        directory: Keeps finished shards; every worker reaches it under the same path. None: in
            memory, and in this process only.
        device: `cuda` gives each Ray actor a GPU.
        threads: Torch threads of an actor; 0 leaves Ray's choice, which is 1.
        on_progress: Called with rows done and in all after every shard.
    """

    engine: str = Runtime().workers
    num_workers: int = Runtime().num_workers
    shard_rows: int = Runtime().shard_rows
    directory: Path | None = None
    device: str = "cpu"
    threads: int = 0
    on_progress: Callable[[int, int], None] = lambda done, total: None

    @classmethod
    def of(
        cls, runtime: Runtime, directory: Path, on_progress: Callable[[int, int], None]
    ) -> "ShardPool":
        """As the settings say."""
        return cls(
            engine=runtime.workers,
            num_workers=runtime.num_workers,
            shard_rows=runtime.shard_rows,
            directory=directory,
            device=runtime.torch_device(),
            threads=runtime.threads,
            on_progress=on_progress,
        )


def map_shards(
    load: Load, table: pa.Table, pool: ShardPool, *, multiple_of: int = 1
) -> Iterator[pa.Table]:
    """Apply a function to shards of a table, in order.

    Args:
        load: Makes the function.
        table: Rows of users or items.
        pool: How it is spread.
        multiple_of: Shards are as long as a multiple of this, so that a batch never spans two.

    Yields:
        What the function made of each shard. Nothing is computed twice that a directory holds.

    Raises:
        ValueError: Ray without a directory.
    """
    size = -(-pool.shard_rows // multiple_of) * multiple_of
    shards = [table.slice(low, size) for low in range(0, table.num_rows, size)]
    if pool.directory is None:
        if pool.engine == "ray":
            raise ValueError("engine='ray': name a directory that every worker reaches")
        yield from _in_memory(load, shards, table.num_rows, pool)
        return
    # shards of another length are others, though the table is the same
    files = _write_inputs(shards, pool.directory / f"{_digest(table)}-{size}")
    missing = [file for file in files if not _output(file).exists()]
    if len(missing) < len(files):
        log.info("%d of %d shards are there already", len(files) - len(missing), len(files))
    rows = {file: shard.num_rows for file, shard in zip(files, shards, strict=True)}
    done = sum(rows.values()) - sum(rows[file] for file in missing)
    finished = _with_ray if pool.engine == "ray" else _in_process
    for file in finished(load, missing, pool):
        done += rows[file]
        pool.on_progress(done, table.num_rows)
    for file in files:
        yield pq.read_table(_output(file))


def columns_of(arrays: Mapping[str, np.ndarray]) -> pa.Table:
    """A table of arrays with the same number of rows; Parquet keeps their shapes and types."""
    columns, fields = [], []
    for name, array in arrays.items():
        values = pa.array(np.ascontiguousarray(array).reshape(-1))
        shape = array.shape[1:]
        if shape:
            values = pa.FixedSizeListArray.from_arrays(values, math.prod(shape))
        columns.append(values)
        text = ",".join(map(str, shape))
        fields.append(pa.field(name, values.type, metadata={"shape": text}))
    return pa.table(columns, schema=pa.schema(fields))


def arrays_of(table: pa.Table) -> dict[str, np.ndarray]:
    """The arrays of a table that `columns_of` made.

    Examples:
        >>> made = columns_of({"row": np.arange(2), "items": np.arange(12).reshape(2, 3, 2)})
        >>> {name: array.shape for name, array in arrays_of(made).items()}
        {'row': (2,), 'items': (2, 3, 2)}
    """
    found = {}
    for field in table.schema:
        values = table.column(field.name).combine_chunks()
        text = (field.metadata or {}).get(b"shape", b"").decode()
        shape = tuple(map(int, text.split(","))) if text else ()
        flat = values.flatten() if shape else values
        # a copy: torch takes no array that cannot be written
        flat = np.array(flat.to_numpy(zero_copy_only=False))
        found[field.name] = flat.reshape(len(values), *shape)
    return found


def gathered(tables: Iterable[pa.Table]) -> dict[str, np.ndarray]:
    """The arrays of all shards, one after the other.

    Raises:
        ValueError: There is no shard.
    """
    parts = [arrays_of(table) for table in tables]
    if not parts:
        raise ValueError("0 shards: there is nothing to gather")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def compute_shard(function: ShardFunction, file: Path) -> None:
    """Read a shard, compute, and move the result into place."""
    _write(function(pq.read_table(file)), _output(file))


def _in_memory(
    load: Load, shards: Sequence[pa.Table], total: int, pool: ShardPool
) -> Iterator[pa.Table]:
    function, done = load(), 0
    for shard in shards:
        made = function(shard)
        done += shard.num_rows
        pool.on_progress(done, total)
        yield made


def _in_process(load: Load, files: Sequence[Path], pool: ShardPool) -> Iterator[Path]:
    if not files:
        return
    function = load()
    for file in files:
        compute_shard(function, file)
        yield file


def _with_ray(load: Load, files: Sequence[Path], pool: ShardPool) -> Iterator[Path]:
    """Ray Data: actors that load once, and take shards until none is left.

    Ray Data starts an actor that dies again, and gives its shard to an actor anew.
    """
    if not files:
        return
    start_ray(pool.num_workers)
    import ray.data
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    number = min(pool.num_workers, len(files))
    work = ray.data.from_items([{"file": str(f)} for f in files], override_num_blocks=len(files))
    done = work.map_batches(
        _Worker,
        fn_constructor_args=(load, pool.threads),
        batch_size=1,
        compute=ActorPoolStrategy(size=number),
        num_cpus=1,
        num_gpus=1 if pool.device == "cuda" else None,
    )
    for row in done.iter_rows():
        yield Path(row["file"])


def start_ray(num_workers: int) -> None:
    """Join the cluster that `RAY_ADDRESS` names, or start one that only this machine reaches."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if not os.environ.get("RAY_ADDRESS"):
        # read when Ray is imported: without clusters its address is 127.0.0.1, on Linux too
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        options |= {
            "num_cpus": num_workers,
            "include_dashboard": False,
            "object_store_memory": 200 * 2**20,  # shards travel as files
        }
    import ray

    if not ray.is_initialized():
        ray.init(**options)


class _Worker:
    """A Ray Data actor."""

    def __init__(self, load: Load, threads: int) -> None:
        if threads:
            import torch

            torch.set_num_threads(threads)
        self.function = load()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for file in batch["file"]:
            compute_shard(self.function, Path(str(file)))
        return batch


def _write_inputs(shards: Sequence[pa.Table], directory: Path) -> list[Path]:
    """Files of the shards; those that are there already are kept."""
    files = [directory / "in" / f"{number:05d}.parquet" for number in range(len(shards))]
    for file, shard in zip(files, shards, strict=True):
        if not file.exists():
            _write(shard, file)
    (directory / "out").mkdir(parents=True, exist_ok=True)
    return files


def _digest(table: pa.Table) -> str:
    """Of the rows: another table never finds the shards of this one."""
    sink = hashlib.sha256()
    for batch in table.replace_schema_metadata(None).combine_chunks().to_batches():
        sink.update(batch.serialize())
    return sink.hexdigest()[:16]


def _output(file: Path) -> Path:
    return file.parent.parent / "out" / file.name


def _write(table: pa.Table, file: Path) -> None:
    """Write beside a file and move it into its place, for readers that see it whole or not."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f".{file.stem}-", dir=file.parent)
    os.close(handle)
    pq.write_table(table, aside)
    os.replace(aside, file)
