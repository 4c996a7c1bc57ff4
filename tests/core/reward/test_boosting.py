"""LightGBM beside the network: how both are mixed, when it counts, and where its trees lie."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from onerec.config import RewardConfig
from onerec.config.feedback import VIDEO_SIGNALS, WATCH_SECONDS
from onerec.reward import boosting as module
from onerec.reward.boosting import Boosting, best_share, fit_boosting, mixed, predicted
from onerec.reward.ensemble import load_ensemble
from onerec.reward.model import BOOSTING, RewardModel, load_reward, save_reward
from onerec.reward.scoring import network_and_facts, score_blocks, score_sessions
from onerec.reward.training import fit_reward
from onerec.session_dataset.reward_blocks import RewardBlocks
from tests.core.reward.planted import (
    topics_and_vectors,
    watched_blocks,
)

TOPICS, VECTORS = topics_and_vectors()
VTR = VIDEO_SIGNALS[1]
SMALL = RewardConfig(
    d_model=16, evaluator_d_model=8, num_heads=2, batch_size=64, max_epochs=2, learning_rate=4e-3,
    ensemble_size=2,
)  # fmt: skip


def fit(directory: Path, **changes) -> dict:
    config = dataclasses.replace(SMALL, **changes)
    train, valid = watched_blocks(TOPICS, 1600, 1), watched_blocks(TOPICS, 600, 2)
    return fit_reward(config, train, valid, VECTORS, directory).metrics


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    directory = tmp_path_factory.mktemp("fitted")
    return directory, fit(directory)


def test_probabilities_mix_in_log_odds_and_expectations_as_they_are():
    network, boosted = torch.tensor([0.2, 0.9]), torch.tensor([0.5, 0.9])
    odds = (1 / 4) ** 0.75 * 1**0.25
    expected = torch.tensor([odds / (1 + odds), 0.9])
    torch.testing.assert_close(mixed(network, boosted, 0.25, VTR), expected)
    assert torch.isfinite(mixed(torch.tensor([0.0, 1.0]), boosted, 0.5, VTR)).all()
    ten, tens = torch.tensor([10.0, 10.0]), torch.tensor([20.0, -5.0])
    seconds = mixed(ten, tens, 0.3, WATCH_SECONDS)
    torch.testing.assert_close(seconds, torch.tensor([13.0, 7.0]))  # less than none is none


def share_of(network: torch.Tensor, boosted: torch.Tensor, labels: torch.Tensor, signal) -> float:
    """Of one view of the blocks."""
    return best_share(network[None], boosted[None], labels[None], signal)


def test_the_share_is_the_one_of_the_least_loss():
    labels = torch.tensor([0.0, 1.0, 0.0, 1.0])
    right, wrong = labels * 0.8 + 0.1, 0.9 - labels * 0.8
    assert share_of(right, wrong, labels, VTR) == 0
    assert share_of(wrong, right, labels, VTR) == 1
    assert share_of(right, right, labels, VTR) == 0  # of equals the smallest
    seconds = torch.tensor([5.0, 10.0, 15.0, 30.0])
    # errors of -3 and +7 cancel at .3: .7 * 3 = .3 * 7
    assert share_of(seconds - 3, seconds + 7, seconds, WATCH_SECONDS) == 0.3


def test_a_gain_within_its_standard_error_counts_as_chance():
    """LightGBM knows the one positive of 100 blocks and errs a little on all others."""
    labels = torch.zeros(100).double()
    labels[0] = 1
    network = torch.full((100,), 0.01).double()
    once = torch.where(labels > 0, 0.02, 0.0105)
    assert share_of(network, once, labels, VTR) == 0
    assert share_of(network, (network + labels).clamp(max=0.5), labels, VTR) == 0
    often = labels.roll(1) + labels + labels.roll(2)
    assert share_of(network, (network + often).clamp(max=0.5), often, VTR) == 1


def test_scores_are_the_mean_of_network_and_trees(fitted: tuple[Path, dict]):
    """Every tower by hand, for each member of an ensemble."""
    blocks = watched_blocks(TOPICS, 200, 3)
    members = load_ensemble(fitted[0])
    assert len({model.boosting.text() for model in members if model.boosting}) == 2
    for model in members:
        trees = model.boosting
        assert trees is not None
        network, facts = network_and_facts(model, VECTORS, blocks)
        columns = []
        for i, (share, booster) in enumerate(zip(trees.shares, trees.boosters, strict=True)):
            assert (booster is None) == (share == 0)
            column = network[:, i]
            if booster is not None:
                boosted = torch.from_numpy(booster.predict(facts.numpy())).float()
                column = mixed(column, boosted, share, model.signals[i])
            columns.append(column)
        scores = score_blocks(model, VECTORS, blocks)
        torch.testing.assert_close(scores, torch.stack(columns, -1))
        assert not torch.equal(scores, network)
        model.boosting = None
        assert torch.equal(score_blocks(model, VECTORS, blocks), network)


def test_trees_gain_where_they_count_and_the_metrics_say_so(fitted: tuple[Path, dict]):
    directory, metrics = fitted
    trees = load_reward(directory).boosting
    assert trees is not None
    found = metrics["boosting"]
    assert found["shares"] == trees.shares_by_name()
    assert found["trees"] == trees.trees()
    alone = found["network_alone"]
    assert found["shares"]["watch_seconds"] > 0
    assert (
        metrics["expectations"]["watch_seconds"]["correlation"]
        > alone["watch_seconds"]["correlation"]
    )
    for tower in ("swt", "vtr"):
        assert metrics["towers"][tower]["log_loss"] <= alone[tower]["log_loss"] + 1e-3


def test_sessions_are_scored_without_their_users_facts(fitted: tuple[Path, dict]):
    """Generated sessions and logged blocks of unknown users take one way; a known user's differ."""
    model, blocks = load_reward(fitted[0]), watched_blocks(TOPICS, 100, 4)
    assert model.boosting is not None
    scores = score_sessions(model, VECTORS, blocks.history, blocks.items)
    unknown, known = (
        network_and_facts(model, VECTORS, blocks, users_known=known) for known in (False, True)
    )
    torch.testing.assert_close(scores, model.boosting.mixed(*unknown))
    similarities, item_facts = 2, 1
    is_known = similarities + item_facts
    assert not unknown[1][:, is_known].any()
    assert known[1][:, is_known].all()
    # the last fact is the length of the history
    assert torch.equal(known[1][:, -1], (blocks.history >= 0).sum(1).float())


