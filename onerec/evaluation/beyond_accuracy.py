"""Beyond-accuracy metrics of ranked lists: diversity, coverage, novelty, exposure.

All read the first k items of each list; -1 is padding and left out.
"""

import numpy as np


def intra_list_distance(ranked: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Mean cosine distance between two different places of a list.

    Args:
        ranked: (C, k) item indices, -1 padded.
        vectors: (N, Dv) unit-norm item vectors.

    Returns:
        (C,) values in [0, 2]; NaN for a list of fewer than two items.

    Examples:
        >>> vectors = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> intra_list_distance(np.array([[0, 1], [0, 0], [1, -1]]), vectors).tolist()
        [1.0, 0.0, nan]
    """
    there = ranked >= 0
    count = there.sum(1)
    # |sum of unit vectors|^2 = count + 2 * sum over pairs of their cosines: no (k, k) matrix
    # needed.
    rows = np.where(there[..., None], vectors[np.where(there, ranked, 0)], 0.0).astype(float)
    cosines = (rows.sum(1) ** 2).sum(-1) - (rows**2).sum((1, 2))
    pairs = count * (count - 1)
    return np.where(pairs > 0, 1 - cosines / np.maximum(pairs, 1), np.nan)


def novelty(ranked: np.ndarray, popularity: np.ndarray) -> np.ndarray:
    """Mean self-information of a list's items: -log2 of their share of what was watched.

    Args:
        ranked: (C, k) item indices, -1 padded.
        popularity: (N,) watch counts; one is added to each, so that an unwatched item is finite.

    Returns:
        (C,) bits; NaN for an empty list.

    Examples:
        >>> novelty(np.array([[0], [1], [-1]]), np.array([2.0, 0.0])).round(3).tolist()
        [0.415, 2.0, nan]
    """
    bits = -np.log2((popularity + 1) / (popularity + 1).sum())
    there = ranked >= 0
    total = np.where(there, bits[np.where(there, ranked, 0)], 0.0).sum(1)
    count = there.sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def exposure(ranked: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """How often each candidate item is listed.

    Args:
        ranked: (C, k) item indices, -1 padded.
        candidates: (N,) booleans.

    Returns:
        Counts, one per candidate.
    """
    counts = np.bincount(ranked[ranked >= 0], minlength=len(candidates))
    return counts[candidates]


def coverage(ranked: np.ndarray, candidates: np.ndarray) -> float:
    """Share of the candidate items that are in any list.

    Examples:
        >>> coverage(np.array([[0, 1], [1, -1]]), np.array([True, True, True, True]))
        0.5
    """
    return float((exposure(ranked, candidates) > 0).mean())
