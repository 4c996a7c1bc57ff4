"""The scorers a reward model has to beat: facts by hand, planted signals, and no look ahead."""

import dataclasses

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc

from experiments.reward_quality.baselines import (
    block_facts,
    fit_base_rates,
    fit_lightgbm,
)
from onerec.reward.metrics import expected_calibration_error, log_loss, reliability
from onerec.session_dataset.reward_blocks import RewardBlocks
from tests.core.reward.planted import planted_blocks, topics_and_vectors

TOPICS, VECTORS = topics_and_vectors()
TRAIN, VALID, TEST = (planted_blocks(TOPICS, n, s) for n, s in ((4000, 1), (800, 2), (1500, 3)))
DAY = np.datetime64("2026-06-01")


def small() -> RewardBlocks:
    """Three blocks of items 0 to 3 on two days; only the first has a history."""
    blocks = planted_blocks(TOPICS, 3, 0)
    return dataclasses.replace(
        blocks,
        items=torch.tensor([[0, 1], [0, -1], [0, 2]], dtype=torch.int32),
        history=torch.tensor([[3, 1], [-1, -1], [-1, -1]], dtype=torch.int32),
        labels=torch.tensor([[1, 0, 0, 0], [0, 0, 0, 1], [1, 1, 0, 0]], dtype=torch.float32),
        date=DAY + np.array([0, 0, 1]),
        place=torch.tensor([0, 1, 0]),
    )


def test_base_rate_is_exactly_calibrated_on_its_own_blocks():
    probabilities = fit_base_rates(TRAIN).score(TRAIN, VECTORS)
    for tower in range(4):
        curve = reliability(probabilities[:, tower], TRAIN.labels[:, tower])
        assert len(curve["share"]) == 1
        assert expected_calibration_error(curve) == pytest.approx(0, abs=1e-12)


def test_facts_by_hand():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.6, 0.8], [3.0, 4.0]])
    of_items = torch.tensor([[[0.5], [0.7]], [[torch.nan], [0.0]], [[0.1], [torch.nan]]])
    blocks = dataclasses.replace(
        small(), item_facts=of_items, user_facts=torch.tensor([[3.0], [4.0], [torch.nan]])
    )
    columns = block_facts(blocks, vectors).T
    similarities = ("mean_similarity", "mean_best_similarity", "max_similarity")
    names = ("items", "history_items", "mean_rate", "max_rate", "place", *similarities)
    facts = dict(zip(names, columns, strict=True))
    assert facts["items"].tolist() == [2, 1, 2]
    assert facts["history_items"].tolist() == [2, 0, 0]
    np.testing.assert_allclose(facts["mean_rate"], [0.6, np.nan, 0.1], rtol=1e-6)
    np.testing.assert_allclose(facts["max_rate"], [0.7, np.nan, 0.1], rtol=1e-6)
    np.testing.assert_allclose(facts["place"], [3, 4, np.nan])
    # cosines of items 0, 1 with history 3, 1: .6, 0 and .8, 1
    assert facts["mean_similarity"][0] == pytest.approx((0.6 + 0 + 0.8 + 1) / 4)
    assert facts["mean_best_similarity"][0] == pytest.approx((0.6 + 1) / 2)
    assert facts["max_similarity"][0] == pytest.approx(1)
    assert np.isnan(facts["max_similarity"][1:]).all()


def test_boosting_finds_planted_signals_and_no_others():
    trained = fit_lightgbm(TRAIN, VALID, VECTORS)
    probabilities = trained.score(TEST, VECTORS)
    base = fit_base_rates(TRAIN).score(TEST, VECTORS)
    aucs = [float(binary_auroc(probabilities[:, i], TEST.labels[:, i].long())) for i in range(4)]
    assert min(aucs[0], aucs[1], aucs[3]) > 0.8
    assert abs(aucs[2] - 0.5) < 0.12  # follows are noise
    assert trained.trees()[2] < min(trained.trees()[i] for i in (0, 1, 3))
    for i in (0, 1, 3):
        mine, theirs = (log_loss(p[:, i], TEST.labels[:, i]) for p in (probabilities, base))
        assert mine < theirs - 0.05


def test_facts_are_used_without_any_vector():
    """Items whose fact is 1 are liked by everybody; vectors and histories say nothing."""
    rng = np.random.default_rng(0)

    def quality(blocks: RewardBlocks) -> RewardBlocks:
        odd = (blocks.items % 2).float()
        labels = torch.from_numpy(rng.random((len(blocks), 1)) < odd.mean(1)[:, None].numpy())
        return dataclasses.replace(
            blocks,
            labels=labels.repeat(1, 4).float(),
            item_facts=odd[..., None],
            user_facts=torch.zeros(len(blocks), 1),
        )

    vectors = torch.ones_like(VECTORS)
    train, valid, test = (quality(b) for b in (TRAIN, VALID, TEST))
    probabilities = fit_lightgbm(train, valid, vectors).score(test, vectors)
    assert float(binary_auroc(probabilities[:, 0], test.labels[:, 0].long())) > 0.7


def test_one_label_in_training_and_no_validation_row():
    never = dataclasses.replace(TRAIN, labels=torch.zeros_like(TRAIN.labels)).rows(
        torch.arange(300)
    )
    trained = fit_lightgbm(never, VALID.rows(torch.arange(0)), VECTORS)
    assert trained.trees() == [0] * 4
    assert not trained.score(TEST, VECTORS).any()
    assert trained.score(TEST.rows(torch.arange(0)), VECTORS).shape == (0, 4)
    with pytest.raises(ValueError, match="no block to learn from"):
        fit_lightgbm(TRAIN.rows(torch.arange(0)), VALID, VECTORS)
