"""Item vectors from what is watched together: positive mutual information, then a truncated SVD.

Item pairs are counted inside a session and between a session and the history it began with, which
serves the paper's alignment with "real user-item behaviour" (OneRec v1, section 3.1).

Shapes: N items, S sessions.
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from onerec.catalogue import Catalogue
from onerec.embeddings.reduction import truncated_svd
from onerec.session_dataset.co_occurrence import co_occurrence_blocks, largest_per_row
from onerec.session_dataset.incidence import CHUNK, Incidence, IncidenceWriter
from onerec.session_dataset.reader import (
    exposure_flags,
    items_of,
    known_items_of,
    session_batches,
)
from onerec.session_dataset.splits import LEARNED

HISTORY_WEIGHT = 0.5
"""A pair across the session's beginning counts half: it is further apart in time."""
MOST_PAIRS = 64_000_000
"""Entries kept of all items; twice that at most once the matrix is symmetric."""
CONTEXT_SMOOTHING = 0.75
"""Exponent on the context counts, which keeps rare items from looking informative."""


def co_watching(
    sessions: Path, catalogue: Catalogue, splits: Sequence[str] = LEARNED
) -> tuple[sp.csr_array, np.ndarray]:
    """Count item pairs in the training and validation sessions; the test day is never opened.

    Pairs are counted exactly, a block of items at a time: memory grows with the pairs that are
    kept, not with the sessions. Of a session with more than `incidence.LONGEST_ROW` positive items
    a sample counts.

    Args:
        sessions: Directory of a `session_dataset` artifact.
        catalogue: N items; others are left out.
        splits: The splits whose sessions count.

    Returns:
        (N, N) symmetric weights without a diagonal, and (N,) sessions each item was positive in.
        A pair is kept if it is among the `MOST_PAIRS` / N heaviest of either item: all pairs of a
        catalogue of up to 8,000 items.
    """
    shown, history = _incidences(sessions, catalogue, splits)
    most = max(1, MOST_PAIRS // len(catalogue))
    blocks, is_whole = [], True
    for first, block in co_occurrence_blocks(shown, history):
        num_rows = len(block.indptr) - 1
        row, column = np.repeat(np.arange(num_rows), np.diff(block.indptr)), block.indices
        itself = column == row + first
        weights = np.where(itself, -np.inf, block.data)
        heavy = largest_per_row(block.indptr, column, weights, most)
        is_whole &= bool(heavy.all())
        heavy &= ~itself
        kept = (block.data[heavy] * HISTORY_WEIGHT).astype(np.float32)
        shape = (num_rows, len(catalogue))
        blocks.append(sp.coo_array((kept, (row[heavy], column[heavy])), shape=shape).tocsr())
    pairs = sp.csr_array(sp.vstack(blocks, format="csr"))
    return (pairs if is_whole else sp.csr_array(pairs.maximum(pairs.T))), shown.counts()


def _incidences(
    sessions: Path, catalogue: Catalogue, splits: Sequence[str]
) -> tuple[Incidence, Incidence]:
    """(S, N) which items each session holds as positives, and which its history holds."""
    columns = ["item_ids", "is_positive", "history_item_ids"]
    batches = chain(*(session_batches(sessions, split, columns) for split in splits))
    with IncidenceWriter(len(catalogue)) as shown, IncidenceWriter(len(catalogue)) as history:
        for table in batches:
            items, session = items_of(table, "item_ids", catalogue)
            positive = exposure_flags(table, "is_positive") & (items >= 0)
            shown.append(session[positive], items[positive], table.num_rows)
            past, past_session = known_items_of(table, "history_item_ids", catalogue)
            history.append(past_session, past, table.num_rows)
        return shown.finish(), history.finish()


def collaborative_vectors(pairs: sp.csr_array, dim: int) -> np.ndarray:
    """(N, dim) float64 unit vectors; zero for items that were never watched with another."""
    left, values, _ = truncated_svd(_positive_information(pairs), dim)
    # the root keeps weak directions from vanishing beside the first, as is usual here
    vectors = left * np.sqrt(values)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(norms > 1e-8, vectors / np.maximum(norms, 1e-8), 0.0)


def _positive_information(pairs: sp.csr_array) -> sp.csr_array:
    """log(P(i, j) / (P(i) P_smoothed(j))), made symmetric, negative values dropped."""
    total = np.asarray(pairs.sum(1, dtype=np.float64)).ravel()
    smoothed = total**CONTEXT_SMOOTHING
    share = smoothed / max(smoothed.sum(), 1e-12)
    values = np.empty(pairs.nnz)
    for at in range(0, pairs.nnz, CHUNK):
        part = slice(at, at + CHUNK)
        columns, weights = pairs.indices[part], pairs.data[part]
        rows = np.searchsorted(pairs.indptr, np.arange(at, at + len(columns)), side="right") - 1
        forward = np.log(weights / (total[rows] * share[columns]))
        backward = np.log(weights / (total[columns] * share[rows]))
        values[part] = np.maximum((forward + backward) / 2, 0)
    matrix = sp.csr_array((values, pairs.indices, pairs.indptr), shape=pairs.shape, copy=True)
    matrix.eliminate_zeros()
    return matrix
