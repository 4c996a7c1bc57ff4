"""What the simulated A/B test measures, per user and day, and ratios of sums with intervals.

Shapes: D days, U users, S seeds of the traffic, B resamples, E exposures, N items.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from experiments.ab_test.traffic import Exposures
from onerec.datasets.simulator.log import planned_exposures
from onerec.datasets.simulator.world import Array, SimulatedItems
from onerec.statistics import Interval, percentile_interval, resampled_means

COUNTS: tuple[str, ...] = (
    "users",
    "visits",
    "finished_visits",
    "views",
    "watch_seconds",
    "watched",
    "likes",
    "follows",
    "fresh_views",
    "fresh_seconds",
    "popularity",
)
"""Sums per user and day. `users` is 1 on a day on which the user came."""


def daily_sums(
    shown: Exposures, items: SimulatedItems, popularity: Array, num_users: int, fresh: float
) -> Array:
    """The sums of one day, (U, COUNTS).

    Args:
        shown: What was shown and what came of it.
        items: `world.items(day)`.
        popularity: (N,) of the items in the log before the test, from 0 to 1.
        num_users: U.
        fresh: Days up to which an item is fresh.
    """
    visits = shown.visits
    is_fresh = shown.day - items.published[shown.item] < fresh
    _, starts, _ = planned_exposures(visits)
    assert len(starts) == len(visits.length)
    seen = np.bincount(shown.session, minlength=len(visits.length))

    def per_view(values: Array | None = None) -> Array:
        return np.bincount(shown.user, values, num_users)

    def per_visit(values: Array | None = None) -> Array:
        return np.bincount(visits.users[visits.visitor], values, num_users)

    came = np.zeros(num_users)
    came[visits.users] = 1
    columns = {
        "users": came,
        "visits": per_visit(),
        "finished_visits": per_visit((seen == visits.length).astype(float)),
        "views": per_view(),
        "watch_seconds": per_view(shown.watch_seconds),
        "watched": per_view(shown.is_watched),
        "likes": per_view(shown.flags["is_like"]),
        "follows": per_view(shown.flags["is_follow"]),
        "fresh_views": per_view(is_fresh),
        "fresh_seconds": per_view(is_fresh * shown.watch_seconds),
        "popularity": per_view(popularity[shown.item]),
    }
    return np.stack([columns[name] for name in COUNTS], -1).astype(float)


@dataclass(frozen=True)
class Ratio:
    """A mean over users, or a ratio of two: the point, and one value per resample.

    Attributes:
        point: Of all seeds and users.
        draws: (B,).
    """

    point: float
    draws: Array

    def over(self, other: "Ratio") -> "Ratio":
        """How much more than the other, in per cent of it."""
        with np.errstate(invalid="ignore", divide="ignore"):
            point = np.divide(self.point, other.point)
            return Ratio(float(100 * (point - 1)), 100 * (self.draws / other.draws - 1))

    def minus(self, other: "Ratio") -> "Ratio":
        """The difference."""
        return Ratio(self.point - other.point, self.draws - other.draws)

    def share_of(self, whole: "Ratio") -> "Ratio":
        """In per cent of another, which has to be clearly different from 0."""
        with np.errstate(invalid="ignore", divide="ignore"):
            point = float(100 * np.divide(self.point, whole.point))
            return Ratio(point, 100 * self.draws / whole.draws)

    def interval(self, confidence: float) -> Interval:
        """With the percentile interval of the resamples that are finite."""
        drawn = np.where(np.isfinite(self.draws), self.draws, np.nan)
        return percentile_interval(self.point, drawn, confidence=confidence)


def ratios(
    sums: Mapping[str, Array], *, samples: int, seed: int
) -> Callable[[str, str, str | None, slice], Ratio]:
    """Ratios of the arms' sums, all of them on the same resamples, so that differences are paired.

    A resample draws users with replacement, the same ones for every arm, day and seed of the
    traffic, and seeds with replacement.

    Args:
        sums: (S, D, U, COUNTS) of each arm, on the same users.
        samples: B.
        seed: Of the resamples.

    Returns:
        A function of an arm, a numerator, a denominator (None: all users of the app, whether they
        came or not) and a slice of days.
    """
    shapes = {values.shape for values in sums.values()}
    assert len(shapes) == 1, "every arm serves the same users on the same days"
    num_seeds, num_days, num_users, _ = shapes.pop()
    # Cumulative over days: any stretch of days is one difference, and resampling is done once.
    flat = [
        np.pad(values.cumsum(1), ((0, 0), (1, 0), (0, 0), (0, 0)))
        .transpose(2, 0, 1, 3)
        .reshape(num_users, -1)
        for values in sums.values()
    ]
    means = resampled_means(np.concatenate(flat, 1), samples=samples, seed=seed)
    shape = (samples, len(sums), num_seeds, num_days + 1, len(COUNTS))
    drawn = np.random.default_rng([seed, 1]).integers(0, num_seeds, (samples, num_seeds))
    picked = np.take_along_axis(means.reshape(shape), drawn[:, None, :, None, None], 2).mean(2)
    exact = np.stack([values.cumsum(1).mean((0, 2)) for values in sums.values()])
    exact = np.pad(exact, ((0, 0), (1, 0), (0, 0)))
    arms, columns = list(sums), COUNTS

    def ratio(arm: str, above: str, below: str | None, days: slice) -> Ratio:
        first, last, _ = days.indices(num_days)
        at, up = arms.index(arm), columns.index(above)

        def share(values: Array) -> Array:
            total = values[..., at, last, :] - values[..., at, first, :]
            if below is None:
                return total[..., up]
            down = columns.index(below)
            with np.errstate(invalid="ignore", divide="ignore"):
                return total[..., up] / total[..., down]

        return Ratio(float(share(exact)), share(picked))

    return ratio
