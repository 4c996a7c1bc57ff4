"""Preference losses by hand arithmetic."""

import math

import pytest
import torch

from onerec.alignment.losses import DPO, margin


def _logps(*values: float) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor([v]) for v in values)


def test_dpo_by_hand():
    """chosen rose by 2, rejected fell by 1: Delta = 3; beta .1: -ln sigmoid(.3) = .554355."""
    logps = _logps(-8.0, -13.0, -10.0, -12.0)
    assert float(margin(*logps)) == pytest.approx(3.0)
    assert float(DPO(beta=0.1)(*logps)) == pytest.approx(0.554355, abs=1e-6)
    # beta .5: -ln sigmoid(1.5) = ln(1 + e^-1.5) = .201413
    assert float(DPO(beta=0.5)(*logps)) == pytest.approx(0.201413, abs=1e-6)


def test_no_move_costs_ln_two():
    assert float(DPO(beta=0.7)(*_logps(-4.0, -9.0, -4.0, -9.0))) == pytest.approx(math.log(2))


def test_gradient_by_hand():
    """d loss / d chosen = -beta * sigmoid(-beta Delta) = -.1 * sigmoid(-.3) = -.0425557."""
    chosen, rejected, ref_chosen, ref_rejected = _logps(-8.0, -13.0, -10.0, -12.0)
    chosen.requires_grad_()
    rejected.requires_grad_()
    DPO(beta=0.1)(chosen, rejected, ref_chosen, ref_rejected).sum().backward()
    assert float(chosen.grad) == pytest.approx(-0.0425557, abs=1e-7)  # pyright: ignore
    assert float(rejected.grad) == pytest.approx(0.0425557, abs=1e-7)  # pyright: ignore


def test_far_from_the_start_it_stays_finite():
    loss = DPO(beta=1.0)(*_logps(-5000.0, 0.0, 0.0, -5000.0))
    assert float(loss) == pytest.approx(10_000.0)
