"""A prior for what is watched at present, added to log-probabilities when lists are made.

A generator's weights are as old as its training; counts of the newest day cost nothing. With weight
w an item counts w log(1 + watches on the newest days) more. Which w is best say
the last validation days (`onerec.evaluation.recency`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RecencyPrior:
    """How much recent watches count in a model's lists.

    Attributes:
        weight: w; 0 leaves the prior out.
        days: The newest days that are counted.
    """

    weight: float = 0.0
    days: int = 1

    def of(self, watches: np.ndarray) -> Tensor | None:
        """(N,) what is added for every item, from its watches (N,); None without a weight.

        Examples:
            >>> RecencyPrior(weight=0.5).of(np.array([0.0, np.e - 1])).tolist()
            [0.0, 0.5]
        """
        return torch.from_numpy(self.weight * np.log1p(watches)) if self.weight else None


NO_PRIOR = RecencyPrior()
