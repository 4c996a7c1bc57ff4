"""A prior for what is watched at present, added to log-probabilities when lists are made.

A generator's weights are as old as its training; counts of the newest day cost nothing. With weight
w an item counts log p(item | history) + w log(1 + watches on the newest days). Which w is best says
the validation day (`onerec.evaluation.recency`).
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onerec.artifacts import read_json, write_json

FILE = "recency_prior.json"


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

    def save(self, directory: Path) -> None:
        """Write `recency_prior.json`, for models whose checkpoint has no place for it."""
        write_json(directory / FILE, asdict(self))

    @staticmethod
    def load(directory: Path) -> "RecencyPrior":
        """Read what `save` wrote; no prior where it wrote nothing."""
        file = directory / FILE
        return RecencyPrior(**read_json(file)) if file.exists() else NO_PRIOR


NO_PRIOR = RecencyPrior()
