"""The hand-written gradient of RMSNorm against torch's own."""

import torch
from torch import nn

from onerec.model.rms_norm import RMSNorm


def test_norm_is_torchs_forward_and_backward() -> None:
    torch.manual_seed(0)
    ours, theirs = RMSNorm(24, eps=1e-6).double(), nn.RMSNorm(24, eps=1e-6).double()
    gain = torch.randn(24, dtype=torch.float64)
    x = 3 + torch.randn(5, 7, 24, dtype=torch.float64)  # far from a mean of zero
    upstream = torch.randn(5, 7, 24, dtype=torch.float64)
    results = []
    for norm in (ours, theirs):
        norm.weight.data.copy_(gain)
        inputs = x.clone().requires_grad_()
        out = norm(inputs)
        out.backward(upstream)
        results.append((out, inputs.grad, norm.weight.grad))
    for mine, expected in zip(*results, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-11, atol=1e-11)


def test_norm_without_gradients_is_the_same() -> None:
    torch.manual_seed(0)
    norm, x = RMSNorm(16, eps=1e-6), torch.randn(3, 16)
    with torch.no_grad():
        without = norm(x)
    torch.testing.assert_close(norm(x), without)


def test_norm_of_zeros_is_finite() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    RMSNorm(8, eps=1e-6)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_no_rows_are_no_trouble() -> None:
    """A process may get no row of a batch, and its gradients are zeros."""
    norm, x = RMSNorm(8, eps=1e-6), torch.empty(0, 3, 8, requires_grad=True)
    norm(x).sum().backward()
    assert norm.weight.grad is not None
    assert norm.weight.grad.abs().sum() == 0
