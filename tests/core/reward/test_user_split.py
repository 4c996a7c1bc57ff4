"""Who belongs to the evaluator."""

from pathlib import Path

import numpy as np
import pytest

from onerec.artifacts import write_json
from onerec.reward.user_split import check_evaluator, split_users

IDS = np.array([f"user-{i}" for i in range(2000)], dtype=object)


def test_share_and_seed():
    chosen = split_users(IDS, 0.3, 1)
    assert 0.26 < chosen.mean() < 0.34
    assert (chosen != split_users(IDS, 0.3, 2)).any()
    assert not split_users(IDS, 0.0, 1).any()
    assert split_users(IDS, 1.0, 1).all()
    assert len(split_users(np.array([], dtype=object), 0.5, 1)) == 0


def test_a_user_keeps_its_side_whoever_else_is_there():
    chosen = dict(zip(IDS, split_users(IDS, 0.5, 1), strict=True))
    some = np.random.default_rng(0).permutation(IDS)[:300]
    again = dict(zip(some, split_users(some, 0.5, 1), strict=True))
    assert all(chosen[user] == side for user, side in again.items())


def test_the_same_on_every_machine_and_version():
    ids = np.array(["a", "b", "c", "d", "e", "f", "gruene-wiese", "\u00fc"], dtype=object)
    assert split_users(ids, 0.5, 1).tolist() == EXPECTED


def test_numpy_string_arrays_split_alike():
    assert (split_users(IDS.astype(str), 0.5, 1) == split_users(IDS, 0.5, 1)).all()


def test_a_wrong_share_is_an_error():
    with pytest.raises(ValueError, match=r"share=1\.5"):
        split_users(IDS, 1.5, 0)


EXPECTED = [True, True, True, True, False, False, False, True]


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
