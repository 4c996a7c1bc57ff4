"""The reward model and the evaluator are trained on different users."""

from pathlib import Path

from onerec.artifacts import read_json


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
