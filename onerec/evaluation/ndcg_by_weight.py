"""NDCG@10 by a weight that is chosen by it, over the users of several validation days.

One day's choice is mostly chance: it has few users, and each day its own fashions. So a nightly run
measures its own validation day, and counts what the nightly runs before measured on theirs as well.
A measurement is about users and their lists, not about tokens, so one of an older tokenizer version
counts like any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class NdcgByWeight:
    """NDCG@10 of a model's lists on users of one validation day.

    Attributes:
        users: Users that were measured.
        ndcg: Their mean by weight; empty where no weights were compared.
    """

    users: int = 0
    ndcg: Mapping[float, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As it is stored in files and manifests."""
        return {"users": self.users, "ndcg": {str(w): value for w, value in self.ndcg.items()}}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "NdcgByWeight":
        """Read what `as_json` made."""
        return cls(stored["users"], {float(w): value for w, value in stored["ndcg"].items()})


NOT_MEASURED = NdcgByWeight()

Earlier = Mapping[str, tuple[NdcgByWeight, ...]]
"""What nightly runs before measured, by name of what the weight is of."""


def pooled(days: Sequence[NdcgByWeight]) -> dict[float, float]:
    """NDCG@10 by weight over the users of all days; empty where none compared weights.

    Args:
        days: What each measured. Those that compared other weights than the first, because another
            version of the code made them, do not count.

    Examples:
        >>> first = NdcgByWeight(100, {0.0: 0.25, 1.0: 0.125})
        >>> second = NdcgByWeight(300, {0.0: 0.5, 1.0: 0.5})
        >>> pooled([first, second, NOT_MEASURED, NdcgByWeight(50, {0.0: 0.5, 3.0: 0.75})])
        {0.0: 0.4375, 1.0: 0.40625}
    """
    compared = [day for day in days if day.users]
    if not compared:
        return {}
    weights = compared[0].ndcg.keys()
    same = [day for day in compared if day.ndcg.keys() == weights]
    users = [day.users for day in same]
    return {
        weight: float(np.average([day.ndcg[weight] for day in same], weights=users))
        for weight in weights
    }


def best_of(ndcg: Mapping[float, float]) -> float:
    """The weight of the highest NDCG@10, the first one of equals; 0 where none was tried.

    Examples:
        >>> best_of({0.0: 0.04, 0.5: 0.05, 1.0: 0.05})
        0.5
    """
    return max(ndcg, key=ndcg.__getitem__, default=0.0)
