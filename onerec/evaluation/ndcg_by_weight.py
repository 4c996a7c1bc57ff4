"""NDCG@10 by a weight that is chosen by it, over the users of several days.

One day's choice is mostly chance: it has few users, and each day its own fashions. So a nightly run
measures one day, and counts what the nightly runs before measured on theirs as well.
A measurement is about users and their lists, not about tokens, so one of an older tokenizer version
counts like any other.

The best measurement is that of a model as it serves, on the day that it served: a warm start that
learns only the days since its checkpoint makes one, because its validation day is the first that
this model has not learned. A training of all days has none, and measures a model like it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class NdcgByWeight:
    """NDCG@10 of a model's lists on users of one day.

    Attributes:
        users: Users that were measured.
        ndcg: Their mean by weight; empty where no weights were compared.
        as_served: The model served, or could have served, lists on that day.
    """

    users: int = 0
    ndcg: Mapping[float, float] = field(default_factory=dict)
    as_served: bool = False

    def as_json(self) -> dict[str, Any]:
        """As it is stored in files and manifests."""
        ndcg = {str(weight): value for weight, value in self.ndcg.items()}
        return {"users": self.users, "ndcg": ndcg, "as_served": self.as_served}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "NdcgByWeight":
        """Read what `as_json` made."""
        ndcg = {float(weight): value for weight, value in stored["ndcg"].items()}
        return cls(stored["users"], ndcg, stored.get("as_served", False))


NOT_MEASURED = NdcgByWeight()

Earlier = Mapping[str, tuple[NdcgByWeight, ...]]
"""What nightly runs before measured, by name of what the weight is of."""


def counted(days: Sequence[NdcgByWeight]) -> list[NdcgByWeight]:
    """The measurements that choose: those of models as served where there are any.

    Args:
        days: What each measured. Those that compared other weights than the first, because another
            version of the code made them, do not count.
    """
    compared = [day for day in days if day.users]
    same = [day for day in compared if day.ndcg.keys() == compared[0].ndcg.keys()]
    return [day for day in same if day.as_served] or same


def pooled(days: Sequence[NdcgByWeight]) -> dict[float, float]:
    """NDCG@10 by weight over the users of all days that count; empty where none does.

    Args:
        days: What each measured; see `counted`.

    Examples:
        >>> first = NdcgByWeight(100, {0.0: 0.25, 1.0: 0.125})
        >>> second = NdcgByWeight(300, {0.0: 0.5, 1.0: 0.5})
        >>> pooled([first, second, NOT_MEASURED, NdcgByWeight(50, {0.0: 0.5, 3.0: 0.75})])
        {0.0: 0.4375, 1.0: 0.40625}
    """
    measured = counted(days)
    users = [day.users for day in measured]
    return {
        weight: float(np.average([day.ndcg[weight] for day in measured], weights=users))
        for weight in (measured[0].ndcg if measured else ())
    }


def best_of(ndcg: Mapping[float, float]) -> float:
    """The weight of the highest NDCG@10, the first one of equals; 0 where none was tried.

    Examples:
        >>> best_of({0.0: 0.04, 0.5: 0.05, 1.0: 0.05})
        0.5
    """
    return max(ndcg, key=ndcg.__getitem__, default=0.0)
