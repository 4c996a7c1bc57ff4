"""RMSNorm with a hand-written gradient: on a CPU torch composes it of many passes.

A training step of the preset small is 3 % faster with it (quartiles 1 to 5 %; torch 2.13, one
core, 20 interleaved pairs of steps, 2026-11-27). The mathematics is torch's. Away from the CPU,
under `torch.compile` or autocast and where no gradient is wanted, torch's own is used.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

aten = torch.ops.aten


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` over the last dimension with a gain."""

    def forward(self, x: Tensor) -> Tensor:
        if not _by_hand(x):
            return super().forward(x)
        eps = self.eps
        assert eps is not None, "the norm has an epsilon of its own"
        normed = _RMSNorm.apply(x, self.weight, eps)
        assert isinstance(normed, Tensor)
        return normed


class _RMSNorm(torch.autograd.Function):
    """y = x r w with r = 1 / sqrt(mean(x^2) + eps).

    LayerNorm's backward kernel at a mean of zero gives this norm's gradients, but for one term: it
    also takes out the mean of the gradient g w, as if x had been centred. That is put back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        width = x.shape[-1]
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(width).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore
        (grad,) = grad_outputs
        x, weight, scale = ctx.saved_tensors
        width = x.shape[-1]
        grad = grad.contiguous()
        centred, grad_weight, _ = aten.native_layer_norm_backward(
            grad, x, [width], torch.zeros_like(scale), scale, weight, None, [True, True, False]
        )
        mean = torch.mv(grad.view(-1, width), weight).view_as(scale).div_(width)
        return centred.add_(mean.mul_(scale)), grad_weight, None


def _by_hand(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
