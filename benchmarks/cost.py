"""Costs of a generator: parameters, FLOPs and memory of a training step, counted exactly.

The model is built and run on torch's meta device, where tensors have shapes but no data: counting a
billion parameters takes seconds on any machine.
"""

from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from onerec.config import ModelConfig
from onerec.model.moe import SparseMoE, swiglu
from onerec.model.onerec import OneRec


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Costs of one training step in float32 with AdamW.

    Attributes:
        parameters: Trained parameters.
        active_parameters: Those used per token: of the experts, only the active ones.
        flops: Operations of a forward and a backward pass (a multiplication and an addition are
            two), without recomputation; attention is counted in full, masked or not.
        supervised_tokens: Tokens with a loss.
        state_bytes: Weights, gradients and the optimiser's two moments.
        activation_bytes: Tensors kept for the backward pass.
    """

    parameters: int
    active_parameters: int
    flops: int
    supervised_tokens: int
    state_bytes: int
    activation_bytes: int

    @property
    def flops_per_supervised_token(self) -> float:
        return self.flops / self.supervised_tokens


def training_cost(
    config: ModelConfig,
    *,
    codebook_size: int,
    num_sid_tokens: int,
    history_length: int,
    session_items: int,
    batch_size: int = 1,
) -> Cost:
    """Count one training step with full histories and sessions.

    Args:
        config: Shape of the model.
        codebook_size: C.
        num_sid_tokens: T.
        history_length: H, items per history.
        session_items: M, items per session.
        batch_size: Sessions per step.
    """
    shape = {
        "codebook_size": codebook_size,
        "num_sid_tokens": num_sid_tokens,
        "history_length": history_length,
        "session_items": session_items,
    }
    with torch.device("meta"), mock.patch.object(SparseMoE, "forward", _evenly):
        model = OneRec(config, **shape).train()
        history = torch.zeros(batch_size, history_length, num_sid_tokens, dtype=torch.long)
        targets = torch.zeros(batch_size, session_items, num_sid_tokens, dtype=torch.long)
        visible = torch.ones(batch_size, history_length, dtype=torch.bool)
        weights = {t.untyped_storage()._cdata for t in model.parameters()}
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with (
            FlopCounterMode(display=False) as counter,
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            logits = model(history, visible, targets)
            F.cross_entropy(logits.flatten(0, -2), targets.flatten()).backward()
    parameters = sum(p.numel() for p in model.parameters())
    experts = [m for m in model.modules() if isinstance(m, SparseMoE)]
    asleep = sum(
        (1 - m.active_experts / m.num_experts) * (m.up.numel() + m.down.numel()) for m in experts
    )
    activations = [t for storage, t in kept.items() if storage not in weights]
    return Cost(
        parameters=parameters,
        active_parameters=round(parameters - asleep),
        flops=counter.get_total_flops(),
        supervised_tokens=targets.numel(),
        state_bytes=4 * 4 * parameters,
        activation_bytes=sum(t.untyped_storage().nbytes() for t in activations),
    )


def _evenly(self: SparseMoE, x: Tensor) -> Tensor:
    """A mixture of experts with equal load: on the meta device there are no routing decisions.

    Every token uses the same number of experts, so the number of operations is unaffected.
    """
    tokens = x.reshape(-1, x.shape[-1])
    gates, chosen = self.route(tokens)
    order = chosen.flatten().argsort(stable=True)
    grouped = tokens.index_select(0, order // self.active_experts)
    parts = grouped.tensor_split(self.num_experts)
    experts = zip(parts, self.up, self.down, strict=True)
    outputs = torch.cat([swiglu(part, up, down) for part, up, down in experts])
    outputs = outputs.index_select(0, order).unflatten(0, (-1, self.active_experts))
    return (gates.unsqueeze(-1) * outputs).sum(dim=1).reshape(x.shape)
