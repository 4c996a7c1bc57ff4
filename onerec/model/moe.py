"""Feed-forward layers: dense SwiGLU, and a sparse mixture of such experts.

The mixture follows OneRec v1, Eq 2: gates are a softmax over all experts, the top k are kept as
they are (not renormalised), the residual is outside. Load is balanced without an auxiliary loss: a
bias per expert, used only to choose, rises while the expert is under-used and falls while it is
over-used (DeepSeek-V3; OneRec technical report, section 4.2.1).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BIAS_STEP = 1e-3
"""How far one step moves an expert's bias (DeepSeek-V3's value)."""
SHARE_DECAY = 0.99
"""Decay of the running share of tokens per expert that `expert_load` reports."""


class FeedForward(nn.Module):
    """SwiGLU: (..., D) -> (..., D) through a hidden width of `d_ff`."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, 2 * d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return swiglu(x, self.up.weight, self.down.weight)


def swiglu(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """silu(x A) * (x C), projected back; up = [A; C] (2 F, D), down (D, F)."""
    # two products, not one: halves of rows are slow to read and write element by element
    gate, value = up.chunk(2)
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, value), down)


class SparseMoE(nn.Module):
    """A mixture in which every token passes through its top k experts; no token is dropped.

    Tokens are sorted by expert, so that each expert runs once over a contiguous slice, and
    un-sorted by the inverse permutation: no scatter, hence the same bytes on every run.
    """

    bias: Tensor
    share: Tensor
    pending: Tensor

    def __init__(self, d_model: int, d_ff: int, *, num_experts: int, active_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.active_experts = active_experts
        self.centroids = nn.Parameter(torch.empty(num_experts, d_model))
        self.up = nn.Parameter(torch.empty(num_experts, 2 * d_ff, d_model))
        self.down = nn.Parameter(torch.empty(num_experts, d_model, d_ff))
        self.register_buffer("bias", torch.zeros(num_experts))
        self.register_buffer("share", torch.full((num_experts,), 1.0 / num_experts))
        # tokens per expert since the last update: a step's own, so it is not saved
        self.register_buffer("pending", torch.zeros(num_experts), persistent=False)

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (n, D) -> gates (n, k) and chosen experts (n, k)."""
        gates = F.linear(tokens, self.centroids).softmax(dim=-1)
        chosen = (gates.detach() + self.bias).topk(self.active_experts, dim=-1).indices
        return gates.gather(-1, chosen), chosen

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        gates, chosen = self.route(tokens)
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=self.num_experts)
        if self.training:
            self.pending += counts
        grouped = tokens.index_select(0, order // self.active_experts)
        parts = [
            swiglu(part, up, down)
            for part, up, down in zip(
                grouped.split(counts.tolist()), self.up.unbind(), self.down.unbind(), strict=True
            )
        ]
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        outputs = torch.cat(parts).index_select(0, inverse)
        outputs = outputs.unflatten(0, (-1, self.active_experts))  # (n, k, D)
        return (gates.unsqueeze(-1) * outputs).sum(dim=1).reshape(x.shape)

    @torch.no_grad()
    def update_bias(self) -> None:
        """Move the bias towards balance by the tokens seen since the last call."""
        counts = self.pending
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
        total = counts.sum()
        if total > 0:
            self.bias += BIAS_STEP * torch.sign(total / self.num_experts - counts)
            self.share.mul_(SHARE_DECAY).add_(counts / total, alpha=1 - SHARE_DECAY)
        self.pending.zero_()


def expert_load(model: nn.Module) -> list[list[float]]:
    """Per sparse layer, the running share of tokens that went to each expert (sums to 1)."""
    return [m.share.tolist() for m in model.modules() if isinstance(m, SparseMoE)]
