"""The evaluator must be of other users than the reward model."""

from pathlib import Path

import pytest

from onerec.artifacts import write_json
from onerec.reward.user_split import check_evaluator


def _trained(directory: Path, part: str, **config) -> Path:
    directory.mkdir()
    write_json(directory / "metrics.json", {"part": part})
    write_json(
        directory / "config.json", {"reward": {"seed": 1, "evaluator_user_share": 0.5} | config}
    )
    return directory


def test_an_evaluator_of_other_users_is_accepted(tmp_path: Path):
    check_evaluator(_trained(tmp_path / "e", "evaluator"), _trained(tmp_path / "r", "reward"))


def test_an_evaluator_of_the_rewards_users_is_refused(tmp_path: Path):
    reward = _trained(tmp_path / "r", "reward")
    with pytest.raises(ValueError, match="was trained as the 'reward' part"):
        check_evaluator(reward, reward)
    with pytest.raises(ValueError, match="divide the users differently"):
        check_evaluator(_trained(tmp_path / "e", "evaluator", seed=2), reward)
