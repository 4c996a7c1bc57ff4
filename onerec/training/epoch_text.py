"""The numbers of an epoch as a line of the log."""

from collections.abc import Mapping
from typing import Any


def epoch_as_text(entry: Mapping[str, Any]) -> str:
    """An entry of a training's history as a line of the log.

    Examples:
        >>> epoch_as_text({"epoch": 2, "train_loss": 2.87160001, "best": True})
        'epoch 2, train_loss 2.8716, best True'
    """
    return ", ".join(
        f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in entry.items()
    )
