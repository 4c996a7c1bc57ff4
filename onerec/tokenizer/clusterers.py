"""Alternatives to balanced K-means for one level: the paper's Algorithm 1 and plain K-means.

Shapes: N items, D width, K clusters.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from onerec.tokenizer.balanced_kmeans import Partition, means
from onerec.tokenizer.distances import blocks, nearest, scores


def algorithm_1(
    vectors: Tensor,
    num_clusters: int,
    *,
    iterations: int,
    generator: torch.Generator,
    on_step: Callable[[], None] = lambda: None,
) -> Partition:
    """Clusters take their nearest unassigned items one after the other (OneRec v1, Algorithm 1).

    Each iteration fills the clusters in the paper's fixed order 1 to K; with a random order in each
    iteration it would not converge and reconstruct worse. Not specified in the paper: the first
    N % K clusters take one item more.

    Args and returns as `balanced_kmeans`.
    """
    num_items = len(vectors)
    centroids = vectors[torch.randperm(num_items, generator=generator)[:num_clusters]].clone()
    norms = vectors.square().sum(1)
    labels = torch.full((num_items,), -1)
    for _ in range(iterations):
        previous, labels = labels, torch.full((num_items,), -1)
        left, rows, left_norms = torch.arange(num_items), vectors, norms
        for code in range(num_clusters):
            room = num_items // num_clusters + (code < num_items % num_clusters)
            distance = torch.addmv(left_norms, rows, centroids[code], alpha=-2)
            taken = distance.topk(room, largest=False).indices
            centroids[code] = rows[taken].mean(0)
            labels[left[taken]] = code
            stays = torch.ones(len(left), dtype=torch.bool)
            stays[taken] = False
            left, rows, left_norms = left[stays], rows[stays], left_norms[stays]
        on_step()
        if torch.equal(previous, labels):
            break
    return Partition(centroids, labels)


def plain_kmeans(
    vectors: Tensor,
    num_clusters: int,
    *,
    iterations: int,
    generator: torch.Generator,
    on_step: Callable[[], None] = lambda: None,
) -> Partition:
    """Lloyd's K-means without a constraint on sizes, as in most other generative recommenders.

    An empty cluster moves to one of the items farthest from their centroids.

    Args and returns as `balanced_kmeans`.
    """
    centroids = vectors[torch.randperm(len(vectors), generator=generator)[:num_clusters]].clone()
    labels = nearest(vectors, centroids)
    for _ in range(iterations):
        centroids = means(vectors, labels, centroids)
        empty = (torch.bincount(labels, minlength=num_clusters) == 0).nonzero()[:, 0]
        if len(empty):
            centroids[empty] = vectors[_farthest(vectors, centroids, labels, len(empty))]
        labels = nearest(vectors, centroids)
        on_step()
    return Partition(centroids, labels)


def _farthest(vectors: Tensor, centroids: Tensor, labels: Tensor, count: int) -> Tensor:
    """(count,) rows farthest from their centroids."""
    distance = torch.empty(len(vectors))
    for block in blocks(len(vectors), len(centroids)):
        found = scores(vectors[block], centroids).gather(1, labels[block, None])[:, 0]
        distance[block] = found + vectors[block].square().sum(1)
    return distance.topk(count).indices
