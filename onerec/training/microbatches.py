"""Gradients of a batch computed in pieces, which bounds the memory of a step.

The sum of the pieces' gradients is the batch's gradient, but for rounding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def summed_loss(module: nn.Module, loss_of: Callable[[int], Tensor], pieces: int) -> Tensor:
    """The sum of the losses of a batch's pieces, differentiable as if computed at once.

    Where gradients are wanted each piece's are computed right after its loss and added up, and
    `backward` of the result hands them out; nothing of a piece outlives it.

    Args:
        module: Whose parameters the loss depends on; nothing else gets a gradient.
        loss_of: The loss of piece i, a scalar.
        pieces: How many there are.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if pieces == 1 or not torch.is_grad_enabled():
        return torch.stack([loss_of(i) for i in range(pieces)]).sum()
    total = _SummedLoss.apply(loss_of, pieces, *parameters)
    assert isinstance(total, Tensor)
    return total


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, loss_of: Callable[[int], Tensor], pieces: int, *parameters: Tensor
    ) -> Tensor:
        losses: list[Tensor] = []
        sums: list[Tensor] = []
        for piece in range(pieces):
            with torch.enable_grad():
                loss = loss_of(piece)
            device = loss.device.type
            with torch.autocast(device, enabled=False):  # as backward outside a forward runs
                grads = torch.autograd.grad(
                    loss, parameters, allow_unused=True, materialize_grads=True
                )
            losses.append(loss.detach())
            sums = [a + b for a, b in zip(sums, grads, strict=True)] if sums else list(grads)
        ctx.save_for_backward(*sums)
        return torch.stack(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        (scale,) = grad_outputs
        return None, None, *(gradient * scale for gradient in ctx.saved_tensors)


def split_rows(tensors: Sequence[Tensor], rows: int) -> list[tuple[Tensor, ...]]:
    """Row-aligned tensors cut into pieces of so many rows, the last may be shorter."""
    return list(zip(*(t.split(rows) for t in tensors), strict=True))
