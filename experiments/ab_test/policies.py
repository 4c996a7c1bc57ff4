"""Arms of the simulated A/B test: whatever ranks items, made a policy of the simulated app.

Models are those of one nightly run and never change; every morning they read the histories again.

Shapes: A users of a request, H history items, X excluded items, N items.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from experiments.ab_test.traffic import Visitors
from experiments.ab_test.true_choice import TrueChoice
from onerec.config import AlignmentConfig, BeamConfig
from onerec.datasets.simulator.world import Array, item_ids
from onerec.evaluation.generators import recency_of
from onerec.evaluation.reward_weight import (
    ServingReward,
    choose_reward_weight,
    load_held_out_cases,
)
from onerec.model import load_model
from onerec.model.recency_prior import NO_PRIOR
from onerec.ranked_lists import Ranker, last_items
from onerec.serving.recommender import Recommender
from onerec.session_dataset.newest_watches import WatchesBefore
from onerec.tokenizer.semantic_ids import SemanticIds


@dataclass(frozen=True)
class ServedCatalogue:
    """Items as the app numbers them and as the semantic-ID table does.

    Attributes:
        index: (numbers,) table index of each item of the app, -1 where the table has none.
        number: (N,) the other way.
        candidates: (N,) booleans: what may be listed.
    """

    index: Array
    number: Array
    candidates: Array

    @classmethod
    def of(cls, ids: SemanticIds, num_items: int, candidates: Array) -> "ServedCatalogue":
        """Match the items of the app with the rows of the semantic-ID table.

        Args:
            ids: The table.
            num_items: Items of the app.
            candidates: (N,) booleans: what may be listed.

        Raises:
            ValueError: The table is not of this app.
        """
        index = np.asarray(ids.index_of(item_ids(np.arange(num_items))))
        number = np.full(len(ids.item_ids), -1)
        number[index[index >= 0]] = np.flatnonzero(index >= 0)
        if (number < 0).any():
            missing = ids.item_ids[int(np.argmin(number))]
            raise ValueError(
                f"semantic_ids: {missing!r} is no item of this simulated app; use the settings "
                "(seed, size, first day) that its nightly run was made with"
            )
        return cls(index, number, candidates)


class ArmPolicy:
    """A `Policy`: translates item numbers, and fills up with what is popular.

    Attributes:
        requested: Positions of lists requested so far.
        filled: Those that popularity filled.
    """

    def __init__(self, ranker: Ranker, fallback: Ranker, catalogue: ServedCatalogue) -> None:
        self.ranker, self.fallback, self.catalogue = ranker, fallback, catalogue
        self.requested = self.filled = 0

    @property
    def reward_weight(self) -> float:
        """Of the reward in its lists; 0 where it has no part in them."""
        ranker = self.ranker
        if not isinstance(ranker, Recommender) or ranker.reward is None:
            return 0.0
        return ranker.model.reward_weight

    def __call__(self, history: Array, excluded: Array, length: int, visitors: Visitors) -> Array:
        """See `experiments.ab_test.traffic.Policy`."""
        rows = torch.from_numpy(_mapped(history, self.catalogue.index))
        known = last_items(rows, history.shape[1]).numpy()
        refused = _mapped(excluded, self.catalogue.index)
        candidates = self.catalogue.candidates
        ranker = self.ranker.of(visitors) if isinstance(self.ranker, TrueChoice) else self.ranker
        own = ranker.rank(known, length, refused, candidates).items
        self.requested += own.size
        self.filled += int((own < 0).sum())
        refused = np.concatenate([refused, own], axis=1)
        more = self.fallback.rank(known, length, refused, candidates).items
        both = torch.from_numpy(np.concatenate([own, more], axis=1))
        return _mapped(last_items(both, 2 * length).numpy()[:, :length], self.catalogue.number)


def serving_generator(
    checkpoint: Path,
    ids: SemanticIds,
    decoding: BeamConfig,
    *,
    reward: ServingReward | None,
    reward_weight: float | None,
    watches: WatchesBefore,
    recency_prior: bool,
    device: str,
) -> Recommender:
    """A checkpoint as it serves, in float32.

    Args:
        checkpoint: Its directory.
        ids: The catalogue.
        decoding: Beam and batch size.
        reward: What scores its lists; they are ordered by log-probability alone without.
        reward_weight: Of the reward in its lists; None: chosen on the held-out users of the
            validation day, without those of days before.
        watches: What the checkpoint's recency prior counts.
        recency_prior: Whether scores have it.
        device: Where it runs.
    """
    model, _ = load_model(
        checkpoint, expected_tokenizer_version=ids.tokenizer_version, device=device
    )
    if not recency_prior:
        model.recency_prior = NO_PRIOR
    if reward is not None and reward_weight is not None:
        model.reward_weight = reward_weight
    elif reward is not None:
        tried = AlignmentConfig()
        cases = load_held_out_cases(
            watches.session_dataset, ids, model, most=tried.gate_cases, seed=tried.seed
        )
        choose_reward_weight(model, ids, reward, cases, decoding, tried)
    return Recommender(
        model,
        ids,
        config=replace(decoding, serving_precision="float32"),
        reward=reward.model if reward else None,
        vectors=reward.vectors if reward else None,
        prior=recency_of(model, ids, watches),
    )


def _mapped(items: Array, table: Array) -> Array:
    return np.where(items >= 0, table[np.where(items >= 0, items, 0)], -1)
