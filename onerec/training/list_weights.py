"""Weights of the terms of a model's lists, chosen on the last validation days.

They are chosen by a model that has learned the newest days before the validation day, as the one
that serves has learned the newest days before its own (`fit_generator`): first the share of the
dense head, then the weight of item neighbours, then that of the recency prior. Nightly runs before
count as they measured theirs (`onerec.evaluation.ndcg_by_weight`).

Shapes: C users, K places of a list, N items, T SID tokens.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onerec.config import TrainingConfig
from onerec.evaluation.ndcg_by_weight import (
    NOT_MEASURED,
    Earlier,
    NdcgByWeight,
    best_of,
    pooled,
)
from onerec.evaluation.recency import RecencyCases, ndcg_at_10, ndcg_by_weight
from onerec.generation import Trie, rank_first_items
from onerec.generation.beam import read_histories
from onerec.model import Histories, OneRec
from onerec.model.item_neighbours import ItemNeighbours
from onerec.model.recency_prior import RecencyPrior
from onerec.ranked_lists import RankedLists

DENSE_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Candidate shares of the dense head; ties go to the first."""
SEARCHED_SHARE = 0.5
"""Share of the dense head when candidate lists are made, which all shares then rerank."""
NEIGHBOUR_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)
"""Candidate weights of item neighbours; ties go to the first."""
POOL = 100
"""Items of a list that are reordered when weights are chosen; the search adds a prior to all."""
USERS_AT_ONCE = 64


@dataclass(frozen=True)
class TriedWeights:
    """NDCG@10 on the validation day by weight.

    Attributes:
        dense: By share of the dense head, without item neighbours and a recency prior.
        neighbours: By weight of item neighbours, beside the chosen share of the dense head.
        recency: By weight of the recency prior, beside both.
    """

    dense: NdcgByWeight = NOT_MEASURED
    neighbours: NdcgByWeight = NOT_MEASURED
    recency: NdcgByWeight = NOT_MEASURED


@torch.no_grad()
def choose_list_weights(
    model: OneRec,
    codes: Tensor,
    cases: RecencyCases,
    config: TrainingConfig,
    earlier: Earlier | None = None,
    *,
    as_served: bool = False,
    neighbours: ItemNeighbours | None = None,
) -> TriedWeights:
    """Set the weights with the best NDCG@10 on the cases and on those of earlier nightly runs.

    Cases without a user leave the weights as they are.

    Args:
        model: Must not have learned the cases' day; its training mode is kept.
        codes: (N, T) semantic IDs.
        cases: Users of the validation day, and the watches before it.
        config: `recency_prior`, and the seed of the sample of users.
        earlier: What nightly runs before measured with the same settings, by the names of
            `TriedWeights`.
        as_served: The model could have served lists on the cases' day: it is a checkpoint that has
            learned nothing since but the days after it.
        neighbours: Item neighbours by the days before that day; None leaves them out.

    Returns:
        What was measured on the cases.
    """
    if not len(cases.users):
        return TriedWeights()
    before = earlier or {}
    cases, codes = cases.sampled(config.seed), codes.to(model.device)
    was_training = model.training
    model.eval()
    model.dense_share = 0.0 if model.dense is None else SEARCHED_SHARE
    lists, tried = _lists(model, codes, cases), TriedWeights()
    if model.dense is not None:
        dense = _dense_logp(model, codes, cases, lists.items)
        generated = (lists.scores - SEARCHED_SHARE * dense) / (1 - SEARCHED_SHARE)
        mixed = {s: replace(lists, scores=(1 - s) * generated + s * dense) for s in DENSE_SHARES}
        ndcg = {share: ndcg_at_10(found, cases) for share, found in mixed.items()}
        tried = replace(tried, dense=NdcgByWeight(len(cases.users), ndcg, as_served))
        model.dense_share = best_of(pooled([tried.dense, *before.get("dense", ())]))
        lists = mixed[model.dense_share]
    if neighbours is not None:
        added = _with_neighbours(neighbours, cases, lists)
        ndcg = {weight: ndcg_at_10(found, cases) for weight, found in added.items()}
        tried = replace(tried, neighbours=NdcgByWeight(len(cases.users), ndcg, as_served))
        model.neighbour_weight = best_of(pooled([tried.neighbours, *before.get("neighbours", ())]))
        lists = added[model.neighbour_weight]
    if config.recency_prior:
        measured = replace(ndcg_by_weight(lists, cases), as_served=as_served)
        tried = replace(tried, recency=measured)
        weight = best_of(pooled([tried.recency, *before.get("recency", ())]))
        model.recency_prior = RecencyPrior(weight=weight, days=cases.days)
    model.train(was_training)
    return tried


def _lists(model: OneRec, codes: Tensor, cases: RecencyCases) -> RankedLists:
    """The best `POOL` items of every user by the model without a prior."""
    allowed = torch.from_numpy(cases.candidates).to(model.device)
    trie = Trie.build(codes, model.codebook_size, allowed)
    width = min(POOL, trie.num_leaves)
    return rank_first_items(
        model,
        _histories(model, cases),
        codes,
        trie,
        top_k=width,
        beam=width,
        batch_size=USERS_AT_ONCE,
    )


def _histories(model: OneRec, cases: RecencyCases) -> Histories:
    return model.histories(torch.from_numpy(cases.users.history), cases.users.attributes)


def _with_neighbours(
    neighbours: ItemNeighbours, cases: RecencyCases, lists: RankedLists
) -> dict[float, RankedLists]:
    """The lists by weight of item neighbours."""
    histories = torch.from_numpy(cases.users.history).split(USERS_AT_ONCE)
    listed = torch.from_numpy(lists.items).split(USERS_AT_ONCE)
    parts = []
    for history, row in zip(histories, listed, strict=True):
        near = neighbours.log_similarity(history, len(cases.candidates))
        parts.append(near.gather(1, row.clamp(min=0)) * (row >= 0))
    near = torch.cat(parts).double().numpy()
    return {w: replace(lists, scores=lists.scores + w * near) for w in NEIGHBOUR_WEIGHTS}


def _dense_logp(model: OneRec, codes: Tensor, cases: RecencyCases, items: np.ndarray) -> np.ndarray:
    """(C, K) log-probabilities of listed items under the dense head; 0 where there is no item."""
    histories = _histories(model, cases).split(USERS_AT_ONCE)
    listed = torch.from_numpy(items).split(USERS_AT_ONCE)
    parts = []
    for history, row in zip(histories, listed, strict=True):
        memory = read_histories(model, history.to(model.device), codes)
        logp = model.dense_logits(memory).log_softmax(-1).cpu()
        parts.append(logp.gather(1, row.clamp(min=0)) * (row >= 0))
    return torch.cat(parts).double().numpy()
