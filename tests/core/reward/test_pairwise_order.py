"""Pairs in order: hand arithmetic, every pair written down, and another library's grouped AUC."""

import doctest
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.retrieval import RetrievalAUROC

from onerec.reward import pairwise_order as ordering
from onerec.reward.pairwise_order import pairs_in_order


def test_examples_in_docstrings():
    assert doctest.testmod(ordering).failed == 0


def test_by_hand():
    group = np.array([1, 0, 1, 0, 1, 2])
    score = np.array([0.9, 0.4, 0.2, 0.4, 0.5, 0.7])
    came_out = np.array([0.0, 1.0, 1.0, 0.0, 3.5, 1.0])
    # group 0: one pair, scores equal. group 1: .2 over .9 wrong, .5 over .9 wrong, .5 over .2 right
    won, pairs = pairs_in_order(score, came_out, group)
    assert won.tolist() == [0.5, 1.0, 0.0]
    assert pairs.tolist() == [1.0, 3.0, 0.0]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0, 2.5])),
        max_size=25,
    )
)
def test_every_pair_written_down(rows: list[tuple[int, int, float]]):
    won, pairs = np.zeros(4), np.zeros(4)
    for (g, s, y), (h, t, z) in combinations(rows, 2):
        if g == h and y != z:
            pairs[g] += 1
            won[g] += 0.5 if s == t else (s > t) == (y > z)
    group, score, came_out = (np.array([r[i] for r in rows]) for i in range(3))
    got = pairs_in_order(score.astype(float), came_out.astype(float), group.astype(int))
    size = len(got[0])
    assert got[0].tolist() == won[:size].tolist()
    assert got[1].tolist() == pairs[:size].tolist()
    assert not pairs[size:].any()


def test_two_outcomes_give_each_groups_auc():
    rng = np.random.default_rng(0)
    group = np.sort(rng.integers(0, 30, 400))
    score = rng.permutation(400) / 400
    came_out = (rng.random(400) < score).astype(float)
    won, pairs = pairs_in_order(score, came_out, group)
    theirs = RetrievalAUROC(empty_target_action="skip")(
        torch.from_numpy(score), torch.from_numpy(came_out) > 0, indexes=torch.from_numpy(group)
    )
    assert (won[pairs > 0] / pairs[pairs > 0]).mean() == pytest.approx(float(theirs), abs=1e-6)
