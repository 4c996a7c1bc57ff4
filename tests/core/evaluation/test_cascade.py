"""Retrieve and rank: candidates, features, grades, and no look at what is to be predicted."""

import dataclasses
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from onerec.config import EvaluationConfig
from onerec.evaluation.baselines import (
    BaselineInputs,
    cascade,
    fit_baselines,
    fit_learned,
    load_baselines,
)
from onerec.evaluation.baselines.cascade import FEATURES, Cascade, Retrieval, examples, fit_cascade
from onerec.evaluation.baselines.item_statistics import STATISTICS, item_statistics
from onerec.evaluation.ndcg_by_weight import NdcgByWeight
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.evaluation.recency import NOT_CHOSEN, PRIOR_WEIGHTS, ChosenPrior
from onerec.session_dataset.eval_users import load_eval_users
from onerec.session_dataset.interactions import load_interactions
from onerec.session_dataset.logged_exposures import LoggedExposures, load_logged_exposures
from tests.core.evaluation import night as small
from tests.core.evaluation.night import DAY, NUM_ITEMS, session

IDS = small.catalogue()
CANDIDATES = IDS.known_before(DAY)


def day(back: int):
    return DAY - timedelta(days=back)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users are of two kinds, and watch what is of their kind: odd or even items."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        seen: list[str] = []
        for back in (4, 3, 2, 1, 0):
            shown = rng.choice(NUM_ITEMS - 3, 8, replace=False)
            watched = shown % 2 == user % 2
            items = [f"i{n:02d}" for n in shown]
            rows.append(
                session(
                    f"u{user:02d}", day(back), items, history=seen[-6:], watched=watched.tolist()
                )
            )
            seen += [i for i, w in zip(items, watched, strict=True) if w]
    return small.write_sessions(tmp_path_factory.mktemp("cascade") / "s", rows)


@pytest.fixture(scope="module")
def fitted(data: Path) -> Cascade:
    return fit_cascade(data, IDS, CANDIDATES, test_day=DAY, neighbours=5, history_length=6, seed=0)


def feedback(rows: list[tuple[int, int, float, bool, bool]]) -> LoggedExposures:
    user, item, seconds, watched, liked = (np.array(column) for column in zip(*rows, strict=True))
    return LoggedExposures(user, item, seconds, watched, liked, np.array(["a", "b"], dtype=object))


def test_grades_by_hand():
    log = feedback(
        [
            (0, 0, 1.0, False, False),
            (0, 1, 10.0, True, False),
            (0, 2, 20.0, True, False),  # the median of 10, 20, 30
            (1, 3, 30.0, True, False),
            (1, 4, 1.0, False, True),
        ]
    )
    assert log.relevance().tolist() == [0, 1, 2, 2, 3]


def test_statistics_are_smoothed_shares():
    """Two exposures of item 0, one watched; ten imagined ones at the overall share of 2/3."""
    log = feedback([(0, 0, 9.0, True, False), (0, 0, 0.0, False, False), (1, 1, 3.0, True, True)])
    table = item_statistics(log, IDS, DAY)
    value = dict(zip(STATISTICS, table[0], strict=True))
    assert value["exposures"] == pytest.approx(np.log(3))
    assert value["watches"] == pytest.approx(np.log(2))
    assert value["watch_share"] == pytest.approx((1 + 10 * 2 / 3) / 12)
    assert value["watch_seconds"] == pytest.approx((9 + 10 * 4) / 12)
    assert value["interactions"] == pytest.approx((0 + 10 / 3) / 12)
    assert value["age_days"] == 5
    assert table.shape == (NUM_ITEMS, len(STATISTICS))


def test_feedback_is_what_the_log_says(tmp_path: Path):
    row = session("a", day(1), ["i00", "i99", "i02"], watched=[True, True, False])
    row["is_share"] = [False, True, True]
    directory = small.write_sessions(tmp_path / "s", [row])
    log = load_logged_exposures(directory, IDS, ("valid",))
    assert log.item.tolist() == [0, 2]
    assert log.is_watched.tolist() == [True, False]
    assert log.has_interaction.tolist() == [False, True]
    assert log.watch_seconds.tolist() == [20.0, 1.0]
    with pytest.raises(AssertionError):
        load_logged_exposures(directory, IDS, ("test",))


def retrieval(data: Path, splits: tuple[str, ...] = ("train",)) -> Retrieval:
    return cascade._retrieval(data, IDS, splits, CANDIDATES, day(1), 5)


def test_retrieved_items_are_the_retrievers_each_once(data: Path, monkeypatch):
    monkeypatch.setattr(cascade, "RETRIEVED", 4)
    first = retrieval(data)
    history = np.array([[3, 9, -1], [-1, -1, -1]])
    retrieved = first.retrieve(history)
    for case in range(2):
        found = [i for i in retrieved[case].tolist() if i >= 0]
        expected = [
            *first.knn.rank(history, 4).items[case].tolist(),
            *first.popular.rank(history, 4).items[case].tolist(),
        ]
        assert found == list(dict.fromkeys(expected))


