"""The Gini coefficient: how unequal counts are, of codes in use or of items listed."""

import numpy as np


def gini(counts: np.ndarray) -> float:
    """Inequality of counts: 0 when all are equal, near 1 when one has everything, NaN without any.

    Examples:
        >>> gini(np.array([5, 5, 5, 5])), gini(np.array([0, 0, 0, 8]))
        (0.0, 0.75)
    """
    ordered = np.sort(counts.astype(float))
    if ordered.sum() == 0:
        return float("nan")
    places = np.arange(1, len(ordered) + 1)
    return float((2 * places - len(ordered) - 1) @ ordered / (len(ordered) * ordered.sum()))
