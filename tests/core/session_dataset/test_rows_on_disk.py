"""Sessions are read batch by batch: the same rows, and memory that lists do not fill."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from onerec.catalogue import Catalogue
from onerec.session_dataset import generator_sessions, reader, user_sequences
from onerec.session_dataset.generator_sessions import (
    SessionTensors,
    concatenate_sessions,
    load_session_tensors,
)
from onerec.session_dataset.rows_on_disk import RowsOnDisk
from onerec.session_dataset.user_sequences import load_user_sequences, sessions_of_sequences
from tests.core.session_dataset.test_readers import random_rows
from tests.core.training.small import write_session_dataset

HISTORY, ITEMS = 256, 4
CATALOGUE = Catalogue(
    np.array([f"i{n}" for n in range(50)], object), np.full(50, "2026-06-01", "M8[D]")
)


def load(directory: Path) -> SessionTensors:
    return load_session_tensors(
        directory, "train", CATALOGUE, history_length=HISTORY, session_items=ITEMS, good_only=True
    )


def cut(directory: Path) -> SessionTensors:
    sequences = load_user_sequences(directory, CATALOGUE)
    return sessions_of_sequences(sequences, history_length=HISTORY, session_items=ITEMS)


def both(directory: Path) -> SessionTensors:
    """What a training from random weights learns."""
    return concatenate_sessions(load(directory), cut(directory))


LOADERS = pytest.mark.parametrize("loaded", [load, cut, both])


def test_blocks_come_back_as_one_tensor() -> None:
    rows = np.arange(21, dtype=np.int32).reshape(7, 3)
    with RowsOnDisk(3) as stored, RowsOnDisk(3) as none:
        for block in (rows[:2], rows[2:2], rows[2:6], rows[:, ::-1][6:]):
            stored.append(block)
        found, empty = stored.tensor(), none.tensor()
    assert found.tolist() == [*rows[:6].tolist(), [20, 19, 18]]
    found[0, 0] = 5  # as writable as a tensor in memory
    assert empty.shape == (0, 3)


@LOADERS
def test_batches_of_any_size_give_the_same_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: Callable[[Path], SessionTensors]
) -> None:
    write_session_dataset(tmp_path, random_rows(0, num=300))
    wanted = loaded(tmp_path)
    assert len(wanted) > 20
    for size in (1, 7):
        read_in_batches_of(size, monkeypatch)
        found = loaded(tmp_path)
        for name in ("user", "history", "targets", "is_good"):
            assert torch.equal(getattr(found, name), getattr(wanted, name)), name
        assert found.user_ids.tolist() == wanted.user_ids.tolist()
        assert found.date.tolist() == wanted.date.tolist()


def read_in_batches_of(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reader, generator_sessions, user_sequences):
        monkeypatch.setattr(module, "BATCH_ROWS", size)


def peak_bytes(directory: Path, num_sessions: int, loaded: Callable[[Path], SessionTensors]) -> int:
    """Most memory of Python, NumPy and Arrow while so many sessions of long histories are read."""
    row = next(r for r in random_rows(0, num=50) if r["is_good"] and r["target_item_ids"])
    row |= {"split": "train", "history_item_ids": [f"i{n % 50}" for n in range(HISTORY)]}
    row |= {"target_item_ids": ["i1"]}
    write_session_dataset(directory, [row] * num_sessions)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    sessions = loaded(directory)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(sessions) >= num_sessions / ITEMS
    return peak + pa.total_allocated_bytes() - before


@LOADERS
def test_lists_do_not_fill_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: Callable[[Path], SessionTensors]
) -> None:
    read_in_batches_of(200, monkeypatch)
    few, many = (peak_bytes(tmp_path / str(n), n, loaded) for n in (1000, 8000))
    # the sessions' histories alone would be twice as many bytes more
    assert many - few < 0.5 * 7000 * HISTORY * 4
