"""Ground truth of the simulator: how users really behave, given what they are shown.

Everything here is a pure vectorised function of users, items and a day. None of it reaches a model:
the log shows only what was drawn from it. A simulated A/B test compares policies on it.
"""

from typing import Any, Protocol

import numpy as np

from onerec.datasets.simulator.world import (
    SUBTOPICS_PER_TOPIC,
    Array,
    SimulatedItems,
    SimulatedUsers,
    World,
)

BASE = -1.1
INTEREST = 3.4
QUALITY = 0.75
STYLE = 0.55
FATIGUE = 0.06
SKIP_SECONDS = 1.8
BETA_CONCENTRATION = 3.5
REWATCH = 0.06
MEAN_SHARES = 0.01, 0.99
"""Bounds of the mean watched share of those who stay."""
FEEDBACK = {
    # name: (logit at a stay of average affinity, slope in affinity)
    "is_like": (-4.1, 0.75),
    "is_follow": (-6.5, 0.9),
    "is_comment": (-5.6, 0.6),
    "is_share": (-5.9, 0.6),
}
DISLIKE = (-6.0, -0.7)


class Draws(Protocol):
    """What behaviour draws from: the part of `numpy.random.Generator` that it uses."""

    def random(self, size: Any = None) -> Array:
        """Uniform numbers in [0, 1)."""
        ...

    def exponential(self, scale: float, size: Any = None) -> Array:
        """Exponential numbers of a mean."""
        ...

    def beta(self, a: Array, b: Array) -> Array:
        """Beta-distributed numbers."""
        ...


def affinity(
    world: World,
    users: SimulatedUsers,
    rows: Array,
    items: SimulatedItems,
    day: float,
    pairs: tuple[Array, Array] | None = None,
) -> Array:
    """How much users like items, in logits: interest, taste, quality and patience.

    Args:
        world: The app.
        users: Its users.
        rows: (A,) rows of the users wanted.
        items: N items.
        day: Day number.
        pairs: Which of the A users and N items, (E,) each; all A * N of them when None.

    Returns:
        (A, N), or (E,) with `pairs`.
    """
    user, item = np.ogrid[: len(rows), : len(items)] if pairs is None else pairs
    fine = taste(world, users, rows, day)
    column = items.topic * SUBTOPICS_PER_TOPIC + items.subtopic
    style = (users.style[rows] @ items.style.T)[user, item] / np.sqrt(items.style.shape[1])
    common = BASE + QUALITY * items.quality
    interest = INTEREST * fine[user, column[item]]
    return interest + STYLE * style + common[item] + users.patience[rows][user]


def taste(world: World, users: SimulatedUsers, rows: Array, day: float) -> Array:
    """Interest by subtopic, (A, topics * subtopics), in [0, 1]."""
    interest = world.interests(users, rows, day)
    within = 0.35 + 0.65 * users.subtopic[rows]
    return (interest[:, :, None] * within).reshape(len(rows), -1)


def stay_probability(affinity: Array, position: Array | int) -> Array:
    """Chance that an exposure is not swiped away at once; falls along the session."""
    return sigmoid(affinity - FATIGUE * np.asarray(position))


def expected_watch_share(affinity: Array, duration: Array) -> Array:
    """Mean watched share of those who stay; long items are finished less often."""
    return sigmoid(0.5 + 0.45 * affinity - 0.35 * np.log(duration / 20.0))


def expected_watch_seconds(affinity: Array, duration: Array, position: Array | int = 0) -> Array:
    """Mean of the seconds that `draw_watch` draws, in closed form; shapes broadcast.

    Args:
        affinity: In logits.
        duration: Seconds.
        position: Place in the session, from 0.
    """
    stay = stay_probability(affinity, position)
    swiped = SKIP_SECONDS * (1.0 - np.exp(-duration / SKIP_SECONDS))
    mean = expected_watch_share(affinity, duration).clip(*MEAN_SHARES)
    return (1.0 - stay) * swiped + stay * duration * (mean + 0.5 * REWATCH)


def draw_watch(
    rng: Draws, affinity: Array, duration: Array, position: Array
) -> tuple[Array, Array]:
    """Draw watch seconds and whether the user stayed, both (E,).

    A swipe comes within seconds; those who stay watch a Beta-distributed share, and now and then
    part of it again.
    """
    stays = rng.random(affinity.shape) < stay_probability(affinity, position)
    mean = expected_watch_share(affinity, duration).clip(*MEAN_SHARES)
    share = rng.beta(mean * BETA_CONCENTRATION, (1.0 - mean) * BETA_CONCENTRATION)
    again = np.where(rng.random(affinity.shape) < REWATCH, rng.random(affinity.shape), 0.0)
    swiped = np.minimum(rng.exponential(SKIP_SECONDS, affinity.shape), duration)
    return np.where(stays, duration * (share + again), swiped), stays


def draw_feedback(rng: Draws, affinity: Array, stays: Array, generosity: Array) -> dict[str, Array]:
    """Draw the sparse explicit feedback, each (E,) booleans."""
    drawn = {}
    for name, (base, slope) in FEEDBACK.items():
        chance = sigmoid(base + slope * affinity + generosity)
        drawn[name] = stays & (rng.random(affinity.shape) < chance)
    chance = sigmoid(DISLIKE[0] + DISLIKE[1] * affinity + 0.5 * generosity)
    drawn["is_dislike"] = ~drawn["is_like"] & (rng.random(affinity.shape) < chance)
    return drawn


def sigmoid(x: Array) -> Array:
    """The logistic function."""
    return 1.0 / (1.0 + np.exp(-x))
