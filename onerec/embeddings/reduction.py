"""Deterministic linear reductions: truncated SVD, principal components, ridge regression.

Signs are fixed by making each component's largest coordinate positive, so that equal inputs give
equal bytes. Shapes: N items, D columns, d kept.
"""

from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import svds


def truncated_svd(matrix: sp.csr_array, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leading singular vectors of a sparse matrix.

    Args:
        matrix: (N, D) non-negative.
        dim: d; where the matrix has fewer directions, the rest is zeros.

    Returns:
        (N, d) left vectors, (d,) values in falling order, (D, d) right vectors.
    """
    num_rows, num_columns = cast(tuple[int, int], matrix.shape)
    left, values, right = np.zeros((num_rows, dim)), np.zeros(dim), np.zeros((num_columns, dim))
    rank = min(dim, min(num_rows, num_columns) - 1)
    if rank < 1 or matrix.nnz == 0:
        return left, values, right
    # any start ends in the same directions; a fixed one ends in the same last bits
    start = np.random.default_rng(0).standard_normal(min(num_rows, num_columns))
    u, s, vt = cast(Any, svds)(matrix.astype(np.float64, copy=False), k=rank, v0=start)
    order = np.argsort(-s, kind="stable")
    # below this a direction is rounding noise, different on every machine
    order = order[s[order] > 1e-8 * s.max()]
    signs = _signs(vt[order])
    left[:, : len(order)] = u[:, order] * signs
    values[: len(order)] = s[order]
    right[:, : len(order)] = vt[order].T * signs
    return left, values, right


def principal_components(
    vectors: np.ndarray, fitted_on: np.ndarray, dim: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (dim', D) axes of the rows in `fitted_on`, largest variance first.

    Args:
        vectors: (N, D).
        fitted_on: (N,) bool; at least one row.
        dim: Axes wanted; fewer come back when D is smaller.
    """
    rows = vectors[fitted_on].astype(np.float64)
    mean = rows.mean(0)
    centred = rows - mean
    values, axes = np.linalg.eigh(centred.T @ centred)
    order = np.argsort(-values, kind="stable")[:dim]
    kept = np.where(values[order, None] > 1e-10 * max(values.max(), 1e-300), axes.T[order], 0.0)
    return mean, kept * _signs(kept)[:, None]


def ridge(features: np.ndarray, targets: np.ndarray, strength: float) -> np.ndarray:
    """(D, d) weights minimising squared error plus `strength` times squared weights."""
    gram = features.T @ features + strength * np.eye(features.shape[1])
    return np.linalg.solve(gram, features.T @ targets)


def _signs(axes: np.ndarray) -> np.ndarray:
    """(d,): the sign of each row's largest coordinate."""
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    return np.where(signs == 0, 1, signs)
