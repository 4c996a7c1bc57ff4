"""Item-KNN with a recency prior: what it lists, and how the prior's weight is chosen."""

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from onerec.config import EvaluationConfig
from onerec.evaluation.baselines import (
    BaselineInputs,
    FittedBaselines,
    fit_baselines,
    fit_item_knn,
    fit_item_knn_prior,
    load_baselines,
)
from onerec.evaluation.baselines.simple import SMOOTHING
from onerec.evaluation.ndcg_by_weight import NdcgByWeight
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.evaluation.recency import (
    NOT_CHOSEN,
    PRIOR_WEIGHTS,
    ChosenPrior,
    WithRecency,
    chosen_prior,
)
from onerec.ranked_lists import RankedLists
from onerec.session_dataset.interactions import load_interactions
from tests.core.training.small import HISTORY, NUM_ITEMS, catalogue, write_patterned_dataset

TEST_DAY = date(2026, 6, 4)
EVERYTHING = np.ones(NUM_ITEMS, dtype=bool)
CONFIG = EvaluationConfig(neighbours=20)


@pytest.fixture
def inputs(tmp_path: Path) -> BaselineInputs:
    return BaselineInputs(
        session_dataset=write_patterned_dataset(tmp_path / "data", train=300, valid=100),
        semantic_ids=catalogue(),
        candidates=EVERYTHING,
        test_day=TEST_DAY,
        history_length=HISTORY,
        recency_days=1,
    )


def fitted(inputs: BaselineInputs, prior: ChosenPrior) -> FittedBaselines:
    window = load_interactions(inputs.session_dataset, catalogue(), test_day=TEST_DAY)
    counted = fit_baselines(window, EVERYTHING, neighbours=20)
    return replace(counted, newest_watches=inputs.newest_watches, item_knn_prior=prior)


def by_hand(knn, histories: np.ndarray, added: np.ndarray) -> np.ndarray:
    """(C, N) scores of all items."""
    dense = knn.similarity.toarray()
    similar = np.stack([dense[sorted({i for i in h if i >= 0})].sum(0) for h in histories])
    return np.log(similar + SMOOTHING) + added


def test_lists_are_sorted_by_log_similarity_plus_prior(
    inputs: BaselineInputs, tmp_path: Path
) -> None:
    baselines = fitted(inputs, ChosenPrior(weight=0.5))
    (tmp_path / "baselines").mkdir()
    baselines.save(tmp_path / "baselines")
    loaded = load_baselines(tmp_path / "baselines")
    histories = np.array([[3, 7, 9, -1, -1, -1], [0, -1, -1, -1, -1, -1]])
    watches = inputs.newest_watches
    assert watches is not None
    expected = by_hand(baselines.item_knn, histories, 0.5 * np.log1p(watches))
    for rankers in (baselines.rankers, loaded.rankers):
        lists = rankers["itemknn"].rank(histories, 10)
        assert lists.scores == pytest.approx(-np.sort(-expected, 1)[:, :10])
        assert np.take_along_axis(expected, lists.items, 1) == pytest.approx(lists.scores)
        plain = rankers["itemknn_without_recency"].rank(histories, 10)
        assert np.array_equal(plain.items, baselines.item_knn.rank(histories, 10).items)
    without = fitted(inputs, NOT_CHOSEN).rankers
    assert "itemknn_without_recency" not in without
    assert np.array_equal(without["itemknn"].rank(histories, 10).items, plain.items)


@dataclass(frozen=True)
class InOrder:
    """Lists of items 0, 1, 2 and so on, each a little less likely than the one before it."""

    num_items: int

    def rank(self, histories, top_k, exclude=None, candidates=None, attributes=None) -> RankedLists:
        items = np.tile(np.arange(self.num_items), (len(histories), 1))
        return RankedLists.best(items, -0.001 * items, top_k)


def test_a_prior_lifts_an_item_from_far_below_the_list() -> None:
    prior = np.zeros(2_000)
    prior[[700, 1_500]] = 5.0
    lists = WithRecency(InOrder(2_000), prior).rank(np.zeros((2, 1), dtype=int), 3)
    assert lists.items.tolist() == [[700, 0, 1]] * 2, "item 1,500 is not among the first 1,000"


def test_the_weight_is_chosen_on_the_validation_day_by_what_was_before_it(
    inputs: BaselineInputs,
) -> None:
    valid_day = date(2026, 6, 3)
    train = load_interactions(
        inputs.session_dataset, catalogue(), test_day=valid_day, splits=("train",)
    )
    knn = fit_item_knn(train, EVERYTHING, neighbours=20)
    cases = inputs.recency_cases
    assert cases is not None
    assert cases.watches.sum() == train.watches.sum(), "those of the one training day"
    ndcg = {}
    for weight in PRIOR_WEIGHTS:
        scores = by_hand(knn, cases.users.history, weight * np.log1p(cases.watches))
        top = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        found = per_case_metrics(top, cases.users.targets, (10,))
        ndcg[weight] = found["ndcg@10"].mean()
    prior = fit_item_knn_prior(inputs, CONFIG)
    assert prior.days == 1
    assert ndcg[prior.weight] == pytest.approx(max(ndcg.values()), abs=1e-3)
    assert prior.measured.users == len(cases.users)
    assert prior.measured.ndcg == pytest.approx(ndcg, abs=1e-3)
    assert fit_item_knn_prior(replace(inputs, recency_days=None), CONFIG) == NOT_CHOSEN


def test_many_users_of_earlier_days_outvote_those_of_this_one(
    inputs: BaselineInputs, tmp_path: Path
) -> None:
    alone = fit_item_knn_prior(inputs, CONFIG)
    other = 1.5 if alone.weight != 1.5 else 0.25

    def with_earlier(users: int) -> ChosenPrior:
        days = (NdcgByWeight(users, {w: float(w == other) for w in PRIOR_WEIGHTS}),)
        return fit_item_knn_prior(replace(inputs, earlier={"itemknn": days}), CONFIG)

    assert with_earlier(10**6) == replace(alone, weight=other), "measured stays this day's own"
    assert with_earlier(0) == alone
    alone.save(tmp_path)
    assert ChosenPrior.load(tmp_path) == alone


def test_a_day_without_users_takes_the_weight_of_the_days_before(
    inputs: BaselineInputs,
) -> None:
    cases = inputs.recency_cases
    assert cases is not None
    nobody = replace(cases, users=cases.users.rows(np.array([], dtype=int)))
    days = (NdcgByWeight(10, {0.0: 0.1, 0.5: 0.3}), NdcgByWeight(90, {0.0: 0.3, 0.5: 0.2}))
    for count, weight in ((0, 0.0), (1, 0.5), (2, 0.0)):
        assert chosen_prior(None, nobody, seed=0, earlier=days[:count]).weight == weight
