"""Dropout for CPUs: two random bytes an element instead of a float.

`torch.nn.functional.dropout` draws a 32-bit number an element. Here a 64-bit word of torch's
generator decides about four elements, the decision is made in place in 16-bit integers, and scale
and residual addition are one pass. A training step of the preset small is 4 % faster with it
(quartiles 2 to 6 %; torch 2.13, one core, 20 interleaved pairs of steps, 2026-11-27). Every element
is still dropped independently of all others. On accelerators and under `torch.compile` torch's own
is used, which is fused there.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 1 << 16
"""A rate is rounded to a multiple of 1 / STEPS, and the scale is that of the rounded rate."""
WORD_ELEMENTS = 4
"""Elements that one 64-bit word of the generator decides about."""


def keep_mask(shape: torch.Size, rate: float) -> tuple[Tensor, float]:
    """Which elements stay, drawn from torch's global generator on the CPU.

    Args:
        shape: Of the mask.
        rate: Share of elements dropped, in [0, 1).

    Returns:
        uint8 of the shape, 1 with probability 1 - r and 0 with r, the rate rounded to 1 / STEPS;
        and 1 / (1 - r), which keeps the expectation.
    """
    dropped = min(round(rate * STEPS), STEPS - 1)
    num = shape.numel()
    words = torch.empty(-(-num // WORD_ELEMENTS), dtype=torch.int64).random_(-(2**63), None)
    # in place a comparison stays in its own type, which vectorises; one that makes bools does not
    kept = words.view(torch.int16)[:num].ge_(dropped - STEPS // 2)
    return kept.to(torch.uint8).view(shape), STEPS / (STEPS - dropped)


class Dropout(nn.Module):
    """Dropout that can be fused with the residual addition after it."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x with some elements zero and the others scaled up."""
        if not self._by_hand(x):
            return F.dropout(x, self.rate, self.training)
        return _apply(x.new_zeros(()), x, self.rate)

    def add(self, residual: Tensor, branch: Tensor) -> Tensor:
        """residual + dropout(branch), both of one shape."""
        if not self._by_hand(branch):
            return residual + F.dropout(branch, self.rate, self.training)
        return _apply(residual, branch, self.rate)

    def _by_hand(self, x: Tensor) -> bool:
        return (
            self.training
            and self.rate > 0
            and x.device.type == "cpu"
            and not torch.compiler.is_compiling()
        )

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def _apply(residual: Tensor, branch: Tensor, rate: float) -> Tensor:
    mask, scale = keep_mask(branch.shape, rate)
    return torch.addcmul(residual, branch.to(residual.dtype), mask, value=scale)
