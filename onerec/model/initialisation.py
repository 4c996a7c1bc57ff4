"""Random weights of the generator before training."""

import torch
from torch import nn

TABLES = ("sid_embedding", "recency", "history_token", "slot", "token")
"""Embedding tables of the generator, by the start of their parameters' names."""
BRANCH_ENDS = ("out.weight", "down.weight", "down")
"""Last projections of residual branches, by the end of their names."""


@torch.no_grad()
def initialise(model: nn.Module, width: int, *, num_layers: int) -> None:
    """Unit-scale inputs and logits; branch outputs shrink with depth.

    Embeddings have standard deviation 1 / sqrt(width), projections 1 / sqrt(inputs), the last one
    of a residual branch 1 / sqrt(2 x num_layers) of that. Norms keep their weights. Draws from the
    global random number generator, in the order of the parameters.

    Args:
        model: Gets the weights.
        width: D of its embeddings.
        num_layers: Residual branches count as layers; what the branches are scaled by.
    """
    branch_end = (2 * max(num_layers, 1)) ** -0.5
    for name, parameter in model.named_parameters():
        if "norm" in name:
            continue
        is_table = parameter.dim() == 1 or name.startswith(TABLES)
        std = (width if is_table else parameter.shape[-1]) ** -0.5
        if name.endswith(BRANCH_ENDS):
            std *= branch_end
        parameter.normal_(0.0, std)
