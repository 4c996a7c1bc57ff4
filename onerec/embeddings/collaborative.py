"""Item vectors from what is watched together: positive mutual information, then a truncated SVD.

Item pairs are counted inside a session and between a session and the history it began with, which
serves the paper's alignment with "real user-item behaviour" (OneRec v1, section 3.1).

Shapes: N items, S sessions.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import scipy.sparse as sp

from onerec.embeddings.reduction import truncated_svd

LEARNED = ("train", "valid")
"""The splits that are read."""
HISTORY_WEIGHT = 0.5
"""A pair across the session's beginning counts half: it is further apart in time."""
CONTEXT_SMOOTHING = 0.75
"""Exponent on the context counts, which keeps rare items from looking informative."""


def co_watching(sessions: Path, item_ids: pa.Array) -> tuple[sp.csr_array, np.ndarray]:
    """Count item pairs in the training and validation sessions; the test day is never opened.

    Args:
        sessions: Directory of a `session_dataset` artifact.
        item_ids: (N,) items that get rows; others are left out.

    Returns:
        (N, N) symmetric weights without a diagonal, and (N,) sessions each item was positive in.
    """
    num_items = len(item_ids)
    files = [str(f) for s in LEARNED for f in sorted((sessions / f"split={s}").glob("*.parquet"))]
    if not files:
        return sp.csr_array((num_items, num_items)), np.zeros(num_items)
    rows = ds.dataset(files, format="parquet", partitioning=None).to_table(
        columns=["item_ids", "is_positive", "history_item_ids"]
    )
    positive = pc.list_flatten(rows["is_positive"]).to_numpy(zero_copy_only=False).astype(bool)
    shown = _incidence(rows["item_ids"], item_ids, positive)
    history = _incidence(rows["history_item_ids"], item_ids, None)
    across = HISTORY_WEIGHT * (shown.T @ history)
    pairs = sp.csr_array(shown.T @ shown + across + across.T)
    pairs.setdiag(0)
    pairs.eliminate_zeros()
    return pairs, np.asarray(shown.sum(0)).ravel()


def collaborative_vectors(pairs: sp.csr_array, dim: int, seed: int) -> np.ndarray:
    """(N, dim) float64 unit vectors; zero for items that were never watched with another."""
    left, values, _ = truncated_svd(_positive_information(pairs), dim, seed)
    # the root keeps weak directions from vanishing beside the first, as is usual here
    vectors = left * np.sqrt(values)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(norms > 1e-8, vectors / np.maximum(norms, 1e-8), 0.0)


def _incidence(lists: pa.ChunkedArray, item_ids: pa.Array, keep: np.ndarray | None) -> sp.csr_array:
    """(S, N) 0/1: which items a session holds."""
    sessions = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    items = pc.index_in(pc.list_flatten(lists), value_set=item_ids)
    items = pc.fill_null(items, -1).to_numpy(zero_copy_only=False)
    known = items >= 0 if keep is None else keep & (items >= 0)
    cells = (sessions[known], items[known])
    shape = (len(lists), len(item_ids))
    matrix = sp.coo_array((np.ones(int(known.sum()), np.float32), cells), shape=shape).tocsr()
    matrix.data[:] = 1  # seen twice in a session is once
    return matrix


def _positive_information(pairs: sp.csr_array) -> sp.csr_array:
    """log(P(i, j) / (P(i) P_smoothed(j))), made symmetric, negative values dropped."""
    cells = pairs.tocoo()
    total = np.asarray(pairs.sum(1)).ravel().astype(np.float64)
    smoothed = total**CONTEXT_SMOOTHING
    share = smoothed / max(smoothed.sum(), 1e-12)
    rows, columns = cells.row, cells.col
    forward = np.log(cells.data / (total[rows] * share[columns]))
    backward = np.log(cells.data / (total[columns] * share[rows]))
    values = np.maximum((forward + backward) / 2, 0)
    matrix = sp.coo_array((values, (rows, columns)), shape=pairs.shape).tocsr()
    matrix.eliminate_zeros()
    return matrix
