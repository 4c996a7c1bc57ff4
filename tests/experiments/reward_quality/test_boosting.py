"""The scorers a reward model has to beat: facts by hand, planted signals, and no look ahead."""

import dataclasses

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc

from experiments.reward_quality.boosting import (
    SMOOTHING,
    block_facts,
    facts_of,
    fit_base_rates,
    fit_boosting,
    item_record,
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
        hour=np.array([7.5, 8.0, 9.0]),
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
    blocks = small()
    record = item_record(blocks, 4)
    columns = block_facts(blocks, record, vectors).T
    facts = dict(zip(facts_of(blocks.signals), columns, strict=True))
    assert facts["items"].tolist() == [2, 1, 2]
    assert facts["history_items"].tolist() == [2, 0, 0]
    assert facts["place"].tolist() == [0, 1, 0]
    assert facts["hour"].tolist() == [7.5, 8.0, 9.0]
    # Days count without the block's own: item 0 is once on the second, twice on the first day
    assert facts["max_shown"] == pytest.approx(np.log([2, 2, 3]))
    assert facts["min_shown"] == pytest.approx(np.log([1, 2, 1]))
    assert facts["mean_shown"] == pytest.approx([np.log(2) / 2, np.log(2), np.log(3) / 2])
    # swt: 2 of 3 blocks overall; of item 0 elsewhere 1 of 1, 1 of 1 and 1 of 2
    overall = 2 / 3
    rate = [(won + SMOOTHING * overall) / (n + SMOOTHING) for won, n in ((1, 1), (1, 1), (1, 2))]
    assert facts["max_swt"] == pytest.approx([rate[0], rate[1], max(rate[2], overall)])
    assert facts["mean_swt"] == pytest.approx(
        [(rate[0] + overall) / 2, rate[1], (rate[2] + overall) / 2]
    )
    # cosines of items 0, 1 with history 3, 1: .6, 0 and .8, 1
    assert facts["mean_similarity"][0] == pytest.approx((0.6 + 0 + 0.8 + 1) / 4)
    assert facts["mean_best_similarity"][0] == pytest.approx((0.6 + 1) / 2)
    assert facts["max_similarity"][0] == pytest.approx(1)
    assert np.isnan(facts["max_similarity"][1:]).all()


def test_a_block_does_not_see_its_own_day():
    blocks = small()
    turned = dataclasses.replace(blocks, labels=1 - blocks.labels)
    mixed = dataclasses.replace(blocks, labels=torch.cat([turned.labels[:2], blocks.labels[2:]]))
    before, after = (item_record(b, 4) for b in (blocks, mixed))
    for record in (before, after):  # the overall rates are of all days, as they are for the model
        record.overall[:] = 0.5
    first_day = small().rows(torch.tensor([0, 1]))
    vectors = torch.eye(4)
    assert np.array_equal(
        block_facts(first_day, before, vectors), block_facts(first_day, after, vectors), True
    )
    other_day = small().rows(torch.tensor([2]))
    assert not np.array_equal(
        block_facts(other_day, before, vectors), block_facts(other_day, after, vectors), True
    )


def test_boosting_finds_planted_signals_and_no_others():
    boosting = fit_boosting(TRAIN, VALID, VECTORS)
    probabilities = boosting.score(TEST, VECTORS)
    base = fit_base_rates(TRAIN).score(TEST, VECTORS)
    aucs = [float(binary_auroc(probabilities[:, i], TEST.labels[:, i].long())) for i in range(4)]
    assert min(aucs[0], aucs[1], aucs[3]) > 0.8
    assert abs(aucs[2] - 0.5) < 0.12  # follows are noise
    assert boosting.trees()[2] < min(boosting.trees()[i] for i in (0, 1, 3))
    for i in (0, 1, 3):
        mine, theirs = (log_loss(p[:, i], TEST.labels[:, i]) for p in (probabilities, base))
        assert mine < theirs - 0.05


def test_an_items_record_is_found_without_any_vector():
    """Items of odd number are liked by everybody; vectors and histories say nothing."""
    rng = np.random.default_rng(0)

    def quality(blocks: RewardBlocks) -> RewardBlocks:
        odd = (blocks.items % 2).float().mean(1).numpy()
        labels = torch.from_numpy((rng.random((len(blocks), 1)) < odd[:, None]).repeat(4, 1))
        return dataclasses.replace(blocks, labels=labels.float())

    vectors = torch.ones_like(VECTORS)
    train, valid, test = (quality(b) for b in (TRAIN, VALID, TEST))
    probabilities = fit_boosting(train, valid, vectors).score(test, vectors)
    assert float(binary_auroc(probabilities[:, 0], test.labels[:, 0].long())) > 0.7


def test_one_label_in_training_and_no_validation_row():
    never = dataclasses.replace(TRAIN, labels=torch.zeros_like(TRAIN.labels)).rows(
        torch.arange(300)
    )
    boosting = fit_boosting(never, VALID.rows(torch.arange(0)), VECTORS)
    assert boosting.trees() == [0] * 4
    assert not boosting.score(TEST, VECTORS).any()
    assert boosting.score(TEST.rows(torch.arange(0)), VECTORS).shape == (0, 4)
    with pytest.raises(ValueError, match="no block to learn from"):
        fit_boosting(TRAIN.rows(torch.arange(0)), VALID, VECTORS)
