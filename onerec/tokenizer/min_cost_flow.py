"""Make nearly balanced clusters exactly balanced at the least added distance.

Successive shortest paths on the graph of clusters: an edge a -> b costs what the cheapest item of
`a` loses by moving to `b`. Overfull clusters push items along the cheapest chain of clusters to one
with room. Chains that share no cluster are processed together, so the loop is over rounds, not
over items.

Only the cheapest items to move of each cluster are considered, so the cost of a chain does not grow
with N; all items are scored again when a cluster has none of them left. The graph is small and
changes every round: NumPy's single thread beats a thread pool here.
Shapes: N items, D width, K clusters, P items that may move.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from onerec.tokenizer.distances import Rows, blocks, ranks_within, scores

POOL_CELLS = 1 << 26
"""Most scores of movable items in memory at once, three times (768 MiB), and most components."""
POOL_PER_CLUSTER = 160
"""Items per cluster that may move before the pool is drawn again, if there is memory for them."""
POOL_PER_SURPLUS = 4
"""The same for each item that the most overfull cluster has too many."""


def round_to_capacity(rows: Rows, centroids: Tensor, prices: Tensor, labels: Tensor) -> Tensor:
    """Move the fewest items at the least cost so that sizes are exact.

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
    room = (capacity - demand).numpy()
    while surplus := int(-room[room < 0].sum()):
        assert surplus < left, "a fresh pool always has an item to move"
        left = surplus
        per_cluster = max(POOL_PER_CLUSTER, POOL_PER_SURPLUS * int(-room.min()))
        pool = _movable(rows, centroids, prices, labels, per_cluster)
        costs = scores(rows[pool], centroids).numpy()
        here = labels[pool].numpy()
        _drain(costs, here, room, prices.numpy(), at_most=max(1, num_items // num_codes // 32))
        labels[pool] = torch.from_numpy(here)
    return labels


def _movable(
    rows: Rows, centroids: Tensor, prices: Tensor, labels: Tensor, per_cluster: int
) -> Tensor:
    """Row numbers of the items of each cluster that are cheapest to move, as many as may be in
    memory."""
    num_codes = len(centroids)
    loss = torch.empty(len(rows))
    for block in blocks(len(rows), num_codes):
        costs = scores(rows[block], centroids) + prices
        own = labels[block, None]
        stay = costs.gather(1, own)[:, 0]
        loss[block] = costs.scatter_(1, own, torch.inf).amin(1) - stay
    per_cluster = min(per_cluster, max(4, POOL_CELLS // (num_codes * max(centroids.shape))))
    order = loss.argsort(stable=True)
    return order[ranks_within(labels[order]) < per_cluster]


def _drain(
    costs: np.ndarray, here: np.ndarray, room: np.ndarray, prices: np.ndarray, *, at_most: int
) -> None:
    """Push surplus along cheapest chains until none is left or the pool runs dry.

    Args:
        costs: (P, K) of the pool.
        here: (P,) clusters of the pool; changed in place.
        room: (K,) free places, negative is surplus; changed in place.
        prices: (K,); changed in place.
        at_most: Most items pushed along a chain at once, a few per cent of a cluster: each
            further item costs more, and another chain may then be cheaper.
    """
    num_codes = len(room)
    edges = np.full((num_codes, num_codes), np.inf, np.float32)
    touched = np.ones(num_codes, bool)
    while (room < 0).any():
        _refresh_edges(edges, costs, here, touched)
        # below zero only by what a chain of several items skipped over: a loop must not gain
        priced = np.maximum(edges + (prices - prices[:, None]), 0)
        distance, follower = _cheapest_chains(priced, room > 0)
        prices += np.where(np.isfinite(distance), distance, 0)
        targets, amounts = _disjoint_chains(distance, follower, -room, at_most)
        if not amounts.any():
            break
        touched = _move(costs, here, room, targets, amounts)


def _refresh_edges(
    edges: np.ndarray, costs: np.ndarray, here: np.ndarray, touched: np.ndarray
) -> None:
    """Recompute the outgoing edges of the touched clusters, without prices."""
    rows = np.flatnonzero(touched[here])
    rows = rows[np.argsort(here[rows], kind="stable")]
    own = here[rows]
    edges[touched] = np.inf
    if len(rows):
        first = np.flatnonzero(np.diff(own, prepend=-1))
        regret = costs[rows] - costs[rows, own][:, None]
        edges[own[first]] = np.minimum.reduceat(regret, first)
    np.fill_diagonal(edges, np.inf)


def _cheapest_chains(edges: np.ndarray, has_room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bellman-Ford towards the clusters with room: (K,) distances and next clusters."""
    distance = np.where(has_room, 0, np.inf).astype(np.float32)
    follower = np.full(len(edges), -1)
    changed = np.flatnonzero(has_room)
    for _ in range(len(edges)):
        through = edges[:, changed] + distance[changed]
        via = through.argmin(1)
        best = through[np.arange(len(edges)), via]
        better = np.flatnonzero(best < distance)
        if not len(better):
            break
        distance[better] = best[better]
        follower[better] = changed[via[better]]
        changed = better
    return distance, follower


def _disjoint_chains(
    distance: np.ndarray, follower: np.ndarray, surplus: np.ndarray, at_most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Chains that share no cluster, cheapest first: (K,) targets and (K,) items to push."""
    num_codes = len(distance)
    targets, amounts = np.full(num_codes, -1), np.zeros(num_codes, np.int64)
    after, room = follower.tolist(), surplus.tolist()
    used: set[int] = set()
    for source in np.argsort(distance, kind="stable").tolist():
        if room[source] <= 0 or after[source] < 0:
            continue
        chain = [source]
        while after[chain[-1]] >= 0 and len(chain) <= num_codes:
            chain.append(after[chain[-1]])
        if used.intersection(chain):
            continue
        used.update(chain)
        amount = min(room[source], -room[chain[-1]], at_most)
        for a, b in pairwise(chain):
            targets[a], amounts[a] = b, amount
    return targets, amounts


def _move(
    costs: np.ndarray,
    here: np.ndarray,
    room: np.ndarray,
    targets: np.ndarray,
    amounts: np.ndarray,
) -> np.ndarray:
    """Push `amounts[a]` pool items from `a` to `targets[a]`, cheapest first; (K,) touched.

    Changes `here` and `room` in place.
    """
    rows = np.flatnonzero(amounts[here] > 0)
    own, to = here[rows], targets[here[rows]]
    order = np.lexsort((costs[rows, to] - costs[rows, own], own))
    rows, own, to = rows[order], own[order], to[order]
    rank = np.arange(len(own)) - np.searchsorted(own, own)
    kept = rank < amounts[own]
    rows, own, to = rows[kept], own[kept], to[kept]
    here[rows] = to
    np.add.at(room, own, 1)
    np.subtract.at(room, to, 1)
    touched = np.zeros(len(room), bool)
    touched[own] = True
    touched[to] = True
    return touched
