import doctest
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from onerec.evaluation.baselines import (
    Popularity,
    fit_baselines,
    fit_item_knn,
    load_baselines,
    simple,
)
from onerec.evaluation.baselines.simple import OwnRepeats
from onerec.session_dataset.interactions import Interactions, load_interactions
from tests.core.evaluation import night
from tests.core.evaluation.night import DAY, session


def day(back: int):
    return DAY - timedelta(days=back)


@pytest.fixture
def small(tmp_path: Path) -> tuple[Interactions, np.ndarray]:
    """Three users; i03 is shown and not watched, i99 has no semantic ID, i06 comes on day D."""
    ids = night.catalogue(7, late=1)
    directory = night.write_sessions(
        tmp_path / "sessions",
        [
            session("a", day(3), ["i00", "i01", "i03"], watched=[True, True, False]),
            session("a", day(1), ["i00", "i99"], history=["i05"]),
            session("b", day(2), ["i00", "i02"]),
            session("c", day(1), ["i01", "i02"]),
            session("c", DAY, ["i04", "i04", "i06"]),
        ],
    )
    window = load_interactions(directory, ids, test_day=DAY)
    return window, ids.known_before(DAY)


def test_window_counts(small) -> None:
    window, candidates = small
    assert window.exposures.tolist() == [3, 2, 2, 1, 0, 0, 0]
    assert window.watches.tolist() == [3, 2, 2, 0, 0, 0, 0]
    decayed = window.recent_watches
    assert decayed.tolist() == [0.25 + 1 + 0.5, 0.25 + 1, 0.5 + 1, 0, 0, 0, 0]
    assert candidates.tolist() == [True] * 6 + [False]


def test_nothing_of_the_test_day_is_read(small) -> None:
    window, _ = small
    assert window.watches[[4, 6]].tolist() == [0, 0]
    assert window.exposures[[4, 6]].tolist() == [0, 0]


def test_popularity_lists_candidates_most_watched_first(small) -> None:
    window, candidates = small
    ranked = Popularity(window.watches, candidates).rank(np.full((2, 3), -1), 8).items
    assert ranked.tolist() == [[0, 1, 2, 3, 4, 5, -1, -1]] * 2


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(simple)
    assert result.attempted > 0
    assert result.failed == 0


def test_own_repeats_are_the_most_frequent_first_then_the_latest_then_the_popular(small) -> None:
    window, candidates = small
    recent = Popularity(window.recent_watches, candidates)  # i00, i02, i01, i03, ...
    history = np.array(
        [
            [4, 5, 4, 1, 5, 1],  # twice each: the latest first
            [3, 3, 3, 2, 2, -1],
            [6, 5, -1, -1, -1, -1],  # i06 comes on day D
            [-1] * 6,
        ]
    )
    lists = OwnRepeats(recent).rank(history, 5)
    assert lists.items.tolist() == [
        [1, 5, 4, 0, 2],
        [3, 2, 0, 1, 4],
        [5, 0, 2, 1, 3],
        [0, 2, 1, 3, 4],
    ]
    assert (np.diff(lists.scores, axis=1) <= 0).all()
    assert lists.scores[0, :3].tolist() == pytest.approx([2 + 5 / 6, 2 + 4 / 6, 2 + 2 / 6])
    unseen = OwnRepeats(recent).rank(history, 3, exclude=history).items
    assert unseen.tolist() == [[0, 2, 3], [0, 1, 4], [0, 2, 1], [0, 2, 1]]


def test_own_repeats_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    history = rng.integers(0, 9, (50, 7))
    history[np.arange(7) >= rng.integers(0, 8, (50, 1))] = -1
    popular = Popularity(rng.random(9), np.arange(9) % 4 > 0)
    for row, found in zip(history, OwnRepeats(popular).rank(history, 9).items, strict=True):
        known = [item for item in row.tolist() if item >= 0 and item % 4 > 0]
        last = {item: place for place, item in enumerate(row.tolist())}
        own = sorted(set(known), key=lambda i: (known.count(i), last[i]), reverse=True)
        rest = [i for i in np.argsort(-popular.weights) if i % 4 > 0 and i not in own]
        assert found.tolist() == [*own, *rest] + [-1] * (9 - len(own) - len(rest))


