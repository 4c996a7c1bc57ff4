"""Settings of the training loop that all models share: budget, optimiser, schedule, selection."""

from dataclasses import dataclass
from typing import Literal

from onerec.config import require

Schedule = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Settings of `fit`.

    Attributes:
        max_epochs: Passes over the training rows, at most.
        learning_rate: Peak rate of AdamW.
        weight_decay: Of AdamW for matrices and embeddings; gains and biases do not decay.
        warmup_steps: Optimiser steps of a linear warm-up.
        schedule: After the warm-up: `cosine` down to `final_rate_share` over all epochs, `linear`
            down to zero, or `constant`.
        final_rate_share: Final learning rate of the cosine, as a share of the peak.
        gradient_clip: Largest gradient norm; 0 does not clip.
        accumulation: Gradient accumulation steps per batch, which reduce the memory of a step.
        monitor: The validation metric that chooses the epoch whose weights are kept; None keeps
            those of the last epoch.
        mode: Whether less or more of the monitored metric is better.
        patience: Epochs without a better monitored metric before stopping; 0 never stops early.
        measure_start: Also measure the weights that training starts from, as epoch 0.
        epoch_seed: Seeds the random state of every process anew at the start of an epoch, from this
            seed, the epoch and the process; None lets the caller's random state go on.
    """

    max_epochs: int
    learning_rate: float
    weight_decay: float = 0.01
    warmup_steps: int = 0
    schedule: Schedule = "constant"
    final_rate_share: float = 0.0
    gradient_clip: float = 1.0
    accumulation: int = 1
    monitor: str | None = None
    mode: Literal["min", "max"] = "min"
    patience: int = 0
    measure_start: bool = False
    epoch_seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_epochs", "accumulation"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        for name in ("weight_decay", "warmup_steps", "gradient_clip", "patience"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "use 0 or more")
        require(
            self.learning_rate > 0, "learning_rate", self.learning_rate, "use a positive number"
        )
