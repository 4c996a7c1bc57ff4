"""Several reward models as one: means, caution, and where their files lie."""

import dataclasses
from pathlib import Path

import pytest
import torch

from onerec.config import RewardConfig
from onerec.reward.ensemble import RewardEnsemble, load_ensemble
from onerec.reward.model import RewardModel, RewardShape, load_reward
from onerec.reward.scoring import scalar_reward, score_sessions
from onerec.reward.training import fit_reward
from tests.core.reward.planted import HISTORY, NUM_ITEMS, planted_blocks, topics_and_vectors

SMALL = RewardConfig(
    d_model=16, evaluator_d_model=8, num_heads=2, batch_size=64, max_epochs=1, ensemble_size=3
)
TOPICS, VECTORS = topics_and_vectors()


def reward_models(num: int) -> list[RewardModel]:
    shape = RewardShape(vector_dim=VECTORS.shape[1], num_items=NUM_ITEMS, history_length=HISTORY)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [RewardModel(SMALL, shape).eval() for _ in range(num)]


def test_mean_and_lower_bound_by_hand():
    """Rewards r1, r2 of two models: mean, and mean - 2 * |r1 - r2| / 2."""
    models = reward_models(2)
    blocks = planted_blocks(TOPICS, 6, 1)
    sessions = blocks.items.long().reshape(3, 2, -1)
    history = blocks.history[:3].long()
    config = dataclasses.replace(SMALL, ensemble_caution=2.0, weight_ltr=0.0)
    scored = RewardEnsemble(models, VECTORS, config).score(history, sessions)
    first, second = (
        scalar_reward(score_sessions(m, VECTORS, history, sessions).double(), config)
        for m in models
    )
    torch.testing.assert_close(scored.reward, (first + second) / 2)
    torch.testing.assert_close(scored.lower_bound, (first + second) / 2 - (first - second).abs())
    assert scored.towers.shape == (3, 2, 4)


def test_the_lower_bound_of_one_model_is_its_reward():
    (model,) = reward_models(1)
    blocks = planted_blocks(TOPICS, 4, 1)
    sessions, history = blocks.items.long()[:, None], blocks.history.long()
    scored = RewardEnsemble([model], VECTORS, SMALL).score(history, sessions)
    expected = scalar_reward(score_sessions(model, VECTORS, history, sessions).double(), SMALL)
    assert torch.equal(scored.reward, expected)
    assert torch.equal(scored.lower_bound, expected)


def test_members_are_of_other_seeds_and_the_same_users(tmp_path: Path):
    train, valid = planted_blocks(TOPICS, 300, 1), planted_blocks(TOPICS, 60, 2)
    (tmp_path / "all").mkdir()
    (tmp_path / "one").mkdir()
    fit_reward(SMALL, train, valid, VECTORS, tmp_path / "all")
    alone = dataclasses.replace(SMALL, ensemble_size=1)
    fit_reward(alone, train, valid, VECTORS, tmp_path / "one")
    members = load_ensemble(tmp_path / "all")
    assert len(members) == 3
    assert len(load_ensemble(tmp_path / "one")) == 1
    first, only = members[0].state_dict(), load_reward(tmp_path / "one").state_dict()
    assert all(torch.equal(first[name], only[name]) for name in first)
    for other in members[1:]:
        assert not torch.equal(other.project.weight, members[0].project.weight)


def test_the_evaluator_stays_one(tmp_path: Path):
    train, valid = planted_blocks(TOPICS, 300, 1), planted_blocks(TOPICS, 60, 2)
    fit_reward(SMALL, train, valid, VECTORS, tmp_path, part="evaluator")
    assert len(load_ensemble(tmp_path)) == 1


@pytest.mark.parametrize("changes", [{"ensemble_size": 0}, {"ensemble_caution": -1.0}])
def test_clear_errors(changes: dict):
    with pytest.raises(ValueError, match=next(iter(changes))):
        dataclasses.replace(SMALL, **changes)