def test_features_by_brute_force(data: Path):
    first = retrieval(data)
    history = np.array([[3, 9, -1], [-1, -1, -1], [5, 7, 11]])
    case, item = np.repeat(np.arange(3), 4), np.tile([1, 2, 6, 30], 3)
    table = first.features(history, case, item)
    dense = first.knn.similarity.toarray()
    for row, (c, i) in enumerate(zip(case, item, strict=True)):
        seen = history[c][history[c] >= 0]
        value = dict(zip((*FEATURES, *STATISTICS), table[row], strict=True))
        similar = [dense[seen, j].sum() for j in (1, 2, 6, 30)]
        assert value["similarity"] == pytest.approx(dense[seen, i].sum())
        place = sum(s > value["similarity"] + 1e-12 for s in similar)
        assert place <= value["knn_place"] < 4
        assert value["history_items"] == len(seen)
        assert value["popular_weight"] == first.popular.weights[i]
        assert value["watch_share"] == first.statistics[i, STATISTICS.index("watch_share")]


def test_examples_are_what_was_retrieved_graded_by_what_was_shown(data: Path, monkeypatch):
    monkeypatch.setattr(cascade, "RETRIEVED", 3)
    first = retrieval(data)
    history = np.array([[3, 9, -1]])
    retrieved = [i for i in first.retrieve(history)[0].tolist() if i >= 0]
    other = next(i for i in range(NUM_ITEMS) if i not in retrieved)
    shown = feedback(
        [
            (1, retrieved[0], 9.0, True, False),
            (1, retrieved[0], 0.0, False, False),  # again, not watched: the better one counts
            (1, retrieved[1], 0.0, False, False),
            (1, other, 9.0, True, False),  # not retrieved: nothing to order
            (0, retrieved[2], 9.0, True, False),  # of a user who is no case
        ]
    )
    case, item, grade = examples(first, history, np.array([1]), shown)
    assert (case == 0).all()
    assert item.tolist() == retrieved
    assert grade.tolist() == [2] + [0] * (len(retrieved) - 1)


def test_it_learns_what_kind_of_user_asks(fitted: Cascade):
    odd, even = [1, 3, 5, 7, 9, 11], [0, 2, 4, 6, 8, 10]
    ranked = fitted.rank(np.array([odd, even]), 10).items
    assert (ranked[0] % 2 == 1).mean() > 0.8
    assert (ranked[1] % 2 == 0).mean() > 0.8
    assert len(set(ranked[0].tolist())) == 10


def test_lists_hold_candidates_only_and_end_where_they_do(fitted: Cascade):
    ranked = fitted.rank(np.array([[1, 3, 5], [-1, -1, -1]]), 60).items
    assert ranked.max() < NUM_ITEMS - 3
    for row in ranked.tolist():
        items = [i for i in row if i >= 0]
        assert len(items) == len(set(items)) == NUM_ITEMS - 3
        assert row[len(items) :] == [-1] * (60 - len(items))


def test_the_same_again(data: Path, fitted: Cascade):
    again = fit_cascade(data, IDS, CANDIDATES, test_day=DAY, neighbours=5, history_length=6, seed=0)
    assert again.booster.model_to_string() == fitted.booster.model_to_string()


def test_the_ranker_never_sees_the_watch_it_is_to_predict(data: Path, fitted: Cascade):
    """Statistics for training are of the days before; those for serving of the whole window."""
    before = retrieval(data, ("train",))
    now = fitted.retrieval
    exposures = STATISTICS.index("exposures")
    valid = load_logged_exposures(data, IDS, ("valid",))
    shown = np.bincount(valid.item, minlength=NUM_ITEMS)
    counted = np.expm1(now.statistics[:, exposures]) - np.expm1(before.statistics[:, exposures])
    assert counted == pytest.approx(shown)


def test_a_night_can_name_it(data: Path, tmp_path: Path):
    config = EvaluationConfig(baselines="popularity,cascade", neighbours=5)
    inputs = BaselineInputs(
        session_dataset=data,
        semantic_ids=IDS,
        candidates=CANDIDATES,
        test_day=DAY,
        history_length=6,
    )
    learned = fit_learned(inputs, config)
    counted = fit_baselines(
        load_interactions(data, IDS, test_day=DAY), CANDIDATES, neighbours=config.neighbours
    )
    fitted = dataclasses.replace(counted, learned=learned)
    fitted.save(tmp_path)
    loaded = load_baselines(tmp_path)
    history = np.array([[3, 9, -1], [-1, -1, -1]])
    ranked = {n: r.rank(history, 9).items.tolist() for n, r in loaded.rankers.items()}
    assert ranked == {n: r.rank(history, 9).items.tolist() for n, r in fitted.rankers.items()}


