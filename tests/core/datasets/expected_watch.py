"""What the simulated users watch on average, in closed form: an oracle for tests."""

import numpy as np

from onerec.datasets.simulator.behaviour import (
    REWATCH,
    SKIP_SECONDS,
    expected_watch_share,
    stay_probability,
)
from onerec.datasets.simulator.world import Array


def expected_watch(affinity: Array, duration: Array, position: Array | int = 0) -> Array:
    """Expected seconds of the behaviour that `draw_watch` draws."""
    stay = stay_probability(affinity, position)
    skipped = SKIP_SECONDS * (1.0 - np.exp(-duration / SKIP_SECONDS))
    stayed = duration * (expected_watch_share(affinity, duration) + 0.5 * REWATCH)
    return (1.0 - stay) * skipped + stay * stayed
