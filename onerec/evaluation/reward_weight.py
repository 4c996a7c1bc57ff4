"""The weight w of the reward in served lists: log-probability + w x reward.

That is the policy that maximises reward minus 1 / w times the KL divergence to the generator's own:
p(S) exp(w r(S)), up to a constant (Rafailov et al., 2023, Eq. 4). The weight is chosen on the
days before day D that the nightly runs before had as their test days: the largest one whose lists
lose no more than a tolerated share of the NDCG@10 that those of the smallest weight have. A first
nightly run takes the validation day, on the held-out users, whose validation day no model has
learned (`onerec.session_dataset.holdout`). That flatters the reward: the aligned model has learned
that day from other users, so its sessions fit that day better than the next one.

Shapes: U users, N items, Dv vector width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from onerec.config import AlignmentConfig, BeamConfig
from onerec.evaluation.data import EvaluationData
from onerec.evaluation.generators import SessionGenerator
from onerec.evaluation.ndcg_by_weight import NOT_MEASURED, NdcgByWeight, pooled
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.evaluation.recency import (
    CUTOFF,
    MONITOR,
    RecencyCases,
    load_recency_cases,
)
from onerec.evaluation.systems import System, served_recommender
from onerec.model import OneRec
from onerec.reward.model import RewardModel
from onerec.serving.recommender import Recommender
from onerec.session_dataset.eval_users import EvalUsers
from onerec.session_dataset.holdout import held_out_users
from onerec.tokenizer.semantic_ids import SemanticIds

MOST_TEST_USERS = 2000
"""Users of a test day on whom weights of the reward are measured, a seeded sample beyond that: the
beams of their sessions take long."""


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
) -> NdcgByWeight:
    """Give a model the weight of the reward in its lists that the validation day chooses.

    Args:
        model: In evaluation mode; has not learned the cases.
        ids: The catalogue.
        reward: What scores the lists.
        cases: Users of the validation day; without one the smallest weight is taken.
        decoding: Beam, batch size, and whether seen items are left out.
        alignment: `reward_weights`, a single one of which is taken as it is, and
            `reward_ndcg_tolerance`.

    Returns:
        What was measured on the cases.
    """
    weights = alignment.tried_reward_weights
    model.reward_weight = weights[0]
    if len(weights) == 1 or cases is None or not len(cases.users):
        return NOT_MEASURED
    recommender = Recommender(
        model,
        ids,
        config=replace(decoding, serving_precision="float32"),
        reward=reward.model,
        vectors=reward.vectors,
        prior=model.recency_prior.of(cases.watches),
    )
    measured = ndcg_by_reward_weight(
        recommender, cases.users, weights, cases.candidates, filter_seen=decoding.filter_seen
    )
    model.reward_weight = largest_within(measured.ndcg, alignment.reward_ndcg_tolerance)
    return measured


def weight_of_test_days(
    measured: Sequence[NdcgByWeight], alignment: AlignmentConfig, *, without: float
) -> float:
    """The weight that the test days of the nightly runs before choose.

    Args:
        measured: What each measured on its test day, of the weights that are tried now.
        alignment: `reward_weights`, a single one of which is taken as it is, and
            `reward_ndcg_tolerance`.
        without: What the validation day chose; it counts where no test day was measured, if it is
            among the weights that are tried. If not, the smallest one does.
    """
    tried = alignment.tried_reward_weights
    if len(tried) > 1 and (ndcg := pooled(measured)):
        return largest_within(ndcg, alignment.reward_ndcg_tolerance)
    return without if without in tried else min(tried)


def measured_on_test_day(
    data: EvaluationData,
    aligned: System,
    decoding: BeamConfig,
    alignment: AlignmentConfig,
) -> NdcgByWeight:
    """What a nightly run measures on its test day for those after it; in one process.

    Args:
        data: Of the test day; at most `MOST_TEST_USERS` of its cases, a seeded sample.
        aligned: A `SessionGenerator`, whose lists the reward reorders.
        decoding: Beam, batch size, and whether seen items are left out.
        alignment: `reward_weights`; a single one is not measured.
    """
    weights = alignment.tried_reward_weights
    if len(weights) == 1 or not len(data.user_ids):
        return NOT_MEASURED
    assert isinstance(aligned.ranker, SessionGenerator)
    config = replace(decoding, serving_precision="float32")
    users = EvalUsers(data.user_ids, data.histories, data.targets, data.attributes)
    sample = np.random.default_rng(alignment.seed).permutation(len(users))[:MOST_TEST_USERS]
    return ndcg_by_reward_weight(
        served_recommender(data, aligned.ranker, config, with_reward=True),
        users.rows(np.sort(sample)),
        weights,
        data.candidates,
        filter_seen=decoding.filter_seen,
    )


def ndcg_by_reward_weight(
    recommender: Recommender,
    users: EvalUsers,
    weights: Sequence[float],
    candidates: np.ndarray,
    *,
    filter_seen: bool,
) -> NdcgByWeight:
    """NDCG@10 of served lists by the weight of the reward, from a single beam search.

    Without the places that `BeamConfig.new_item_share` keeps for new items.

    Args:
        recommender: With a reward model; in evaluation mode.
        users: Their histories and targets.
        weights: In increasing order.
        candidates: (N,) booleans: items that may be listed.
        filter_seen: Whether items of the histories are left out.
    """
    lists = recommender.rank_by_reward_weight(
        users.history,
        CUTOFF,
        weights,
        exclude=users.history if filter_seen else None,
        candidates=candidates,
        attributes=users.attributes,
    )
    return NdcgByWeight(
        len(users),
        {
            weight: float(per_case_metrics(listed.items, users.targets, (CUTOFF,))[MONITOR].mean())
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
