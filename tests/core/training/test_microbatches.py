"""A batch in pieces: the same loss and gradient, whatever the pieces."""

import pytest
import torch
from torch import nn

from onerec.model import OneRec
from onerec.training.microbatches import split_rows, summed_loss
from onerec.training.module import next_token_loss, step_loss
from tests.core.training.small import (
    HISTORY,
    ITEMS,
    MODEL,
    NUM_CODES,
    NUM_SID_TOKENS,
    catalogue,
    patterned_sessions,
)


def loss_and_gradient(micro_batch: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = OneRec(
        MODEL,
        codebook_size=NUM_CODES,
        num_sid_tokens=NUM_SID_TOKENS,
        history_length=HISTORY,
        session_items=ITEMS,
    )
    model = model.double().eval()  # without dropout, whose draws depend on the pieces
    sessions = patterned_sessions(22, seed=5)
    codes = catalogue().codes
    loss = step_loss(model, sessions.history, sessions.targets, codes, micro_batch=micro_batch)
    (3 * loss).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) == len(list(model.parameters()))
    assert loss.item() == pytest.approx(
        next_token_loss(model, sessions.history, sessions.targets, codes).item(), abs=1e-12
    )
    return gradients


@pytest.mark.parametrize("micro_batch", [1, 8, 11, 21])
def test_pieces_add_up(micro_batch: int) -> None:
    """Rows have different numbers of targets, so a plain mean over pieces would be wrong."""
    for part, whole in zip(loss_and_gradient(micro_batch), loss_and_gradient(0), strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-9, atol=1e-12)


def test_no_gradient_where_none_is_wanted() -> None:
    linear = nn.Linear(3, 1)
    x = split_rows((torch.randn(5, 3),), 2)
    with torch.no_grad():
        total = summed_loss(linear, lambda i: linear(x[i][0]).sum(), len(x))
    assert not total.requires_grad
    assert [len(part) for (part,) in x] == [2, 2, 1]
    expected = sum(linear(part).sum() for (part,) in x)
    torch.testing.assert_close(total, torch.as_tensor(expected).detach())


def test_a_parameter_that_some_pieces_do_not_use() -> None:
    layers = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])
    x = torch.ones(1, 2)
    summed_loss(layers, lambda i: layers[i](x).sum() * (i + 1), 2).backward()
    assert [layer.bias.grad.item() for layer in layers] == [1.0, 2.0]  # pyright: ignore
