"""Common random numbers: policies of a simulated A/B test share every random draw."""

from typing import Any

import numpy as np
from scipy.special import betaincinv

from onerec.datasets.simulator.world import Array, hash_uniform


class CommonNoise:
    """Random numbers that are a function of who, when and what for, and of nothing else.

    It has the methods of a generator that users' behaviour draws from, so one behaviour serves the
    log and the test. The n-th call has its own numbers: two policies get the same ones as long as
    both go through the same calls. What a user likes better at a place, they watch longer there,
    under whichever policy it was shown.

    Args:
        keys: Broadcastable non-negative integers that say whose number it is, (E,) in all.
    """

    def __init__(self, *keys: Array | int) -> None:
        self._keys = np.broadcast_arrays(*keys)
        self._calls = 0

    def random(self, size: Any = None) -> Array:
        """(E,) uniform numbers in [0, 1)."""
        self._calls += 1
        uniform = hash_uniform(self._calls, *self._keys)
        assert size is None or np.broadcast_shapes(size) == uniform.shape, "one number per key"
        return uniform

    def exponential(self, scale: float, size: Any = None) -> Array:
        """(E,) exponential numbers with a mean."""
        return -scale * np.log1p(-self.random(size))

    def beta(self, a: Array, b: Array) -> Array:
        """(E,) Beta-distributed numbers, by the inverse of the distribution function."""
        return betaincinv(a, b, self.random())