def test_trees_learn_from_blocks_with_and_without_user_facts(
    fitted: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch
):
    model, blocks, seen = load_reward(fitted[0]), watched_blocks(TOPICS, 300, 5), []
    monkeypatch.setattr(
        module, "fit_booster", lambda signal, train, valid, seed: seen.append((train, valid))
    )
    monkeypatch.setattr(module, "predicted", lambda booster, facts: np.full(len(facts), 0.5))
    fit_boosting(model, VECTORS, blocks, blocks.rows(torch.arange(50)), seed=1)
    for (facts, labels), (later, _) in seen:
        assert (len(facts), len(labels), len(later)) == (600, 600, 100)
        assert facts[:300, 3].all()
        assert not facts[300:, 3].any()


def test_a_tower_that_trees_would_hurt_gets_none(
    fitted: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch
):
    """The network knows swt's labels and nothing of vtr's."""
    model, blocks = load_reward(fitted[0]), watched_blocks(TOPICS, 1500, 6)
    given = module.network_and_facts

    def knowing(model: RewardModel, vectors: torch.Tensor, blocks: RewardBlocks, **options):
        network, facts = given(model, vectors, blocks, **options)
        network[:, 0], network[:, 1] = blocks.labels[:, 0] * 0.98 + 0.01, 0.5
        return network, facts

    monkeypatch.setattr(module, "network_and_facts", knowing)
    trees = fit_boosting(model, VECTORS, blocks, watched_blocks(TOPICS, 500, 7), seed=1)
    assert trees is not None
    assert trees.shares[0] == 0
    assert trees.boosters[0] is None
    assert trees.shares[1] > 0.5
    facts = torch.zeros(3, given(model, VECTORS, blocks)[1].shape[1])
    network = torch.full((3, 6), 0.3)
    assert torch.equal(trees.mixed(network, facts)[:, 0], network[:, 0])
    assert not torch.equal(trees.mixed(network, facts)[:, 1], network[:, 1])


