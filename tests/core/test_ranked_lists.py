import doctest
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onerec import ranked_lists
from onerec.evaluation.baselines import fit_baselines
from onerec.evaluation.baselines.simple import OwnRepeats
from onerec.evaluation.baselines.transformer import SequenceModel, SequenceRanker, SequenceShape
from onerec.evaluation.generators import load_generator
from onerec.ranked_lists import (
    RankedLists,
    Ranker,
    first_occurrences,
    is_excluded,
    last_items,
)
from onerec.serving.recommender import Recommender
from onerec.session_dataset.interactions import load_interactions
from tests.core.evaluation import night

ROWS = arrays(
    np.int64, st.tuples(st.integers(1, 4), st.integers(0, 6)), elements=st.integers(-1, 5)
)
HISTORIES = np.array([[3, 9, 30, -1], [-1, -1, -1, -1], [1, 2, 3, 4]])
RANKERS = ("popularity", "own_repeats", "itemknn", "sequence", "generator", "recommender")


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(ranked_lists).failed == 0


@given(rows=ROWS, length=st.integers(0, 7))
def test_last_items_by_brute_force(rows: np.ndarray, length: int) -> None:
    expected = []
    for row in rows.tolist():
        kept = [item for item in row if item >= 0][max(0, sum(i >= 0 for i in row) - length) :]
        expected.append(kept + [-1] * (length - len(kept)))
    assert last_items(torch.from_numpy(rows), length).tolist() == expected


@given(rows=ROWS)
def test_first_occurrences_by_brute_force(rows: np.ndarray) -> None:
    expected = [
        [item >= 0 and item not in row[:place] for place, item in enumerate(row)]
        for row in rows.tolist()
    ]
    assert first_occurrences(torch.from_numpy(rows)).tolist() == expected


@given(rows=ROWS, data=st.data())
@settings(max_examples=50)
def test_is_excluded_by_brute_force(rows: np.ndarray, data: st.DataObject) -> None:
    exclude = data.draw(arrays(np.int64, (len(rows), 3), elements=st.integers(-1, 5)))
    expected = [
        [item >= 0 and item in refused for item in row]
        for row, refused in zip(rows.tolist(), exclude.tolist(), strict=True)
    ]
    assert is_excluded(rows, exclude).tolist() == expected


@pytest.fixture(scope="module")
def rankers(tmp_path_factory) -> dict[str, Ranker]:
    root: Path = tmp_path_factory.mktemp("rankers")
    ids = night.catalogue()
    night.write_sessions(root / "sessions", night.rows())
    candidates = ids.known_before(night.DAY)
    window = load_interactions(root / "sessions", ids, test_day=night.DAY)
    fitted = fit_baselines(window, candidates, neighbours=10)
    torch.manual_seed(0)
    sequence = SequenceModel(SequenceShape(num_items=len(ids), length=4, width=8)).eval()
    night.write_generator(root / "generator", seed=0)
    generator = load_generator(
        root / "generator", ids, night.BeamConfig(beam=night.NUM_ITEMS, batch_size=2)
    )
    return {
        "popularity": fitted.popularity,
        "own_repeats": OwnRepeats(fitted.popularity),
        "itemknn": fitted.item_knn,
        "sequence": SequenceRanker(sequence, candidates),
        "generator": generator,
        "recommender": Recommender(generator.model, ids, config=generator.config),
    }


@pytest.mark.parametrize("name", RANKERS[:5])
def test_filters_take_items_away_and_leave_the_order(rankers: dict[str, Ranker], name: str) -> None:
    exclude = np.array([[9, 3, -1], [0, 1, 2], [-1, -1, 39]])
    candidates = np.arange(night.NUM_ITEMS) % 3 > 0
    full = rankers[name].rank(HISTORIES, night.NUM_ITEMS)
    for top_k in (5, night.NUM_ITEMS):
        lists = rankers[name].rank(HISTORIES, top_k, exclude, candidates)
        for row, refused, found in zip(full.items, exclude, lists.items, strict=True):
            kept = [i for i in row if i >= 0 and candidates[i] and i not in refused][:top_k]
            assert found.tolist() == kept + [-1] * (top_k - len(kept))


@pytest.mark.parametrize("name", RANKERS)
def test_lists_are_sorted_and_hold_what_is_allowed_once(
    rankers: dict[str, Ranker], name: str
) -> None:
    candidates = np.arange(night.NUM_ITEMS) < 12
    lists = rankers[name].rank(HISTORIES, 20, HISTORIES, candidates)
    assert lists.items.shape == lists.scores.shape == (3, 20)
    assert (np.isneginf(lists.scores) == (lists.items < 0)).all()
    for row, refused in zip(lists.items.tolist(), HISTORIES.tolist(), strict=True):
        listed = [item for item in row if item >= 0]
        assert sorted(listed) == [i for i in range(12) if i not in refused]
    if name != "recommender":  # there the best session comes before better single items
        assert (np.diff(lists.scores[:, :8]) <= 0).all()


@pytest.mark.parametrize("name", RANKERS)
def test_nobody_gets_no_list(rankers: dict[str, Ranker], name: str) -> None:
    assert rankers[name].rank(HISTORIES[:0], 5).items.shape == (0, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RankedLists(np.zeros((2, 3, 4), int), np.zeros((2, 3, 4))), "use item indices"),
        (lambda: RankedLists(np.zeros((2, 3)), np.zeros((2, 3))), "items is float64"),
        (lambda: RankedLists(np.zeros((2, 3), int), np.zeros((2, 2))), r"scores is \(2, 2\)"),
    ],
)
def test_columns_of_another_shape_are_an_error(
    make: Callable[[], RankedLists], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()
