"""The weight w of the reward in served lists: log-probability + w x reward.

That is the policy that maximises reward minus 1 / w times the KL divergence to the generator's own:
p(S) exp(w r(S)), up to a constant (Rafailov et al., 2023, Eq. 4). The weight is chosen on the
validation day, on the held-out users, whose validation day no model has learned
(`onerec.session_dataset.holdout`): the largest one whose lists lose no more than a tolerated share
of the NDCG@10 that those of the smallest weight have. What the nightly runs before measured on
theirs counts as well (`ndcg_by_weight`).

Shapes: U users, N items, Dv vector width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from onerec.config import AlignmentConfig, BeamConfig
from onerec.evaluation.ndcg_by_weight import NOT_MEASURED, NdcgByWeight, pooled
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.evaluation.recency import CUTOFF, MONITOR, RecencyCases, load_recency_cases
from onerec.model import OneRec
from onerec.reward.model import RewardModel
from onerec.serving.recommender import Recommender
from onerec.session_dataset.holdout import held_out_users
from onerec.tokenizer.semantic_ids import SemanticIds


@dataclass(frozen=True)
class ServingReward:
    """A reward model that scores served lists.

    Attributes:
        model: The reward model.
        vectors: (N, Dv) item vectors that it reads.
    """

    model: RewardModel
    vectors: Tensor


def load_held_out_cases(
    session_dataset: Path, ids: SemanticIds, model: OneRec, *, most: int, seed: int
) -> RecencyCases | None:
    """The held-out users of the validation day, and the watches of the days before it.

    Args:
        session_dataset: Files of the artifact; `test` is never read.
        ids: The catalogue.
        model: Says how long histories are, and how many days its recency prior counts.
        most: Users at most, a seeded sample beyond that.
        seed: Of the sample.

    Returns:
        None where no day validates.
    """
    cases = load_recency_cases(
        session_dataset,
        ids,
        history_length=model.history_length,
        days=model.recency_prior.days,
    )
    if cases is None:
        return None
    kept = np.flatnonzero(held_out_users(session_dataset, cases.users.user_ids))
    kept = np.random.default_rng(seed).permutation(kept)[:most]
    return replace(cases, users=cases.users.rows(np.sort(kept)))


def choose_reward_weight(
    model: OneRec,
    ids: SemanticIds,
    reward: ServingReward,
    cases: RecencyCases | None,
    decoding: BeamConfig,
    alignment: AlignmentConfig,
    earlier: Sequence[NdcgByWeight] = (),
) -> NdcgByWeight:
    """Give a model the weight of the reward in its lists.

    Args:
        model: In evaluation mode; has not learned the cases.
        ids: The catalogue.
        reward: What scores the lists.
        cases: Users of the validation day; without one and without earlier ones the smallest weight
            is taken.
        decoding: Beam, batch size, and whether seen items are left out.
        alignment: `reward_weights`, a single one of which is taken as it is, and
            `reward_ndcg_tolerance`.
        earlier: What nightly runs before measured with the same settings.

    Returns:
        What was measured on the cases.
    """
    weights = alignment.tried_reward_weights
    model.reward_weight = weights[0]
    measured = NOT_MEASURED
    if len(weights) > 1 and cases is not None and len(cases.users):
        measured = _measured(model, ids, reward, cases, decoding, weights)
    ndcg = pooled([measured, *earlier])
    if len(weights) > 1 and ndcg:
        model.reward_weight = largest_within(ndcg, alignment.reward_ndcg_tolerance)
    return measured


def _measured(
    model: OneRec,
    ids: SemanticIds,
    reward: ServingReward,
    cases: RecencyCases,
    decoding: BeamConfig,
    weights: Sequence[float],
) -> NdcgByWeight:
    recommender = Recommender(
        model,
        ids,
        config=replace(decoding, serving_precision="float32"),
        reward=reward.model,
        vectors=reward.vectors,
        prior=model.recency_prior.of(cases.watches),
    )
    seen, targets = cases.users.history, cases.users.targets
    lists = recommender.rank_by_reward_weight(
        seen,
        CUTOFF,
        weights,
        exclude=seen if decoding.filter_seen else None,
        candidates=cases.candidates,
        attributes=cases.users.attributes,
    )
    return NdcgByWeight(
        len(cases.users),
        {
            weight: float(per_case_metrics(listed.items, targets, (CUTOFF,))[MONITOR].mean())
            for weight, listed in lists.items()
        },
    )


def largest_within(ndcg: Mapping[float, float], tolerance: float) -> float:
    """The largest weight whose NDCG@10 is at most a share below that of the smallest.

    Examples:
        >>> ndcg = {0.0: 0.05, 0.5: 0.06, 1.0: 0.048, 2.0: 0.04}
        >>> largest_within(ndcg, 0.05), largest_within(ndcg, 0.0)
        (1.0, 0.5)
    """
    least = (1 - tolerance) * ndcg[min(ndcg)]
    return max(weight for weight, value in ndcg.items() if value >= least)
