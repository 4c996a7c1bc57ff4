"""Item vectors from what is watched together: positive mutual information, then a truncated SVD.

Item pairs are counted inside a session and between a session and the history it began with, which
serves the paper's alignment with "real user-item behaviour" (OneRec v1, section 3.1).

Shapes: N items, S sessions.
"""

from pathlib import Path

import numpy as np
import scipy.sparse as sp

from onerec.catalogue import Catalogue
from onerec.embeddings.reduction import truncated_svd
from onerec.session_dataset.reader import (
    exposure_flags,
    items_of,
    known_items_of,
    read_sessions,
)
from onerec.session_dataset.splits import LEARNED

HISTORY_WEIGHT = 0.5
"""A pair across the session's beginning counts half: it is further apart in time."""
CONTEXT_SMOOTHING = 0.75
"""Exponent on the context counts, which keeps rare items from looking informative."""


def co_watching(sessions: Path, catalogue: Catalogue) -> tuple[sp.csr_array, np.ndarray]:
    """Count item pairs in the training and validation sessions; the test day is never opened.

    Args:
        sessions: Directory of a `session_dataset` artifact.
        catalogue: N items; others are left out.

    Returns:
        (N, N) symmetric weights without a diagonal, and (N,) sessions each item was positive in.
    """
    rows = read_sessions(sessions, LEARNED, ["item_ids", "is_positive", "history_item_ids"])
    shape = (rows.num_rows, len(catalogue))
    items, session = items_of(rows, "item_ids", catalogue)
    positive = exposure_flags(rows, "is_positive") & (items >= 0)
    shown = _incidence(items[positive], session[positive], shape)
    history = _incidence(*known_items_of(rows, "history_item_ids", catalogue), shape)
    across = HISTORY_WEIGHT * (shown.T @ history)
    pairs = sp.csr_array(shown.T @ shown + across + across.T)
    pairs.setdiag(0)
    pairs.eliminate_zeros()
    return pairs, np.asarray(shown.sum(0)).ravel()


def collaborative_vectors(pairs: sp.csr_array, dim: int) -> np.ndarray:
    """(N, dim) float64 unit vectors; zero for items that were never watched with another."""
    left, values, _ = truncated_svd(_positive_information(pairs), dim)
    # the root keeps weak directions from vanishing beside the first, as is usual here
    vectors = left * np.sqrt(values)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(norms > 1e-8, vectors / np.maximum(norms, 1e-8), 0.0)


def _incidence(items: np.ndarray, sessions: np.ndarray, shape: tuple[int, int]) -> sp.csr_array:
    """(S, N) 0/1: which items a session holds."""
    ones = np.ones(len(items), np.float32)
    matrix = sp.coo_array((ones, (sessions, items)), shape=shape).tocsr()
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
