import doctest

import numpy as np
import pytest
import torch
from torchmetrics.functional.retrieval import (
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from onerec import statistics
from onerec.evaluation import beyond_accuracy, generated_sessions, ranking_metrics, slices
from onerec.evaluation.ranking_metrics import per_case_metrics

CUTOFFS = (1, 3, 5)


@pytest.mark.parametrize(
    "module", [ranking_metrics, statistics, beyond_accuracy, slices, generated_sessions]
)
def test_examples_in_docstrings(module) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.fixture
def random_case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    ranked = np.stack([rng.permutation(30)[:8] for _ in range(60)])
    targets = np.full((60, 6), -1)
    for row in targets:
        size = rng.integers(1, 7)
        row[:size] = rng.permutation(30)[:size]
    return ranked, targets


@pytest.mark.parametrize("k", CUTOFFS)
def test_same_as_torchmetrics(random_case, k: int) -> None:
    ranked, targets = random_case
    ours = per_case_metrics(ranked, targets, CUTOFFS)
    for case, (row, wanted) in enumerate(zip(ranked, targets, strict=True)):
        # The list's items keep their order by score, everything else is below them.
        score = torch.full((30,), -1.0)
        score[torch.from_numpy(row)] = torch.arange(len(row), 0, -1).float()
        relevant = torch.zeros(30, dtype=torch.bool)
        relevant[torch.from_numpy(wanted[wanted >= 0])] = True
        theirs = {
            f"recall@{k}": retrieval_recall(score, relevant, top_k=k),
            f"ndcg@{k}": retrieval_normalized_dcg(score, relevant, top_k=k),
            f"hit_rate@{k}": retrieval_hit_rate(score, relevant, top_k=k),
            f"mrr@{k}": retrieval_reciprocal_rank(score, relevant, top_k=k),
        }
        for name, value in theirs.items():
            assert ours[name][case] == pytest.approx(float(value), abs=1e-6), (name, case)


def brute_force(row: list[int], wanted: set[int], k: int) -> tuple[float, float, float, float]:
    """The definitions, spelled out one list at a time."""
    seen: set[int] = set()
    hits = []
    for item in row[:k]:
        hits.append(item in wanted and item not in seen)
        seen.add(item)
    dcg = sum(1 / np.log2(place + 2) for place, hit in enumerate(hits) if hit)
    ideal = sum(1 / np.log2(place + 2) for place in range(min(k, len(wanted))))
    first = next((place + 1 for place, hit in enumerate(hits) if hit), None)
    return sum(hits) / len(wanted), dcg / ideal, float(any(hits)), 1 / first if first else 0.0


@pytest.mark.parametrize("k", CUTOFFS)
def test_same_as_the_definitions_with_padding_and_repeats(k: int) -> None:
    rng = np.random.default_rng(6)
    ranked = rng.integers(-1, 9, (200, 6))
    targets = rng.integers(-1, 9, (200, 7))
    targets[:, 0] = rng.integers(0, 9, 200)
    ours = per_case_metrics(ranked, targets, CUTOFFS)
    names = (f"recall@{k}", f"ndcg@{k}", f"hit_rate@{k}", f"mrr@{k}")
    for case in range(200):
        wanted = {int(t) for t in targets[case] if t >= 0}
        expected = brute_force(ranked[case].tolist(), wanted, k)
        assert [ours[n][case] for n in names] == pytest.approx(list(expected), abs=1e-12)


def test_padding_of_both_is_no_hit() -> None:
    values = per_case_metrics(np.array([[-1, -1]]), np.array([[4, -1]]), (2,))
    assert values["recall@2"].tolist() == [0.0]


def test_more_targets_than_places_cannot_reach_one() -> None:
    values = per_case_metrics(np.array([[0, 1]]), np.array([[0, 1, 2, 3]]), (2,))
    assert values["recall@2"].tolist() == [0.5]
    assert values["ndcg@2"].tolist() == [1.0]


def test_list_shorter_than_cutoff_is_an_error() -> None:
    with pytest.raises(ValueError, match="lists hold 3 items"):
        per_case_metrics(np.zeros((1, 3), int), np.zeros((1, 1), int), (5,))


def test_case_without_target_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 cases have none"):
        per_case_metrics(np.zeros((2, 3), int), np.array([[1], [-1]]), (3,))


@pytest.mark.parametrize(
    "ranked",
    [np.zeros((1, 5, 4), int), np.array([["3-1-0"] * 5]), np.zeros((1, 5))],
    ids=["digits", "strings", "floats"],
)
def test_semantic_ids_are_no_items(ranked: np.ndarray) -> None:
    with pytest.raises(ValueError, match="metrics count items"):
        per_case_metrics(ranked, np.array([[1]]), (5,))


def test_rows_must_match() -> None:
    with pytest.raises(ValueError, match="one list and one row of targets per case"):
        per_case_metrics(np.zeros((2, 3), int), np.zeros((3, 1), int), (3,))


def test_intra_list_distance_is_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    row = np.array([3, 7, 9, 3, -1])
    places = [3, 7, 9, 3]
    pairs = [1 - vectors[a] @ vectors[b] for i, a in enumerate(places) for b in places[i + 1 :]]
    assert beyond_accuracy.intra_list_distance(row[None], vectors)[0] == pytest.approx(
        np.mean(pairs)
    )


def test_gini_against_mean_absolute_difference() -> None:
    counts = np.random.default_rng(1).integers(0, 40, 50)
    pairwise = np.abs(counts[:, None] - counts[None]).mean() / (2 * counts.mean())
    assert statistics.gini(counts) == pytest.approx(pairwise)


def test_item_slices_divide_the_candidates() -> None:
    exposures = np.array([5, 0, 3, 3, 9, 1, 1])
    candidates = np.array([True, True, True, True, True, True, False])
    found = slices.item_slices(exposures, candidates)
    assert np.flatnonzero(found["cold"]).tolist() == [1]
    assert np.flatnonzero(found["hot"]).tolist() == [0, 4]  # a third of five, rounded
    assert np.flatnonzero(found["warm"]).tolist() == [2, 3, 5]
    assert (sum(m.astype(int) for m in found.values()) == candidates).all()


def test_history_slices_divide_the_cases() -> None:
    history = np.array([[-1, -1, -1, -1], [1, -1, -1, -1], [1, 2, -1, -1], [1, 2, 3, 4]])
    found = slices.history_slices(history)
    assert found["short_history"].tolist() == [True, True, False, False]
    assert found["long_history"].tolist() == [False, False, True, True]
