"""The reward model's tables: planted signals are found, differences are paired, and no label of the
test day reaches a scorer."""

import dataclasses

import numpy as np
import pytest
import torch

from experiments.reporting.result_tables import Row
from experiments.reward_quality.quality import DIFFERENCES, findings, measure
from experiments.reward_quality.scorers import EvaluationBlocks, SystemScores, fit_systems
from onerec.config import RewardConfig
from onerec.reward.training import blocks_of
from tests.core.reward.planted import planted_blocks, topics_and_vectors

TOPICS, VECTORS = topics_and_vectors()
CONFIG = RewardConfig(
    d_model=16, num_heads=2, batch_size=48, max_epochs=4, learning_rate=6e-3, dropout=0.1,
    embedding_dropout=0.3, history_similarity=False,
)  # fmt: skip


def planted(rows: int) -> EvaluationBlocks:
    train, valid, test = (planted_blocks(TOPICS, n, i) for i, n in enumerate((rows, 400, 800)))
    single = dataclasses.replace(test, items=test.items[:, :1])
    return EvaluationBlocks(
        train=blocks_of(train, CONFIG, "reward"),
        stop=blocks_of(valid, CONFIG, "reward"),
        valid=valid,
        test=test,
        items=single,
        vectors=VECTORS,
    )


@pytest.fixture(scope="module")
def blocks() -> EvaluationBlocks:
    return planted(2400)


@pytest.fixture(scope="module")
def systems(blocks: EvaluationBlocks) -> dict[str, SystemScores]:
    return fit_systems(blocks, CONFIG, seeds=2)


@pytest.fixture(scope="module")
def rows(blocks: EvaluationBlocks, systems: dict[str, SystemScores]) -> dict[tuple[str, str], Row]:
    return {(row.system, row.metric): row for row in measure(systems, blocks, CONFIG)}


def test_planted_match_is_found_by_those_who_see_the_history(rows):
    for system in ("boosting", "reward_model", "reward_ensemble"):
        row = rows[system, "auc_vtr"]
        assert row.low < row.value < row.high
        assert row.low > 0.7, system
        assert rows[system, "log_loss_vtr"].high < rows["base_rate", "log_loss_vtr"].low, system
        assert rows[system, "order_user_day"].low > 0.6, system
    blind = rows["no_history", "auc_vtr_minus_reward_model"]
    assert blind.high < -0.1
    assert blind.seeds == 2


def test_the_base_rate_orders_nothing(rows):
    for metric in ("auc_swt", "auc_vtr", "auc_ltr", "order_user_day", "order_session"):
        row = rows["base_rate", metric]
        assert (row.value, row.low, row.high) == (0.5, 0.5, 0.5)


def test_differences_are_between_the_means_and_narrower_than_the_parts(rows):
    for system, metric in (("reward_model", "auc_vtr"), ("reward_ensemble", "log_loss_vtr")):
        difference = rows[system, f"{metric}_minus_boosting"]
        mine, theirs = rows[system, metric], rows["boosting", metric]
        assert difference.value == pytest.approx(mine.value - theirs.value)
        assert difference.low < difference.value < difference.high
    apart = (mine.high - mine.low) + (theirs.high - theirs.low)
    assert difference.high - difference.low < 0.75 * apart  # of one seed: users alone vary
    found = {
        (name, metric.split("_minus_")[1]) for name, metric in rows if metric.startswith("auc_vtr_")
    }
    assert found == set(DIFFERENCES) - {("no_facts", "reward_model")}  # these blocks have none


def test_log_loss_and_order_by_hand(blocks: EvaluationBlocks):
    """Two users; one says .8 and .4 for a like and a miss, the other is never right."""
    four = blocks.test.rows(torch.arange(4))
    labels = torch.tensor([[1.0], [0.0], [1.0], [0.0]]).repeat(1, 4)
    user, session = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 2])
    small = dataclasses.replace(
        four, labels=labels, user=user, session=session, user_ids=np.array(["a", "b"], object)
    )
    p = torch.tensor([0.8, 0.4, 0.1, 0.9]).double()[None, :, None].repeat(1, 1, 4)
    only = {"mine": SystemScores(p, p, p, 0.0)}
    by_hand = dataclasses.replace(blocks, valid=small, test=small, items=small)
    rows = {row.metric: row.value for row in measure(only, by_hand, CONFIG)}
    expected = -np.log([0.8, 0.6, 0.1, 0.1]).mean()
    assert rows["log_loss_vtr"] == pytest.approx(expected)
    assert rows["auc_vtr"] == pytest.approx(1 / 4)  # .8 is above .4, and that is all
    # every block is a bin of its own: (.2 + .4 + .9 + .9) / 4
    assert rows["ece_vtr"] == pytest.approx((0.2 + 0.4 + 0.9 + 0.9) / 4)
    assert rows["order_user_day"] == pytest.approx((1 + 0) / 2)
    assert rows["order_session"] == pytest.approx(1)  # user b's sessions have one block each


def test_labels_of_the_test_day_reach_no_scorer():
    blocks = planted(600)
    flipped = dataclasses.replace(
        blocks,
        test=dataclasses.replace(blocks.test, labels=1 - blocks.test.labels),
        items=dataclasses.replace(blocks.items, labels=1 - blocks.items.labels),
        valid=dataclasses.replace(blocks.valid, labels=1 - blocks.valid.labels),
    )
    quick = dataclasses.replace(CONFIG, max_epochs=1)
    before, after = (fit_systems(d, quick, seeds=1) for d in (blocks, flipped))
    neural = {"reward_model", "no_similarity", "history_mean", "no_history"}
    assert set(before) == {"base_rate", "boosting", *neural}
    for name, scored in before.items():
        assert torch.equal(scored.test, after[name].test), name
        assert torch.equal(scored.items, after[name].items), name
        assert (name == "base_rate") == (float(scored.test.std(1).max()) < 1e-12)


def test_findings_say_the_difference_with_its_interval(rows):
    said = findings(list(rows.values()), {"auc_vtr": "AUC vtr"})
    row = rows["reward_model", "auc_vtr_minus_boosting"]
    assert said[0] == (
        f"reward_model minus boosting: AUC vtr {row.value:+.4f} [{row.low:+.4f}, {row.high:+.4f}]."
    )
    assert len(said) == len(DIFFERENCES) - 2  # not base rates, nor without facts
