"""Who trains the reward model and who trains the evaluator."""

from pathlib import Path

import numpy as np
import pandas as pd

from onerec.artifacts import read_json


def split_users(user_ids: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose a share of users by a hash of their id, the same on every day and machine.

    Args:
        user_ids: (U,) strings.
        share: Expected share chosen, in [0, 1].
        seed: Another seed chooses other users.

    Returns:
        (U,) bool. The chosen and the others are disjoint sets of users; a user's side depends on
        the id alone, so it never changes while others come and go.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share!r}: use a share of the users in [0, 1]")
    ids = np.asarray(user_ids, dtype=object)
    hashes = pd.util.hash_array(ids, hash_key=f"{seed % 10**16:016d}", categorize=False)
    # The upper 53 bits make a uniform float64 in [0, 1) without rounding up to 1.
    return (hashes >> np.uint64(11)) * 2.0**-53 < share


def check_evaluator(evaluator: Path, reward_model: Path) -> None:
    """Raise `ValueError` unless the two were trained on users that cannot overlap.

    A model measured by the reward that trained it, or by one of the same users, looks too good.

    Args:
        evaluator: Directory of the evaluator model.
        reward_model: Directory of the one that trains.
    """
    parts, splits = [], []
    for directory in (evaluator, reward_model):
        config = read_json(directory / "config.json")["reward"]
        parts.append(read_json(directory / "metrics.json")["part"])
        splits.append((config["seed"], config["evaluator_user_share"]))
    if parts != ["evaluator", "reward"]:
        raise ValueError(
            f"evaluator {evaluator} was trained as the {parts[0]!r} part and reward model "
            f"{reward_model} as the {parts[1]!r} part: the evaluator must be of the evaluator's "
            f"users; "
            "hand in the artifact evaluator_model"
        )
    if splits[0] != splits[1]:
        raise ValueError(
            f"seed, evaluator_user_share={splits[0]} of the evaluator and {splits[1]} of the "
            "reward model divide the users differently, so that they share some: materialise both "
            "with the same settings"
        )