def test_item_knn_is_the_cosine_of_the_watchers(small) -> None:
    window, candidates = small
    model = fit_item_knn(window, candidates, neighbours=10)
    # watchers: i00 {a, b}, i01 {a, c}, i02 {b, c}, i05 {a}, from the history
    similarity = model.similarity.toarray()
    assert similarity[0, 1] == pytest.approx(1 / np.sqrt(2 * 2))
    assert similarity[0, 5] == pytest.approx(1 / np.sqrt(2 * 1))
    assert similarity[0, 0] == 0
    assert similarity[3].sum() == 0  # shown, never watched
    assert similarity == pytest.approx(similarity.T)


def test_item_knn_sums_over_the_history_and_falls_back_to_popularity(small) -> None:
    window, candidates = small
    model = fit_item_knn(window, candidates, neighbours=10)
    history = np.array([[5, -1, -1], [0, 5, 5], [-1, -1, -1]])
    ranked = model.rank(history, 7).items
    # of i05's watcher a: i00 and i01 tie at 1/sqrt(2), the more popular one first
    assert ranked[0].tolist() == [0, 1, 2, 3, 4, 5, -1]
    # i00: .5 for i01 and i02, .71 for i05; i05, counted once: .71 for i00 and i01
    assert ranked[1].tolist() == [1, 0, 5, 2, 3, 4, -1]
    assert ranked[2].tolist() == [0, 1, 2, 3, 4, 5, -1]


def test_only_the_nearest_neighbours_are_kept(small) -> None:
    window, candidates = small
    similarity = fit_item_knn(window, candidates, neighbours=1).similarity.toarray()
    assert (similarity > 0).sum(1).max() == 1
    assert similarity[0, 5] > 0
    without = candidates & (np.arange(len(candidates)) != 5)
    similarity = fit_item_knn(window, without, neighbours=1).similarity.toarray()
    assert (similarity[0] > 0).sum() == 1
    assert similarity[0, 5] == 0, "what cannot be listed takes no place"


def test_item_knn_against_brute_force(tmp_path: Path, monkeypatch) -> None:
    ids = night.catalogue()
    window = load_interactions(
        night.write_sessions(tmp_path / "s", night.rows()), ids, test_day=DAY
    )
    candidates = ids.known_before(DAY)
    model = fit_item_knn(window, candidates, neighbours=len(candidates))
    rows = window.watched
    watched = rows.matrix(np.ones(len(rows.columns))).toarray()
    assert len(watched) == night.NUM_USERS
    norms = np.maximum(np.linalg.norm(watched, axis=0), 1e-12)
    cosine = watched.T @ watched / norms[:, None] / norms
    np.fill_diagonal(cosine, 0)
    assert model.similarity.toarray() == pytest.approx(cosine)
    history = np.array([[3, 9, 30, -1], [-1, -1, -1, -1], [1, 2, 3, 4]])
    scores = np.stack([cosine[[i for i in row if i >= 0]].sum(0) for row in history])
    order = np.lexsort(
        (
            np.broadcast_to(np.arange(len(candidates)), scores.shape),
            np.broadcast_to(-window.watches, scores.shape),
            np.where(candidates, -scores.round(9), np.inf),
        )
    )
    expected = order[:, :10]
    assert model.rank(history, 10).items.tolist() == expected.tolist()
    monkeypatch.setattr("onerec.evaluation.baselines.simple.CHUNK_CELLS", 1)  # one case at a time
    assert model.rank(history, 10).items.tolist() == expected.tolist()


def test_saved_baselines_rank_alike(small, tmp_path: Path) -> None:
    window, candidates = small
    fitted = fit_baselines(window, candidates, neighbours=10)
    fitted.save(tmp_path)
    loaded = load_baselines(tmp_path)
    history = np.array([[5, -1], [0, 1]])
    for name, ranker in fitted.rankers.items():
        again = loaded.rankers[name].rank(history, 5)
        assert (ranker.rank(history, 5).items == again.items).all()
    assert loaded.exposures.tolist() == fitted.exposures.tolist()


def test_window_with_the_test_day_in_it_is_an_error(tmp_path: Path) -> None:
    row = session("a", DAY, ["i00"]) | {"split": "train"}
    directory = night.write_sessions(tmp_path / "s", [row])
    with pytest.raises(ValueError, match="the test day is 2026-06-14"):
        load_interactions(directory, night.catalogue(), test_day=DAY)


def test_no_window_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ingest the days"):
        load_interactions(
            night.write_sessions(tmp_path, [session("a", DAY, ["i00"])]),
            night.catalogue(),
            test_day=DAY,
        )
