"""Statistics that several stages share: the percentile bootstrap, and the Gini coefficient.

A case is a user, so resampling cases resamples users. All columns of one call see the same
resamples, which makes the interval of a difference a paired one.
"""

import math
from typing import Literal, NamedTuple

import numpy as np

CHUNK_CELLS = 4_000_000
"""Resample weights held at once; bounds memory, changes nothing else."""


class Interval(NamedTuple):
    """A mean and its percentile interval; NaN ends where it has none.

    Examples:
        >>> gain = Interval(0.05, 0.04, 0.0612)
        >>> str(gain), gain.text(signed=True, decimals=2), Interval(0.5, math.nan, math.nan).text()
        ('0.0500 [0.0400, 0.0612]', '+0.05 [+0.04, +0.06]', '0.5000')
        >>> gain.significance, gain.text(unit=" %", decimals=2)
        ('significantly above', '0.05 % [0.04, 0.06]')
        >>> gain.flat("gain")
        {'gain': 0.05, 'gain_low': 0.04, 'gain_high': 0.0612}
    """

    mean: float
    low: float
    high: float

    @property
    def significance(
        self,
    ) -> Literal["significantly above", "significantly below", "no significant difference"]:
        """Of a difference: whether its interval excludes 0, and on which side it lies."""
        if self.low > 0:
            return "significantly above"
        if self.high < 0:
            return "significantly below"
        return "no significant difference"

    def text(self, *, signed: bool = False, decimals: int = 4, unit: str = "") -> str:
        """`mean [low, high]`, the mean alone without an interval, `n/a` where it is NaN."""
        if math.isnan(self.mean):
            return "n/a"
        shown = [f"{number:{'+' if signed else ''}.{decimals}f}" for number in self]
        has_interval = not (math.isnan(self.low) or math.isnan(self.high))
        mean = shown[0] + unit
        return f"{mean} [{shown[1]}, {shown[2]}]" if has_interval else mean

    def __str__(self) -> str:
        return self.text()

    def flat(self, name: str) -> dict[str, float]:
        """For JSON: `name`, `name_low` and `name_high`."""
        return {name: self.mean, f"{name}_low": self.low, f"{name}_high": self.high}


NO_VALUE = Interval(math.nan, math.nan, math.nan)
"""Of a number that was not measured."""


def percentile_interval(value: float, resampled: np.ndarray, *, confidence: float) -> Interval:
    """A number with the percentile interval of what it is in other samples.

    Args:
        value: The number as measured.
        resampled: (samples,) the same of every resample; NaN where a resample has none.
        confidence: E.g. 0.95.

    Returns:
        The interval; `NO_VALUE` where the number is not finite or no resample has one.
    """
    low, high = percentile_ends(resampled, confidence=confidence)
    if math.isnan(low) or not math.isfinite(value):
        return NO_VALUE
    return Interval(float(value), low, high)


def percentile_ends(resampled: np.ndarray, *, confidence: float) -> tuple[float, float]:
    """Both ends of a percentile interval over resamples; NaN where no resample has a value."""
    known = resampled[~np.isnan(resampled)]
    if len(known) == 0:
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def resampled_means(values: np.ndarray, *, samples: int, seed: int) -> np.ndarray:
    """Means of several columns over resampled users, (samples, M).

    Args:
        values: (C, M) one row per user; NaN means the user has no value in that column.
        samples: Resamples; all columns see the same ones.
        seed: Of the resamples.

    Raises:
        ValueError: There is no user, or `samples` is below 1.
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
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.where(known, values, 0.0).sum(0) / known.sum(0)
    return [
        percentile_interval(value, column, confidence=confidence)
        for value, column in zip(centre.tolist(), means.T, strict=True)
    ]


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


def gini(counts: np.ndarray) -> float:
    """Concentration of counts: 0 when all are equal, near 1 when one has all; NaN of nothing.

    Examples:
        >>> gini(np.array([5, 5, 5, 5])), gini(np.array([0, 0, 0, 8]))
        (0.0, 0.75)
    """
    ordered = np.sort(counts.astype(float))
    if ordered.sum() == 0:
        return float("nan")
    places = np.arange(1, len(ordered) + 1)
    return float((2 * places - len(ordered) - 1) @ ordered / (len(ordered) * ordered.sum()))
