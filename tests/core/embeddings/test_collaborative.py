"""Co-watching against a count by hand, and which pairs a large catalogue keeps."""

from datetime import date
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from onerec.catalogue import Catalogue
from onerec.embeddings import collaborative
from onerec.embeddings.collaborative import co_watching
from onerec.session_dataset import co_occurrence
from tests.core.embeddings.test_item_embeddings import write_sessions

ITEMS = 12
CATALOGUE = Catalogue(
    np.array([f"i{n}" for n in range(ITEMS)], object), np.full(ITEMS, np.datetime64(date.min))
)


@pytest.fixture
def log(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Sessions with repeats and an unknown item, the weights and counts that they give."""
    rng = np.random.default_rng(0)
    weights, watched = np.zeros((ITEMS, ITEMS)), np.zeros(ITEMS)
    shown, positive, past = [], [], []
    for _ in range(60):
        items = (ITEMS * rng.random(rng.integers(0, 7)) ** 2).astype(int).tolist()
        flags = (rng.random(len(items)) < 0.7).tolist()
        before = (ITEMS * rng.random(rng.integers(0, 5)) ** 2).astype(int).tolist()
        shown.append([f"i{n}" for n in items] + ["unknown"])
        positive.append([*flags, True])
        past.append([f"i{n}" for n in before])
        mine = {item for item, flag in zip(items, flags, strict=True) if flag}
        for one, other in combinations(mine, 2):
            weights[[one, other], [other, one]] += 1
        for one in mine:
            watched[one] += 1
            for other in set(before) - {one}:
                weights[[one, other], [other, one]] += 0.5
    columns = {
        "is_positive": pa.array(positive, pa.list_(pa.bool_())),
        "history_item_ids": pa.array(past, pa.list_(pa.string())),
    }
    return write_sessions(tmp_path, "train", shown, **columns), weights, watched


@pytest.mark.parametrize("cells", [1, 30, 4_000_000])
def test_all_pairs_of_a_small_catalogue_are_counted(log, cells: int, monkeypatch) -> None:
    directory, expected, watched = log
    monkeypatch.setattr(co_occurrence, "BLOCK_CELLS", cells)
    pairs, sessions = co_watching(directory, CATALOGUE)
    assert (pairs.toarray() == expected).all()
    assert sessions.tolist() == watched.tolist()
    assert pairs.has_canonical_format
    assert expected.any()


def test_a_large_catalogue_keeps_the_heaviest_pairs_of_each_item(log, monkeypatch) -> None:
    directory, expected, _ = log
    monkeypatch.setattr(collaborative, "MOST_PAIRS", 3 * ITEMS)
    pairs, _ = co_watching(directory, CATALOGUE)
    found = pairs.toarray()
    order = np.argsort(-expected, axis=1, kind="stable")[:, :3]
    mine = np.zeros_like(expected, bool)
    np.put_along_axis(mine, order, True, 1)
    kept = (mine | mine.T) & (expected > 0)
    assert (found == np.where(kept, expected, 0)).all()
    assert pairs.nnz <= 2 * collaborative.MOST_PAIRS
    assert pairs.nnz < np.count_nonzero(expected)