@pytest.mark.parametrize(("positives", "counts"), [(0, False), (9, False), (40, True)])
def test_a_rare_signal_has_no_share(
    positives: int, counts: bool, fitted: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch
):
    """The network says .3 for wtr everywhere, too much; whatever says less has a smaller loss."""
    model, train = load_reward(fitted[0]), watched_blocks(TOPICS, 1500, 6)
    valid = watched_blocks(TOPICS, 400, 7)
    labels = valid.labels.clone()
    labels[:, 2] = torch.arange(400) < positives
    given = module.network_and_facts

    def too_high(model: RewardModel, vectors: torch.Tensor, blocks: RewardBlocks, **options):
        network, facts = given(model, vectors, blocks, **options)
        network[:, 2] = 0.3
        return network, facts

    monkeypatch.setattr(module, "network_and_facts", too_high)
    valid = dataclasses.replace(valid, labels=labels)
    trees = fit_boosting(model, VECTORS, train, valid, seed=1)
    assert trees is not None
    assert (trees.shares[2] > 0) == counts
    flipped = dataclasses.replace(valid, labels=1 - labels)
    if not counts:  # nor one that nearly every block has
        trees = fit_boosting(model, VECTORS, train, flipped, seed=1)
        assert trees is None or trees.shares[2] == 0


def test_what_is_loaded_predicts_the_same_and_the_files_repeat(
    fitted: tuple[Path, dict], tmp_path: Path
):
    directory, _ = fitted
    model, blocks = load_reward(directory), watched_blocks(TOPICS, 100, 8)
    save_reward(model, tmp_path)
    for name in (BOOSTING, "model.safetensors", "config.json"):
        assert (tmp_path / name).read_bytes() == (directory / name).read_bytes(), name
    expected = score_blocks(model, VECTORS, blocks)
    assert torch.equal(score_blocks(load_reward(tmp_path), VECTORS, blocks), expected)
    model.boosting = None
    save_reward(model, tmp_path)
    assert load_reward(tmp_path).boosting is None  # the trees of before are gone
    (tmp_path / "again").mkdir()
    fit(tmp_path / "again")
    for name in (BOOSTING, f"members/1/{BOOSTING}"):
        assert (tmp_path / "again" / name).read_bytes() == (directory / name).read_bytes(), name


def test_threads_change_no_prediction(fitted: tuple[Path, dict]):
    trees, facts = load_reward(fitted[0]).boosting, np.random.default_rng(0)
    assert trees is not None
    booster = next(b for b in trees.boosters if b is not None)
    table = facts.standard_normal((5000, booster.num_feature())).astype(np.float32)
    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(predicted(booster, table))
    torch.set_num_threads(before)
    assert np.array_equal(*found)


@pytest.mark.parametrize("changes", [{"boosting": False}, {"facts": False}])
def test_no_trees_where_they_are_off_or_have_no_facts(changes: dict, tmp_path: Path):
    metrics = fit(tmp_path, ensemble_size=1, max_epochs=1, **changes)
    assert metrics["boosting"] is None
    assert load_reward(tmp_path).boosting is None
    assert not (tmp_path / BOOSTING).exists()


def test_no_trees_without_a_validation_block_or_where_the_network_is_best(tmp_path: Path):
    train, config = watched_blocks(TOPICS, 300, 1), dataclasses.replace(SMALL, max_epochs=1)
    nobody = watched_blocks(TOPICS, 0, 2)
    fit_reward(config, train, nobody, VECTORS, tmp_path)
    assert load_reward(tmp_path).boosting is None


def test_empty_blocks_score_as_nothing(fitted: tuple[Path, dict]):
    model = load_reward(fitted[0])
    assert score_blocks(model, VECTORS, watched_blocks(TOPICS, 0, 1)).shape == (0, 6)
    no_sessions = torch.zeros(2, 0, 4, dtype=torch.long)
    history = torch.full((2, 8), -1)
    assert score_sessions(model, VECTORS, history, no_sessions).shape == (2, 0, 6)


def test_text_of_a_model_without_some_towers():
    signals = (VTR, WATCH_SECONDS)
    text = Boosting(signals, (0.0, 0.0), (None, None)).text()
    assert Boosting.parse(text, signals).shares == (0.0, 0.0)
