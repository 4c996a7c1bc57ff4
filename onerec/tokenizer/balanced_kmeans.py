"""Balanced K-means: clusters whose sizes differ by at most one.

Assigning N items to K clusters of equal size at the least total distance is a semi-discrete
optimal transport problem. Its dual has one price per cluster: an item goes where distance plus
price is least, and prices of overfull clusters rise until sizes agree. Lloyd steps on a sample
therefore keep prices, corrected by a few Sinkhorn steps each. Then every item gets a short list of
candidate clusters, prices converge over these lists, and the last assignment is rounded to exact
sizes by moving items along the cheapest chains of clusters (`onerec.tokenizer.min_cost_flow`).

Scores are computed block by block, so that memory is O(block * K), never O(N * K).

Shapes: N items, D width, K clusters.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from onerec.tokenizer.distances import Rows, blocks, scores
from onerec.tokenizer.min_cost_flow import round_to_capacity

POINTS_PER_CLUSTER = 64
"""Lloyd steps use a sample of this many items per cluster; the last steps use all items."""
POINTS_PER_LEAF = 64
"""Items per cluster that the initial centroids are computed from."""
BISECTING_STEPS = 4
"""Balanced 2-means steps per split of the initial tree."""
PRICE_STEPS = 2
"""Sinkhorn corrections of the prices per block of a Lloyd step."""
CORRECTING_STEPS = 16
"""Sinkhorn corrections on the sample before every item gets its candidate clusters."""
CORRECTING_SCORES = 1 << 26
"""Most scores of the sample kept for these (256 MiB); more are recomputed block by block."""
CANDIDATES = 8
"""Candidate clusters of an item in the last steps: those with the least distance plus price."""
CANDIDATE_STEPS = 20
"""Sinkhorn corrections over all items' candidates, whose cost is O(N * CANDIDATES) each."""
OVERSHOOT = 1.6
"""Over-relaxation of the corrections that repeat on the same scores."""
SETTLING_PASSES, SETTLING_ITEMS, SETTLING_STEPS = 8, 1 << 17, 24
"""Bounds on the final steps over all items: their cost in passes over the sample or in items,
whichever allows more; at least one step and at most STEPS. The last step has exact sizes."""
SMOOTHING_WIDE, SMOOTHING_FIRST, SMOOTHING_NEXT = 3.0, 1.0, 0.3
SMOOTHING_LAST, SMOOTHING_EXACT = 0.1, 0.01
"""Sinkhorn's epsilon, in units of the mean gap between best and second-best score: Lloyd steps go
from FIRST to LAST, corrections start at WIDE, or at NEXT after a step with exact prices, and the
last corrections end at EXACT."""


@dataclass(frozen=True)
class Partition:
    """Attributes:
    centroids: (K, D), means of their members.
    labels: (N,), the cluster of each item.
    """

    centroids: Tensor
    labels: Tensor


def balanced_kmeans(
    vectors: Rows,
    num_clusters: int,
    *,
    iterations: int,
    generator: torch.Generator,
    on_step: Callable[[], None] = lambda: None,
) -> Partition:
    """Cluster into sizes that differ by at most one.

    Args:
        vectors: (N, D) float32, finite, N >= K.
        num_clusters: K.
        iterations: Lloyd steps before the sizes are made exact.
        generator: Random numbers for the sample and the initial centroids.
        on_step: Called after every step.

    Returns:
        Centroids and exact labels.
    """
    num_items, num_codes = len(vectors), num_clusters
    order = torch.randperm(num_items, generator=generator)
    sample = vectors[order[: POINTS_PER_CLUSTER * num_codes]]
    centroids = _bisected(sample[: POINTS_PER_LEAF * num_codes], num_codes, generator)
    prices = torch.zeros(num_codes)
    gap = _mean_gap(sample, centroids)
    for smoothing in _falling(gap * SMOOTHING_FIRST, gap * SMOOTHING_LAST, iterations):
        prices, labels = _priced_labels(sample, centroids, prices, smoothing)
        centroids = means(sample, labels, centroids)
        on_step()
    labels = torch.empty(0, dtype=torch.long)
    affordable = max(SETTLING_PASSES * len(sample), SETTLING_ITEMS) // num_items
    settling_steps = min(max(1, affordable), SETTLING_STEPS)
    for step in range(settling_steps):
        wide = SMOOTHING_NEXT if step else SMOOTHING_WIDE
        prices = _corrected(sample, centroids, prices, gap * wide, gap * SMOOTHING_LAST)
        candidates, costs = _candidates(vectors, centroids, prices)
        prices = _settled_prices(candidates, costs, prices, gap)
        labels = candidates.gather(1, (costs + prices[candidates]).argmin(1, keepdim=True))[:, 0]
        if step == settling_steps - 1:
            labels = round_to_capacity(vectors, centroids, prices, labels)
        centroids = means(vectors, labels, centroids)
        on_step()
    return Partition(centroids, labels)