def test_its_lists_are_sorted_by_score_plus_prior(data: Path, fitted: Cascade, tmp_path: Path):
    histories = np.array([[3, 9, -1], [2, -1, -1]])
    scores = np.full((2, NUM_ITEMS), -np.inf)
    plain = fitted.rank(histories, NUM_ITEMS)
    rows, places = np.nonzero(plain.items >= 0)
    scores[rows, plain.items[rows, places]] = plain.scores[rows, places]
    watches = np.random.default_rng(1).integers(0, 50, NUM_ITEMS).astype(float)
    counted = fit_baselines(load_interactions(data, IDS, test_day=DAY), CANDIDATES, neighbours=5)
    for weight in (0.0, 1.5):
        system = dataclasses.replace(fitted, recency_prior=ChosenPrior(weight=weight))
        baselines = dataclasses.replace(
            counted, learned={"cascade": system}, newest_watches=watches
        )
        out = tmp_path / str(weight)
        out.mkdir()
        baselines.save(out)
        expected = np.argsort(-(scores + weight * np.log1p(watches)), 1, kind="stable")[:, :5]
        for rankers in (baselines.rankers, load_baselines(out).rankers):
            assert np.array_equal(rankers["cascade"].rank(histories, 5).items, expected)
            assert ("cascade_without_recency" in rankers) == (weight > 0)
    assert baselines.facts()["recency prior of cascade"] == 1.5
    without = rankers["cascade_without_recency"].rank(histories, 5)
    assert np.array_equal(without.items, plain.items[:, :5])


@pytest.mark.parametrize("fashion", [True, False])
def test_the_weight_of_its_prior_is_chosen_by_a_cascade_of_the_training_days(
    tmp_path: Path, fashion: bool
):
    """In fashion: each day everyone watches five items, three of which were watched the day before;
    nothing else says so. Otherwise watches are random."""
    rng = np.random.default_rng(0)
    rows, today = [], rng.choice(NUM_ITEMS - 3, 5, replace=False)
    for back in (5, 4, 3, 2, 1, 0):
        others = np.setdiff1d(np.arange(NUM_ITEMS - 3), today)
        today = np.concatenate([today[2:], rng.choice(others, 2, replace=False)])
        for user in range(40):
            shown = rng.choice(NUM_ITEMS - 3, 5, replace=False)
            items = [f"i{n:02d}" for n in (today if fashion else shown)]
            rows.append(session(f"u{user:02d}", day(back), items, watched=[True] * 5))
    directory = small.write_sessions(tmp_path / "s", rows)
    inputs = BaselineInputs(
        session_dataset=directory,
        semantic_ids=IDS,
        candidates=CANDIDATES,
        test_day=DAY,
        history_length=6,
        recency_days=1,
    )
    config, messages = EvaluationConfig(baselines="popularity,cascade", neighbours=5), []
    chosen = fit_learned(inputs, config, on_progress=messages.append)["cascade"].recency_prior

    earlier = small.write_sessions(
        tmp_path / "earlier",
        [
            {**r, "split": "valid" if r["session_date"] == day(2) else "train"}
            for r in rows
            if r["session_date"] < day(1)
        ],
    )
    older = fit_cascade(
        earlier, IDS, CANDIDATES, test_day=day(1), neighbours=5, history_length=6, seed=3
    )
    cases = load_eval_users(directory, "valid", IDS, history_length=6, rankable=CANDIDATES)
    shown_before = [i for r in rows if r["session_date"] == day(2) for i in r["item_ids"]]
    watches = np.bincount(IDS.index_of(np.array(shown_before, object)), minlength=NUM_ITEMS)
    lists = older.rank(cases.history, 100)
    ndcg = {}
    for weight in PRIOR_WEIGHTS:
        scores = lists.scores + weight * np.log1p(watches)[lists.items]
        order = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        top = np.take_along_axis(lists.items, order, 1)
        ndcg[weight] = per_case_metrics(top, cases.targets, (10,))["ndcg@10"].mean()
    assert chosen.weight == max(ndcg, key=ndcg.__getitem__)
    assert (chosen.weight > 0) == fashion
    assert f"cascade: weight {chosen.weight:g} of the recency prior" in messages
    assert chosen.measured.users == len(cases)
    assert chosen.measured.ndcg == pytest.approx(ndcg)
    other = 0.25 if chosen.weight != 0.25 else 2.0
    crowd = {"cascade": (NdcgByWeight(10_000, {w: float(w == other) for w in ndcg}),)}
    outvoted = fit_learned(dataclasses.replace(inputs, earlier=crowd), config)["cascade"]
    assert outvoted.recency_prior == dataclasses.replace(chosen, weight=other)


def test_a_single_training_day_chooses_no_prior(tmp_path: Path):
    rows = [session(f"u{u}", day(back), ["i01", "i02"]) for u in range(30) for back in (2, 1, 0)]
    inputs = BaselineInputs(
        session_dataset=small.write_sessions(tmp_path / "s", rows),
        semantic_ids=IDS,
        candidates=CANDIDATES,
        test_day=DAY,
        history_length=6,
        recency_days=1,
    )
    config = EvaluationConfig(baselines="popularity,cascade", neighbours=5)
    assert fit_learned(inputs, config)["cascade"].recency_prior == NOT_CHOSEN
