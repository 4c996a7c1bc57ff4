"""Means and intervals over users and seeds of a system trained with several seeds.

Shapes: S seeds, C cases (users), B resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.reporting.result_tables import TrainingCost
from onerec.evaluation.metric_table import CaseValues, Metric, MetricRow, TableColumn
from onerec.statistics import NO_VALUE, Interval, percentile_interval, resampled_means


@dataclass(frozen=True)
class SeededValues:
    """Per-user values of one system, a row per seed.

    Attributes:
        values: (S, C) by metric; NaN where a user has no value.
        seconds: Training time of all seeds; None where nothing was trained.
    """

    values: CaseValues
    seconds: float | None = None

    @property
    def cost(self) -> TrainingCost:
        """What making it took."""
        return TrainingCost(seeds=len(next(iter(self.values.values()))), seconds=self.seconds)


def seeded_interval(
    values: np.ndarray, *, samples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Mean over seeds and users with a percentile interval over both.

    Every resample draws users with replacement, the same ones for all seeds, and seeds with
    replacement. With fewer than five seeds their variance is underestimated and the interval tends
    to be too narrow; with one seed it covers users only.

    Args:
        values: (S, C); NaN where a user has no value.
        samples: B.
        confidence: E.g. 0.95.
        seed: Of the resamples.

    Raises:
        ValueError: There is no seed or no user.
    """
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"values={values.shape}: use (seeds, users), at least one of each")
    means = resampled_means(values.T, samples=samples, seed=seed)  # (B, S)
    if np.isnan(values).all(axis=1).any():
        return NO_VALUE
    return interval_of(np.nanmean(values, axis=1), means, confidence=confidence, seed=seed)


def interval_of(
    measured: np.ndarray, resampled: np.ndarray, *, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """As `seeded_interval`, for a metric that is no mean over users, such as an AUC.

    Args:
        measured: (S,) metric of every seed.
        resampled: (B, S) metric on resampled users, the same for all seeds; NaN where undefined.
        confidence: E.g. 0.95.
        seed: Seed of the resampling of seeds.
    """
    rng = np.random.default_rng([seed, 1])
    drawn = rng.integers(0, resampled.shape[1], resampled.shape)
    pooled = np.take_along_axis(resampled, drawn, axis=1).mean(axis=1)
    return percentile_interval(float(measured.mean()), pooled, confidence=confidence)


def seeded_rows(
    systems: Mapping[str, SeededValues],
    metrics: Sequence[Metric],
    *,
    minus: Sequence[str] = (),
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[MetricRow]:
    """Rows of every system and metric, and of the paired differences to other systems.

    Args:
        systems: Values by system, on the same users in the same order.
        metrics: Metrics to include; systems without one have no row for it.
        minus: Reference systems, with which all others are compared.
        samples: Number of resamples.
        confidence: Confidence of the intervals.
        seed: Seed of the resamples.

    Raises:
        ValueError: Two systems have different numbers of users.
    """
    settings = {"samples": samples, "confidence": confidence, "seed": seed}
    rows = []
    for name, system in systems.items():
        for metric in metrics:
            if metric not in system.values:
                continue
            mine = system.values[metric]
            rows.append(MetricRow.of(name, TableColumn(*metric), seeded_interval(mine, **settings)))
            for other in minus:
                if other == name or metric not in systems[other].values:
                    continue
                theirs = systems[other].values[metric]
                found = seeded_interval(_paired(name, mine, other, theirs), **settings)
                rows.append(MetricRow.of(name, TableColumn(*metric, other), found))
    return rows


def _paired(name: str, mine: np.ndarray, other: str, theirs: np.ndarray) -> np.ndarray:
    """Differences per user, paired by seed where both have the same seeds, else to the mean."""
    if mine.shape[1] != theirs.shape[1]:
        raise ValueError(
            f"{name} was measured on {mine.shape[1]} users and {other} on {theirs.shape[1]}: a "
            "paired difference needs the same ones"
        )
    if len(mine) == len(theirs):
        return mine - theirs
    return mine - theirs.mean(axis=0, keepdims=True)
