"""An oracle that lists what a generator proposes, chosen by the simulator's ground truth.

Its arm is the ceiling of choosing among a generator's own candidates, whatever the reward model.

Shapes: C users of a request, H history items, K places of a list, N items.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from experiments.ab_test.traffic import Visitors
from experiments.true_watch import TrueWatch
from onerec.evaluation.generators import SessionGenerator
from onerec.ranked_lists import RankedLists, first_occurrences
from onerec.serving.recommender import POOL


@dataclass(frozen=True)
class TrueChoice:
    """A `Ranker` for known users: the lists of `Recommender` with the true watch as reward.

    The beam's session of the longest expected watch comes first, then the most probable items in
    order of their expected watch; log-probabilities choose the candidates only.

    Attributes:
        generator: What proposes sessions and items.
        truth: What users would watch.
        visitors: Whose lists are made.
    """

    generator: SessionGenerator
    truth: TrueWatch
    visitors: Visitors | None = None

    def of(self, visitors: Visitors) -> "TrueChoice":
        """The same for other visitors."""
        return replace(self, visitors=visitors)

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`; scores are the expected seconds of each item at the list's top."""
        assert self.visitors is not None, "an oracle knows whose lists it makes"
        users = self.visitors.users
        days = np.full(len(users), self.visitors.day)

        def seconds(sessions: np.ndarray) -> np.ndarray:
            return self.truth.seconds(users, days, sessions)

        made = (
            self.generator.sessions(histories, candidates, exclude, attributes=attributes)
            .items.cpu()
            .numpy()
        )
        whole = (made >= 0).all(-1)
        best = np.where(whole, seconds(made), -np.inf).argmax(1)
        pool = self.generator.rank(
            histories, max(2 * top_k, POOL), exclude, candidates, attributes
        ).items
        order = np.argsort(-seconds(pool[..., None]), axis=1, kind="stable")
        behind = np.take_along_axis(pool, order, 1)
        both = np.concatenate([made[np.arange(len(made)), best], behind], 1)
        first = first_occurrences(torch.from_numpy(both)).numpy()
        places = np.argsort(~first, axis=1, kind="stable")[:, :top_k]
        listed = np.where(first, both, -1)
        items = np.take_along_axis(listed, places, 1)
        scores = np.where(items >= 0, seconds(items[..., None]), -np.inf)
        return RankedLists.padded(items, scores, top_k)
