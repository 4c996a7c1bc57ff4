"""Functions of shards for the tests of `onerec.shards`; a worker imports them by name."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from onerec.shards import ShardFunction


def load_square(notes: Path, *, dies_at: int | None = None, seconds: float = 0.0) -> ShardFunction:
    """Squares a column; notes every load and shard in a file.

    Args:
        notes: Directory of the notes.
        dies_at: The worker that gets the shard with this value kills itself, the first time.
        seconds: How long a shard takes.
    """
    (notes / f"load-{os.getpid()}").touch()
    return partial(_square, notes, dies_at, seconds)


def _square(notes: Path, dies_at: int | None, seconds: float, table: pa.Table) -> pa.Table:
    values = table.column("value")
    time.sleep(seconds)
    died = notes / "died"
    if dies_at in values.to_pylist() and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (notes / f"shard-{values[0]}-{os.getpid()}").touch()
    return pa.table({"square": pc.multiply(values, values)})
