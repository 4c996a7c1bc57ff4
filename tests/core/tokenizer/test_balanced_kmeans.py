"""Sizes are exact, the assignment is nearly the cheapest one, and runs repeat themselves."""

import pytest
import torch

from onerec.tokenizer import min_cost_flow
from onerec.tokenizer.balanced_kmeans import Partition, balanced_kmeans
from onerec.tokenizer.clusterers import algorithm_1
from onerec.tokenizer.min_cost_flow import round_to_capacity
from tests.core.tokenizer.peers import exact_labels, inertia, topical


def fit(vectors: torch.Tensor, num_clusters: int, seed: int = 0, **options) -> Partition:
    generator = torch.Generator().manual_seed(seed)
    options = {"iterations": 15, **options}
    return balanced_kmeans(vectors, num_clusters, generator=generator, **options)


@pytest.mark.parametrize(
    ("num_items", "num_clusters"),
    [(2, 2), (5, 2), (16, 16), (17, 16), (31, 16), (100, 7), (1000, 32), (1023, 32), (3001, 64)],
)
def test_sizes_differ_by_at_most_one(num_items: int, num_clusters: int) -> None:
    sizes = torch.bincount(fit(topical(num_items, 8), num_clusters).labels, minlength=num_clusters)
    assert sizes.sum() == num_items
    assert sizes.max() - sizes.min() <= 1
    assert (sizes == num_items // num_clusters + 1).sum() == num_items % num_clusters


@pytest.mark.parametrize("distinct", [1, 2, 5])
def test_repeated_vectors_are_spread_evenly(distinct: int) -> None:
    vectors = topical(distinct, 8).repeat(200 // distinct, 1)
    sizes = torch.bincount(fit(vectors, 16).labels, minlength=16)
    assert sizes.tolist().count(13) == len(vectors) % 16
    assert sizes.max() - sizes.min() <= 1


def test_one_far_cluster_of_most_items_is_split() -> None:
    # 90 % of the items within 0.01 of each other: most clusters have to come from far away
    generator = torch.Generator().manual_seed(0)
    crowd = torch.ones(900, 4) + 0.01 * torch.randn(900, 4, generator=generator)
    vectors = torch.cat([crowd, torch.randn(100, 4, generator=generator) * 3])
    sizes = torch.bincount(fit(vectors, 20).labels, minlength=20)
    assert sizes.tolist() == [50] * 20


@pytest.mark.parametrize("seed", range(3))
def test_assignment_is_within_one_percent_of_the_cheapest(seed: int) -> None:
    vectors = topical(1024, 16, seed=seed)
    found = fit(vectors, 16, seed)
    ours = inertia(vectors, found.centroids, found.labels)
    exact = inertia(vectors, found.centroids, exact_labels(vectors, found.centroids))
    assert exact <= ours <= exact * 1.01


@pytest.mark.parametrize("seed", range(3))
def test_rounding_alone_is_close_to_the_cheapest(seed: int) -> None:
    # no prices at all: a fifth of the items has to move
    vectors = topical(480, 8, seed=seed)
    centroids = vectors[:12]
    nearest = torch.cdist(vectors, centroids).argmin(1)
    assert torch.bincount(nearest, minlength=12).max() > 50
    labels = round_to_capacity(vectors, centroids, torch.zeros(12), nearest)
    assert torch.bincount(labels).tolist() == [40] * 12
    exact = inertia(vectors, centroids, exact_labels(vectors, centroids))
    assert inertia(vectors, centroids, labels) <= exact * 1.02


def test_a_cluster_far_too_large_takes_few_passes_over_all_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = []

    def counted(*args):
        passes.append(args)
        return movable(*args)

    movable = min_cost_flow._movable
    monkeypatch.setattr(min_cost_flow, "_movable", counted)
    vectors = topical(6000, 8)
    centroids = vectors[:6]
    labels = round_to_capacity(vectors, centroids, torch.zeros(6), torch.zeros(6000).long())
    assert torch.bincount(labels).tolist() == [1000] * 6
    assert len(passes) <= 3, "5,000 items have to leave the first cluster"


def test_as_good_as_lloyd_steps_with_exact_assignments() -> None:
    vectors = topical(960, 16, seed=1)
    ours, exact = [], []
    for seed in range(3):
        found = fit(vectors, 16, seed)
        ours.append(inertia(vectors, found.centroids, found.labels))
        generator = torch.Generator().manual_seed(seed)
        centroids = vectors[torch.randperm(len(vectors), generator=generator)[:16]]
        labels = exact_labels(vectors, centroids)
        for _ in range(7):
            centroids = torch.zeros_like(centroids).index_add_(0, labels, vectors) / 60
            labels = exact_labels(vectors, centroids)
        centroids = torch.zeros_like(centroids).index_add_(0, labels, vectors) / 60
        exact.append(inertia(vectors, centroids, labels))
    assert sum(ours) <= sum(exact) * 1.02


def test_clearly_better_than_algorithm_1() -> None:
    vectors = topical(2000, 16)
    found = fit(vectors, 32)
    generator = torch.Generator().manual_seed(0)
    peer = algorithm_1(vectors, 32, iterations=15, generator=generator)
    ours = inertia(vectors, found.centroids, found.labels)
    assert ours < 0.95 * inertia(vectors, peer.centroids, peer.labels)


def test_centroids_are_the_means_of_their_members() -> None:
    vectors = topical(300, 8)
    found = fit(vectors, 10)
    for code in range(10):
        mean = vectors[found.labels == code].mean(0)
        torch.testing.assert_close(found.centroids[code], mean, rtol=1e-5, atol=1e-6)


def test_blocks_do_not_have_to_hold_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = topical(700, 8)
    monkeypatch.setattr("onerec.tokenizer.distances.BLOCK_SCORES", 16 * 64)
    monkeypatch.setattr("onerec.tokenizer.min_cost_flow.POOL_CELLS", 1)
    monkeypatch.setattr("onerec.tokenizer.balanced_kmeans.POINTS_PER_CLUSTER", 20)
    found = fit(vectors, 16)
    sizes = torch.bincount(found.labels)
    assert sizes.max() - sizes.min() <= 1
    peer = algorithm_1(vectors, 16, iterations=15, generator=torch.Generator().manual_seed(0))
    ours = inertia(vectors, found.centroids, found.labels)
    assert ours < inertia(vectors, peer.centroids, peer.labels)


def test_runs_repeat_themselves_and_seeds_differ() -> None:
    vectors = topical(500, 8)
    first, again, other = fit(vectors, 16), fit(vectors, 16), fit(vectors, 16, seed=1)
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.centroids, again.centroids)
    assert not torch.equal(first.labels, other.labels)
