"""Percentile bootstrap over users: how far a mean would move with other users of the same kind.

A case is a user, so resampling cases resamples users. All columns of one call see the same
resamples, which is what makes the interval of a difference a paired one.
"""

from typing import NamedTuple

import numpy as np

CHUNK_CELLS = 4_000_000
"""Resample weights held at once; bounds memory, changes nothing else."""


class Interval(NamedTuple):
    """A mean and its percentile interval."""

    mean: float
    low: float
    high: float


def resampled_means(values: np.ndarray, *, samples: int, seed: int) -> np.ndarray:
    """Means of several columns over resampled users, (samples, M).

    Args:
        values: (C, M) one row per user; NaN means the user has no value in that column.
        samples: Resamples; all columns see the same ones.
        seed: Of the resamples.

    Raises:
        ValueError: There is no user, or no resample is asked for.
    """
    if len(values) == 0:
        raise ValueError("values: no user to resample; is the test day empty?")
    if samples < 1:
        raise ValueError(f"samples={samples!r}: use at least 1, 1000 is usual")
    users, columns = values.shape
    known = ~np.isnan(values)
    # One product gives the sums and the counts of every column.
    both = np.concatenate([np.where(known, values, 0.0), known.astype(float)], axis=1)
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK_CELLS // users)
    sums = []
    for start in range(0, samples, chunk):
        rows = min(chunk, samples - start)
        drawn = rng.integers(0, users, (rows, users)) + np.arange(rows)[:, None] * users
        weights = np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users)
        sums.append(weights.astype(float) @ both)
    resampled = np.concatenate(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        return resampled[:, :columns] / resampled[:, columns:]


def bootstrap_means(
    values: np.ndarray, *, samples: int, confidence: float, seed: int
) -> list[Interval]:
    """Means of several columns with intervals.

    Args:
        values: (C, M) one row per user; NaN means the user has no value in that column.
        samples: Resamples.
        confidence: E.g. 0.95.
        seed: Of the resamples.

    Returns:
        M intervals; a column without any value, or with a value that is infinite, is NaN
        throughout.

    Raises:
        ValueError: There is no user, or the settings make no sense.

    Examples:
        >>> ones = np.ones((50, 1))
        >>> bootstrap_means(ones, samples=100, confidence=0.95, seed=0)
        [Interval(mean=1.0, low=1.0, high=1.0)]
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r}: use a share between 0 and 1, 0.95 is usual")
    means = resampled_means(values, samples=samples, seed=seed)
    columns = values.shape[1]
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.where(known, values, 0.0).sum(0) / known.sum(0)
    tail = (1 - confidence) / 2
    intervals = []
    for column in range(columns):
        drawn_means = means[:, column][~np.isnan(means[:, column])]
        if len(drawn_means) == 0 or not np.isfinite(centre[column]):
            intervals.append(Interval(np.nan, np.nan, np.nan))
            continue
        low, high = np.quantile(drawn_means, [tail, 1 - tail])
        intervals.append(Interval(float(centre[column]), float(low), float(high)))
    return intervals


def bootstrap_mean(
    values: np.ndarray, *, samples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """The mean of one column with its interval: see `bootstrap_means`."""
    column = np.asarray(values, dtype=float)[:, None]
    return bootstrap_means(column, samples=samples, confidence=confidence, seed=seed)[0]


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of `a - b` over the same users, with its interval.

    Much narrower than comparing two intervals: what makes a user hard is hard for both systems.

    Args:
        a: (C,) values of one system.
        b: (C,) values of another one for the same users in the same order.
        samples: Resamples.
        confidence: E.g. 0.95.
        seed: Of the resamples.

    Raises:
        ValueError: The two are not of one length.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(
            f"a={np.shape(a)}, b={np.shape(b)}: a paired difference needs the same users on both "
            f"sides"
        )
    return bootstrap_mean(
        np.asarray(a, dtype=float) - np.asarray(b, dtype=float),
        samples=samples,
        confidence=confidence,
        seed=seed,
    )
