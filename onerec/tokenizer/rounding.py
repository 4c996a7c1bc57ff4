"""From nearly balanced clusters to exactly balanced ones, at the least added distance.

Successive shortest paths on the graph of clusters: an edge a -> b costs what the cheapest item of
`a` loses by moving to `b`. Surplus clusters push items along the cheapest chain of clusters to one
with room; each chain's cost is then added to the prices, which keeps every edge non-negative.
Chains that share no cluster are taken at once, so the loop is over rounds, not over items.

Only the items nearest to leaving each cluster are looked at, so the cost of a round does not grow
with N.
"""

from itertools import pairwise

import torch
from torch import Tensor

from onerec.tokenizer.distances import blocks, ranks_within, scores

POOL_SCORES = 1 << 24
"""Scores of the movable items held at a time (64 MiB)."""
POOL_PER_CLUSTER = 48
"""Items per cluster that may move before the pool is drawn anew."""


def round_to_capacity(rows: Tensor, centroids: Tensor, prices: Tensor, labels: Tensor) -> Tensor:
    """Move as few items, as cheaply, as exact sizes ask for.

    Args:
        rows: (N, D) items.
        centroids: (K, D).
        prices: (K,): added to the distance to a cluster.
        labels: (N,): where distance plus price is least.

    Returns:
        (N,) labels; `N % K` clusters, those in most demand, have `N // K + 1` members, the rest
        `N // K`.
    """
    num_items, num_codes = len(rows), len(centroids)
    labels, prices = labels.clone(), prices.clone()
    demand = torch.bincount(labels, minlength=num_codes)
    capacity = torch.full((num_codes,), num_items // num_codes)
    capacity[demand.argsort(descending=True, stable=True)[: num_items % num_codes]] += 1
    left = num_items + 1
    while surplus := int(
        (torch.bincount(labels, minlength=num_codes) - capacity).clamp(min=0).sum()
    ):
        assert surplus < left, "a fresh pool always has an item to move"
        left = surplus
        pool = _movable(rows, centroids, prices, labels)
        _drain(scores(rows[pool], centroids), pool, prices, labels, capacity)
    return labels


def _movable(rows: Tensor, centroids: Tensor, prices: Tensor, labels: Tensor) -> Tensor:
    """Row numbers of the items of each cluster that lose least by leaving it."""
    num_codes = len(centroids)
    loss = torch.empty(len(rows))
    for block in blocks(len(rows), num_codes):
        costs = scores(rows[block], centroids) + prices
        own = labels[block, None]
        stay = costs.gather(1, own)[:, 0]
        loss[block] = costs.scatter_(1, own, torch.inf).amin(1) - stay
    per_cluster = min(POOL_PER_CLUSTER, max(4, POOL_SCORES // num_codes**2))
    order = loss.argsort(stable=True)
    return order[ranks_within(labels[order]) < per_cluster]


def _drain(costs: Tensor, pool: Tensor, prices: Tensor, labels: Tensor, capacity: Tensor) -> None:
    """Push surplus along cheapest chains until none is left or the pool runs dry.

    Changes `prices` and `labels` in place.
    """
    num_codes = len(prices)
    edges = torch.full((num_codes, num_codes), torch.inf)
    touched = torch.ones(num_codes, dtype=torch.bool)
    while True:
        surplus = torch.bincount(labels, minlength=num_codes) - capacity
        if not bool((surplus > 0).any()):
            return
        here = labels[pool]
        _refresh_edges(edges, costs, prices, here, touched)
        distance, follower = _cheapest_chains(edges, surplus < 0)
        rise = torch.where(torch.isfinite(distance), distance, 0.0)
        prices += rise
        edges += rise[None, :] - rise[:, None]
        edges.clamp_(min=0.0)
        targets, amounts = _disjoint_chains(distance, follower, surplus)
        if not bool((amounts > 0).any()):
            return
        touched = _move(costs, pool, labels, targets, amounts)


def _refresh_edges(
    edges: Tensor, costs: Tensor, prices: Tensor, here: Tensor, touched: Tensor
) -> None:
    """Recompute the outgoing edges of the touched clusters."""
    rows = touched[here].nonzero()[:, 0]
    own = here[rows, None]
    priced = costs[rows] + prices
    regret = priced - priced.gather(1, own)
    edges[touched] = torch.inf
    edges.scatter_reduce_(0, own.expand_as(regret), regret, "amin")
    edges.fill_diagonal_(torch.inf)
    edges.clamp_(min=0.0)


def _cheapest_chains(edges: Tensor, has_room: Tensor) -> tuple[Tensor, Tensor]:
    """Bellman-Ford towards the clusters with room: (K,) distances and next clusters."""
    distance = torch.where(has_room, 0.0, torch.inf)
    follower = torch.full((len(edges),), -1)
    for _ in range(len(edges)):
        through, via = (edges + distance).min(1)
        better = through < distance
        if not bool(better.any()):
            break
        distance = torch.where(better, through, distance)
        follower = torch.where(better, via, follower)
    return distance, follower


def _disjoint_chains(distance: Tensor, follower: Tensor, surplus: Tensor) -> tuple[Tensor, Tensor]:
    """Chains that share no cluster, cheapest first: (K,) targets and (K,) items to push."""
    num_codes = len(distance)
    targets, amounts = [-1] * num_codes, [0] * num_codes
    after, room = follower.tolist(), surplus.tolist()
    used: set[int] = set()
    for source in distance.argsort(stable=True).tolist():
        if room[source] <= 0 or after[source] < 0:
            continue
        chain = [source]
        while after[chain[-1]] >= 0 and len(chain) <= num_codes:
            chain.append(after[chain[-1]])
        if used.intersection(chain):
            continue
        used.update(chain)
        # half at a time: later items are dearer, so another chain may then be cheaper
        amount = max(1, min(room[source], -room[chain[-1]]) // 2)
        for a, b in pairwise(chain):
            targets[a], amounts[a] = b, amount
    return torch.tensor(targets), torch.tensor(amounts)


def _move(costs: Tensor, pool: Tensor, labels: Tensor, targets: Tensor, amounts: Tensor) -> Tensor:
    """Push `amounts[a]` pool items from `a` to `targets[a]`, cheapest first; (K,) touched."""
    here = labels[pool]
    rows = (amounts[here] > 0).nonzero()[:, 0]
    own, to = here[rows, None], targets[here[rows]][:, None]
    order = (costs[rows].gather(1, to) - costs[rows].gather(1, own))[:, 0].argsort(stable=True)
    rows = rows[order]
    rows = rows[ranks_within(here[rows]) < amounts[here[rows]]]
    touched = torch.zeros(len(targets), dtype=torch.bool)
    touched[here[rows]] = True
    labels[pool[rows]] = targets[here[rows]]
    touched[labels[pool[rows]]] = True
    return touched
