"""Dropout: the right rate, nothing lost in expectation, every element for itself."""

import pytest
import torch

from onerec.model.dropout import STEPS, Dropout, keep_mask


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
def test_rate_and_scale(rate: float) -> None:
    torch.manual_seed(0)
    num = 400_000
    mask, scale = keep_mask(torch.Size([num]), rate)
    assert mask.dtype == torch.uint8
    assert set(mask.unique().tolist()) == {0, 1}
    deviation = (rate * (1 - rate) / num) ** 0.5
    assert abs(1 - mask.float().mean() - rate) < 4 * deviation
    assert 1 / scale == pytest.approx(1 - rate, abs=0.5 / STEPS)


def test_rounded_rate_is_exact_over_all_words() -> None:
    """A rate of 2 / STEPS drops the two lowest of the 16-bit numbers, and no other."""
    words = torch.arange(STEPS, dtype=torch.int32).to(torch.int16)
    dropped = words < 2 - STEPS // 2
    assert int(dropped.sum()) == 2
    assert keep_mask(torch.Size([8]), 2 / STEPS)[1] == STEPS / (STEPS - 2)


def test_elements_of_one_word_are_independent() -> None:
    torch.manual_seed(1)
    mask = keep_mask(torch.Size([200_000, 8]), 0.5)[0].double()
    correlation = torch.corrcoef(mask.T) - torch.eye(8, dtype=torch.float64)
    assert correlation.abs().max() < 4 / 200_000**0.5 * 1.5


@pytest.mark.parametrize("shape", [(3, 5), (1,), (0, 4), (2, 3, 7)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    assert Dropout(0.3).forward(x).shape == x.shape


def test_the_seed_decides() -> None:
    x, drop = torch.randn(20, 16), Dropout(0.3)

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([drop(x), drop(x)])

    assert torch.equal(drawn(5), drawn(5))
    assert not torch.equal(drawn(5), drawn(6))
    first, second = drawn(5).chunk(2)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_added_to_a_residual_with_its_gradient(dtype: torch.dtype) -> None:
    """residual + m x / (1 - p): the mask is read off the result and used by hand."""
    torch.manual_seed(2)
    residual = torch.randn(30, 16, requires_grad=True)
    branch = torch.randn(30, 16, dtype=dtype, requires_grad=True)
    out = Dropout(0.25).add(residual, branch)
    kept = (out != residual).float()
    torch.testing.assert_close(out, residual + kept * branch.float() / 0.75)
    upstream = torch.randn(30, 16)
    out.backward(upstream)
    torch.testing.assert_close(residual.grad, upstream)
    torch.testing.assert_close(branch.grad, (kept * upstream / 0.75).to(dtype))


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_nothing_is_dropped_or_drawn_in_evaluation(rate: float) -> None:
    state = torch.get_rng_state()
    x, drop = torch.randn(4, 8, generator=torch.Generator()), Dropout(rate).eval()
    assert torch.equal(drop(x), x)
    assert torch.equal(drop.add(x, x), 2 * x)
    assert torch.equal(torch.get_rng_state(), state)