def _bisected(rows: Tensor, num_codes: int, generator: torch.Generator) -> Tensor:
    """(K, D): means of the leaves of a balanced tree, each node cut by a balanced 2-means.

    Every dense region gets its share of centroids. With random items as centroids the shares would
    have sampling error, which Lloyd steps hardly correct, as they rarely move a centroid between
    regions.
    """
    centroids: list[Tensor] = []
    nodes = [(rows, num_codes)]
    while nodes:
        inside, leaves = nodes.pop()
        if leaves == 1:
            centroids.append(inside.mean(0))
            continue
        cut = len(inside) * (leaves // 2) // leaves
        a, b = torch.randint(len(inside), (2,), generator=generator).tolist()
        direction = inside[a] - inside[b]
        order = torch.empty(0, dtype=torch.long)
        for _ in range(BISECTING_STEPS):
            order = (inside @ direction).argsort(stable=True)
            weight = torch.full((len(inside),), 1 / (len(inside) - cut))
            weight[order[:cut]] = -1 / cut
            direction = weight @ inside
        nodes.append((inside[order[:cut]], leaves // 2))
        nodes.append((inside[order[cut:]], leaves - leaves // 2))
    return torch.stack(centroids)


def _priced_labels(
    rows: Tensor, centroids: Tensor, prices: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """One pass: correct the prices block by block, and assign."""
    labels = torch.empty(len(rows), dtype=torch.long)
    for block in blocks(len(rows), len(centroids)):
        costs = scores(rows[block], centroids)
        fair_size = len(costs) / len(centroids)
        for _ in range(PRICE_STEPS):
            shares = torch.softmax((costs + prices).mul_(-1 / smoothing), 1)
            prices = _raised(prices, shares.sum(0), fair_size, smoothing)
        labels[block] = costs.add_(prices).argmin(1)
    return prices, labels


def _corrected(
    rows: Tensor, centroids: Tensor, prices: Tensor, wide: float, narrow: float
) -> Tensor:
    """Prices that balance the clusters of a sample, by Sinkhorn with decreasing epsilon."""
    if len(rows) * len(centroids) > CORRECTING_SCORES:
        for smoothing in _falling(wide, narrow, CORRECTING_STEPS // PRICE_STEPS):
            prices, _ = _priced_labels(rows, centroids, prices, smoothing)
        return prices
    costs = scores(rows, centroids)
    for smoothing in _falling(wide, narrow, CORRECTING_STEPS):
        sizes = torch.softmax((costs + prices).mul_(-1 / smoothing), 1).sum(0)
        prices = _raised(prices, sizes, len(rows) / len(prices), smoothing * OVERSHOOT)
    return prices


def _candidates(rows: Rows, centroids: Tensor, prices: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C) clusters of least score plus price, and their scores without the price."""
    width = min(CANDIDATES, len(centroids))
    candidates = torch.empty(len(rows), width, dtype=torch.long)
    costs = torch.empty(len(rows), width)
    for block in blocks(len(rows), len(centroids)):
        found = scores(rows[block], centroids)
        candidates[block] = (found + prices).topk(width, dim=1, largest=False).indices
        costs[block] = found.gather(1, candidates[block])
    return candidates, costs


def _settled_prices(candidates: Tensor, costs: Tensor, prices: Tensor, gap: float) -> Tensor:
    """Sinkhorn with decreasing epsilon over each item's candidate clusters only."""
    flat = candidates.flatten()
    for smoothing in _falling(gap * SMOOTHING_LAST, gap * SMOOTHING_EXACT, CANDIDATE_STEPS):
        shares = torch.softmax((costs + prices[candidates]).mul_(-1 / smoothing), 1)
        sizes = torch.zeros(len(prices)).index_add_(0, flat, shares.flatten())
        prices = _raised(prices, sizes, len(candidates) / len(prices), smoothing * OVERSHOOT)
    return prices


def _raised(prices: Tensor, sizes: Tensor, fair_size: float, rate: float) -> Tensor:
    """Prices after one correction; bounded for empty clusters, whose log size is -inf."""
    return prices + rate * torch.log(sizes.clamp(min=1e-3 * fair_size) / fair_size)


def _falling(first: float, last: float, steps: int) -> Iterator[float]:
    """`steps` values from first to last, in equal ratios."""
    return (first * (last / first) ** (step / max(1, steps - 1)) for step in range(steps))


def means(rows: Rows, labels: Tensor, previous: Tensor) -> Tensor:
    """(K, D): the mean of each cluster; an empty one keeps its previous centroid."""
    sizes = torch.bincount(labels, minlength=len(previous))[:, None]
    sums = torch.zeros_like(previous)
    for block in blocks(len(rows), len(previous)):
        sums.index_add_(0, labels[block], rows[block])
    return torch.where(sizes > 0, sums / sizes.clamp(min=1), previous)


def _mean_gap(rows: Tensor, centroids: Tensor) -> float:
    """Mean gap between the best and the second-best score: the natural unit of prices."""
    block = next(blocks(len(rows), len(centroids)))
    best = scores(rows[block], centroids).topk(2, dim=1, largest=False).values
    gap = (best[:, 1] - best[:, 0]).mean().item()
    return max(gap, 1e-6)  # zero when all vectors are equal
