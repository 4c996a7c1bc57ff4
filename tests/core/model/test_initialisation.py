"""Initial weights have the documented standard deviations."""

import pytest
import torch
from torch import nn

from onerec.model.initialisation import initialise


class Branch(nn.Module):
    """One layer with a table, a norm, and both projections of a residual branch."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.sid_embedding = nn.Embedding(5000, width)
        self.norm = nn.RMSNorm(width)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)


def test_standard_deviations_follow_width_inputs_and_depth():
    torch.manual_seed(0)
    width, hidden, num_layers = 64, 400, 8
    model = Branch(width, hidden)

    initialise(model, width, num_layers=num_layers)

    expected = {
        "sid_embedding.weight": width**-0.5,
        "up.weight": width**-0.5,
        "down.weight": hidden**-0.5 / (2 * num_layers) ** 0.5,
    }
    found = {name: p.std().item() for name, p in model.named_parameters() if name in expected}
    assert found == pytest.approx(expected, rel=0.03)
    assert torch.equal(model.norm.weight, torch.ones(width))
