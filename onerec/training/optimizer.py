"""AdamW and the learning-rate schedule, the same for every model."""

import math

import torch
from torch import nn

from onerec.training.fit_settings import FitSettings


def adamw(
    model: nn.Module, learning_rate: float, weight_decay: float, *, fused: bool = True
) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only, not on gains and biases.

    Args:
        model: Its parameters that need a gradient.
        learning_rate: Peak.
        weight_decay: Of matrices.
        fused: The fused implementation, which is the fastest.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=learning_rate,
        fused=fused,
    )


def rate_share(step: int, *, total_steps: int, settings: FitSettings) -> float:
    """Share of the peak learning rate at an optimiser step, counted from 0."""
    warmup = settings.warmup_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "linear":
        return min(1.0, max(0, total_steps - step) / max(1, total_steps - warmup - 1))
    done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    floor = settings.final_rate_share
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
