"""Training the reward model: it moves, repeats itself, learns, and keeps users apart."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from onerec.config import RewardConfig
from onerec.reward.model import load_reward
from onerec.reward.scoring import score_sessions
from onerec.reward.training import blocks_of, fit_reward
from onerec.training import TrainingDivergedError
from tests.core.reward.planted import (
    PlantedLog,
    planted_blocks,
    topics_and_vectors,
    watched_blocks,
)

TRAJECTORY = Path(__file__).with_name("trajectory.json")
SMALL = RewardConfig(
    d_model=16, evaluator_d_model=8, num_heads=2, batch_size=64, max_epochs=6, learning_rate=4e-3,
    dropout=0.1, embedding_dropout=0.3,
)  # fmt: skip
TOPICS, VECTORS = topics_and_vectors()


def test_first_thirty_steps(tmp_path: Path):
    config = dataclasses.replace(SMALL, max_epochs=3, batch_size=32)
    train = planted_blocks(TOPICS, 640, 1)
    report = fit_reward(config, train, planted_blocks(TOPICS, 100, 2), VECTORS, tmp_path)
    assert len(report.steps) >= 30
    assert report.steps[:30] == pytest.approx(json.loads(TRAJECTORY.read_text()), abs=1e-4)


def test_every_parameter_moves_and_the_rest_repeats(tmp_path: Path):
    from onerec.reward.model import RewardModel, RewardShape

    train, valid = planted_blocks(TOPICS, 800, 1), planted_blocks(TOPICS, 200, 2)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        fit_reward(SMALL, train, valid, VECTORS, tmp_path / name)
    for file in ("model.safetensors", "config.json", "metrics.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    trained = load_reward(tmp_path / "a")
    with torch.random.fork_rng():
        torch.manual_seed(SMALL.seed)
        start = RewardModel(SMALL, RewardShape(**dataclasses.asdict(trained.shape)))
    for (name, before), after in zip(start.named_parameters(), trained.parameters(), strict=True):
        assert not torch.equal(before, after), name


@pytest.mark.parametrize("part", ["reward", "evaluator"])
def test_learns_the_planted_match(part: str, tmp_path: Path):
    report = fit_reward(
        SMALL,
        planted_blocks(TOPICS, 4000, 1),
        planted_blocks(TOPICS, 1000, 2),
        VECTORS,
        tmp_path,
        part=part,  # pyright: ignore
    )
    towers = report.metrics["towers"]
    assert towers["vtr"]["auc"] > 0.8
    assert towers["swt"]["auc"] > 0.8
    assert towers["vtr"]["log_loss"] < towers["vtr"]["base_log_loss"]
    assert abs(towers["wtr"]["auc"] - 0.5) < 0.15  # it is noise
    assert load_reward(tmp_path).config.d_model == (16 if part == "reward" else 8)


def test_the_two_models_share_no_user():
    blocks = planted_blocks(TOPICS, 3000, 1)
    reward, evaluator = (blocks_of(blocks, SMALL, part) for part in ("reward", "evaluator"))
    assert len(reward) + len(evaluator) == len(blocks)
    assert not set(reward.user.tolist()) & set(evaluator.user.tolist())
    assert len(reward) > 1000
    assert len(evaluator) > 1000


def test_without_a_validation_row_it_trains_and_says_so(tmp_path: Path):
    config = dataclasses.replace(SMALL, max_epochs=2)
    report = fit_reward(
        config, planted_blocks(TOPICS, 200, 1), planted_blocks(TOPICS, 0, 2), VECTORS, tmp_path
    )
    assert report.best_epoch == 2
    assert report.metrics["towers"]["swt"]["auc"] is None
    assert report.epochs[0]["valid_loss"] is None


def test_no_training_row_and_broken_vectors_are_clear_errors(tmp_path: Path):
    with pytest.raises(ValueError, match="0 of 0 training blocks"):
        fit_reward(
            SMALL, planted_blocks(TOPICS, 0, 1), planted_blocks(TOPICS, 9, 2), VECTORS, tmp_path
        )
    with pytest.raises(TrainingDivergedError, match="training loss is nan at epoch 1, step 1 "):
        fit_reward(
            SMALL,
            planted_blocks(TOPICS, 99, 1),
            planted_blocks(TOPICS, 9, 2),
            VECTORS * torch.nan,
            tmp_path,
        )


def test_facts_and_expectations(tmp_path: Path):
    """What is watched depends on an item's fact and duration alone: both are used, by candidates
    too, and the expected seconds are calibrated."""
    train, valid = watched_blocks(TOPICS, 4000, 1), watched_blocks(TOPICS, 1000, 2)
    log = train.log
    assert isinstance(log, PlantedLog)
    good, duration = log.good, log.attributes.duration_seconds
    config = dataclasses.replace(SMALL, user_facts_dropout=0.2, quantiles=8)
    report = fit_reward(config, train, valid, VECTORS, tmp_path)
    seconds = report.metrics["expectations"]["watch_seconds"]
    assert seconds["correlation"] > 0.9
    assert seconds["pcoc"] == pytest.approx(1, abs=0.05)
    trained = load_reward(tmp_path)
    assert trained.shape.quantiles == 8
    candidates = torch.arange(len(TOPICS))[None, :, None]
    scored = score_sessions(trained, VECTORS, torch.full((1, 4), -1), candidates)[0]
    true = torch.from_numpy(np.stack([good * duration, good], -1))
    for column, expected in zip(scored[:, -2:].T, true.T, strict=True):
        assert torch.corrcoef(torch.stack([column.double(), expected]))[0, 1] > 0.9
