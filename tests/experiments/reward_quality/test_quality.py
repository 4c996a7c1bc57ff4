"""The reward model's tables: planted signals are found, differences are paired, and no label of the
test day reaches a scorer."""

import dataclasses

import numpy as np
import pytest
import torch

from experiments.reward_quality.quality import (
    DIFFERENCES,
    differences_in_words,
    measure_systems,
)
from experiments.reward_quality.scorers import EvaluationBlocks, SystemScores, fit_systems
from onerec.config import RewardConfig
from onerec.evaluation.metric_table import MetricTable, TableColumn
from onerec.reward.training import blocks_of
from tests.core.reward.planted import planted_blocks, topics_and_vectors, watched_blocks

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
        test=test,
        items=single,
        vectors=VECTORS,
        vectors_before_validation=VECTORS,
    )


@pytest.fixture(scope="module")
def blocks() -> EvaluationBlocks:
    return planted(2400)


@pytest.fixture(scope="module")
def systems(blocks: EvaluationBlocks) -> dict[str, SystemScores]:
    return fit_systems(blocks, CONFIG, seeds=2)


@pytest.fixture(scope="module")
def metrics(blocks: EvaluationBlocks, systems: dict[str, SystemScores]) -> MetricTable:
    return measure_systems(systems, blocks, CONFIG)


def test_planted_match_is_found_by_those_who_see_the_history(metrics: MetricTable):
    def vtr(system: str, metric: str):
        return metrics.find(system, metric, slice="vtr")

    for system in ("lightgbm", "reward_model", "reward_ensemble"):
        auc = vtr(system, "auc")
        assert auc.low < auc.mean < auc.high
        assert auc.low > 0.7, system
        assert vtr(system, "log_loss").high < vtr("base_rate", "log_loss").low, system
        assert metrics.find(system, "order_user_day").low > 0.6, system
    assert metrics.cell("no_history", TableColumn("auc", "vtr", "reward_model")).high < -0.1


def test_the_base_rate_orders_nothing(metrics: MetricTable):
    towers = (TableColumn("auc", tower) for tower in ("swt", "vtr", "ltr"))
    for column in (*towers, TableColumn("order_user_day"), TableColumn("order_session")):
        assert metrics.cell("base_rate", column) == (0.5, 0.5, 0.5)


def test_differences_are_between_the_means_and_narrower_than_the_parts(metrics: MetricTable):
    for system, metric in (("reward_model", "auc"), ("reward_ensemble", "log_loss")):
        difference = metrics.cell(system, TableColumn(metric, "vtr", "lightgbm"))
        mine, theirs = (metrics.find(s, metric, slice="vtr") for s in (system, "lightgbm"))
        assert difference.mean == pytest.approx(mine.mean - theirs.mean)
        assert difference.low < difference.mean < difference.high
    apart = (mine.high - mine.low) + (theirs.high - theirs.low)
    assert difference.high - difference.low < 0.75 * apart  # of one seed: users alone vary
    found = {
        (row.system, row.reference)
        for row in metrics.rows
        if (row.metric, row.slice) == ("auc", "vtr") and row.reference
    }
    of_facts = {("no_facts", "network_alone"), ("reward_model", "network_alone")}
    assert found == set(DIFFERENCES) - of_facts  # these blocks have none


def test_log_loss_and_order_by_hand(blocks: EvaluationBlocks):
    """Two users; one says .8 and .4 for a like and a miss, the other is never right."""
    four = blocks.test.rows(torch.arange(4))
    labels = torch.tensor([[1.0], [0.0], [1.0], [0.0]]).repeat(1, 4)
    user, session = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 2])
    small = dataclasses.replace(
        four, labels=labels, user=user, session=session, user_ids=np.array(["a", "b"], object)
    )
    p = torch.tensor([0.8, 0.4, 0.1, 0.9]).double()[None, :, None].repeat(1, 1, 4)
    only = {"mine": SystemScores(p, p, 0.0)}
    by_hand = dataclasses.replace(blocks, test=small, items=small)
    rows = {row.column: row.value for row in measure_systems(only, by_hand, CONFIG).rows}
    expected = -np.log([0.8, 0.6, 0.1, 0.1]).mean()
    assert rows[TableColumn("log_loss", "vtr")] == pytest.approx(expected)
    assert rows[TableColumn("auc", "vtr")] == pytest.approx(1 / 4)  # only .8 is above .4
    # every block is a bin of its own: (.2 + .4 + .9 + .9) / 4
    assert rows[TableColumn("ece", "vtr")] == pytest.approx((0.2 + 0.4 + 0.9 + 0.9) / 4)
    assert rows[TableColumn("order_user_day")] == pytest.approx((1 + 0) / 2)
    assert rows[TableColumn("order_session")] == pytest.approx(1)  # user b's have one block each


def test_labels_of_the_test_day_reach_no_scorer():
    blocks = planted(600)
    flipped = dataclasses.replace(
        blocks,
        test=dataclasses.replace(blocks.test, labels=1 - blocks.test.labels),
        items=dataclasses.replace(blocks.items, labels=1 - blocks.items.labels),
    )
    quick = dataclasses.replace(CONFIG, max_epochs=1)
    before, after = (fit_systems(d, quick, seeds=1) for d in (blocks, flipped))
    neural = {"reward_model", "no_similarity", "history_mean", "no_history"}
    assert set(before) == {"base_rate", "lightgbm", *neural}
    for name, scored in before.items():
        assert torch.equal(scored.test, after[name].test), name
        assert torch.equal(scored.items, after[name].items), name
        assert (name == "base_rate") == (float(scored.test.std(1).max()) < 1e-12)


def test_with_facts_the_network_is_measured_beside_its_mean_with_lightgbm():
    train, valid, test = (watched_blocks(TOPICS, n, i) for i, n in enumerate((1600, 600, 300)))
    quick = dataclasses.replace(CONFIG, max_epochs=2)
    items = test.rows(torch.arange(50))
    blocks = EvaluationBlocks(train, valid, test, items, VECTORS, VECTORS)
    systems = fit_systems(blocks, quick, seeds=1)
    assert {"network_alone", "no_facts"} < set(systems)
    both, alone = systems["reward_model"].test[0, :, -1], systems["network_alone"].test[0, :, -1]
    shares = test.labels[:, -1].double()
    assert not torch.equal(both, alone)
    assert (both - shares).square().mean() < (alone - shares).square().mean()
    assert systems["network_alone"].items.shape == systems["reward_model"].items.shape


def test_findings_say_the_difference_with_its_interval(metrics: MetricTable):
    said = differences_in_words(metrics, {TableColumn("auc", "vtr"): "AUC vtr"})
    mean, low, high = metrics.cell("reward_model", TableColumn("auc", "vtr", "lightgbm"))
    assert said[0] == (
        f"reward_model minus lightgbm: AUC vtr {mean:+.4f} [{low:+.4f}, {high:+.4f}]."
    )
    assert len(said) == len(DIFFERENCES) - 3  # not base rates, nor the two that need facts
