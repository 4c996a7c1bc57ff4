"""Balanced K-means: clusters whose sizes differ by at most one.

Assigning N items to K clusters of equal size at the least total distance is a semi-discrete
optimal transport problem. Its dual is one price per cluster: an item goes where distance plus price
is least, and prices of overfull clusters rise until sizes agree. Lloyd steps therefore carry prices
along, corrected by a few smoothed (Sinkhorn) steps each, and only the last assignments are rounded
to exact sizes, by moving items along the cheapest chains of clusters (`onerec.tokenizer.rounding`).

Scores are computed block by block, so that memory is O(block * K), never O(N * K).

Shapes: N items, D width, K clusters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from onerec.tokenizer.distances import blocks, scores
from onerec.tokenizer.rounding import round_to_capacity

POINTS_PER_CLUSTER = 128
"""Lloyd steps see a sample of this many items per cluster; the last steps see all."""
PRICE_STEPS = 3
"""Sinkhorn corrections of the prices per Lloyd step: cheaper than the step's own product."""
SMOOTHING_FIRST, SMOOTHING_LAST = 1.0, 0.1
"""Sinkhorn's epsilon over the run, in units of the mean gap between best and second-best score."""
SETTLING_STEPS = 2
"""Final steps on all items, each with exact sizes."""


@dataclass(frozen=True)
class BalancedPartition:
    """Attributes:
    centroids: (K, D), means of their members.
    labels: (N,), each value `N // K` or `N // K + 1` times.
    """

    centroids: Tensor
    labels: Tensor


def balanced_kmeans(
    vectors: Tensor,
    num_clusters: int,
    *,
    iterations: int,
    generator: torch.Generator,
    on_step: Callable[[], None] = lambda: None,
) -> BalancedPartition:
    """Cluster into sizes that differ by at most one.

    Args:
        vectors: (N, D) float32, finite, N >= K.
        num_clusters: K.
        iterations: Lloyd steps before the sizes are made exact.
        generator: Source of the initial centroids, which are items chosen at random: balanced
            clusters want centroids as dense as the items are.
        on_step: Called after every step.

    Returns:
        Centroids and exact labels.
    """
    num_items, num_codes = len(vectors), num_clusters
    order = torch.randperm(num_items, generator=generator)
    shuffled = vectors[order]  # any run of rows is a fair sample, as the price steps need
    sample = shuffled[: POINTS_PER_CLUSTER * num_codes]
    centroids = shuffled[:num_codes].clone()
    prices = torch.zeros(num_codes)
    gap = _mean_gap(sample, centroids)
    decay = (SMOOTHING_LAST / SMOOTHING_FIRST) ** (1 / max(1, iterations - 1))
    for step in range(iterations):
        smoothing = gap * SMOOTHING_FIRST * decay**step
        centroids, prices, _ = _lloyd_step(sample, centroids, prices, smoothing)
        on_step()
    labels = torch.empty(0, dtype=torch.long)
    for _ in range(SETTLING_STEPS):
        # once to let prices follow the centroids, once for the assignment
        smoothing = gap * SMOOTHING_LAST
        _, prices, _ = _lloyd_step(shuffled, centroids, prices, smoothing)
        _, prices, labels = _lloyd_step(shuffled, centroids, prices, smoothing / 4)
        labels = round_to_capacity(shuffled, centroids, prices, labels)
        centroids = _means(shuffled, labels, centroids)
        on_step()
    unshuffled = torch.empty_like(labels)
    unshuffled[order] = labels
    return BalancedPartition(centroids, unshuffled)


def _lloyd_step(
    rows: Tensor, centroids: Tensor, prices: Tensor, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One pass: correct the prices block by block, assign, and take the means."""
    labels = torch.empty(len(rows), dtype=torch.long)
    for block in blocks(len(rows), len(centroids)):
        costs = scores(rows[block], centroids)
        fair_size = len(costs) / len(centroids)
        for _ in range(PRICE_STEPS):
            shares = torch.softmax((costs + prices).mul_(-1 / smoothing), 1)
            # an empty cluster must not send its price to minus infinity
            sizes = shares.sum(0).clamp(min=1e-3 * fair_size)
            prices = prices + smoothing * torch.log(sizes / fair_size)
        labels[block] = costs.add_(prices).argmin(1)
    return _means(rows, labels, centroids), prices, labels


def _means(rows: Tensor, labels: Tensor, previous: Tensor) -> Tensor:
    """(K, D): the mean of each cluster; an empty one keeps its previous centroid."""
    sizes = torch.bincount(labels, minlength=len(previous))[:, None]
    sums = torch.zeros_like(previous).index_add_(0, labels, rows)
    return torch.where(sizes > 0, sums / sizes.clamp(min=1), previous)


def _mean_gap(rows: Tensor, centroids: Tensor) -> float:
    """Mean gap between the best and the second-best score: the natural unit of prices."""
    block = next(blocks(len(rows), len(centroids)))
    best = scores(rows[block], centroids).topk(2, dim=1, largest=False).values
    gap = (best[:, 1] - best[:, 0]).mean().item()
    return max(gap, 1e-6)  # zero when all vectors are equal
