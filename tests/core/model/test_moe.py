"""The sparse mixture against a loop over tokens, and its balancing."""

import torch
from torch.nn import functional as F

from onerec.model import expert_load
from onerec.model.moe import BIAS_STEP, SparseMoE
from tests.core.model.small import small_model


def mixture(num_experts: int = 4, active_experts: int = 2) -> SparseMoE:
    torch.manual_seed(0)
    moe = SparseMoE(8, 6, num_experts=num_experts, active_experts=active_experts)
    for parameter in moe.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return moe.double()


def per_token(moe: SparseMoE, x: torch.Tensor) -> torch.Tensor:
    """Eq 2 of OneRec v1 without the residual, one token and one expert at a time."""
    rows = []
    for token in x.reshape(-1, x.shape[-1]):
        share = (moe.centroids @ token).softmax(0)
        chosen = (share + moe.bias).argsort(descending=True)[: moe.active_experts]
        total = torch.zeros_like(token)
        for expert in chosen:
            gate, value = (moe.up[expert] @ token).chunk(2)
            total = total + share[expert] * (moe.down[expert] @ (F.silu(gate) * value))
        rows.append(total)
    return torch.stack(rows).reshape(x.shape)


def test_equals_the_loop_over_tokens_forward_and_backward():
    moe = mixture()
    moe.bias += torch.tensor([0.1, -0.2, 0.0, 0.05])
    x = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    ours, reference = moe(x), per_token(moe, x)
    torch.testing.assert_close(ours, reference)
    inputs = [x, *moe.parameters()]
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), inputs),
        torch.autograd.grad(reference.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_an_expert_nobody_chooses_is_no_trouble():
    moe = mixture()
    moe.bias[2] = -10.0
    x = torch.randn(1, 1, 8, dtype=torch.float64)
    torch.testing.assert_close(moe(x), per_token(moe, x))
    moe(x).sum().backward()
    assert moe.up.grad is not None
    assert moe.up.grad[2].abs().sum() == 0


def test_all_experts_active_is_a_dense_mixture():
    moe = mixture(active_experts=4)
    x = torch.randn(6, 8, dtype=torch.float64)
    torch.testing.assert_close(moe(x), per_token(moe, x))


def test_bias_moves_against_the_load():
    moe = mixture().train()
    moe.pending += torch.tensor([8.0, 0.0, 4.0, 4.0])
    moe.update_bias()
    expected = BIAS_STEP * torch.tensor([-1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(moe.bias, expected)
    assert moe.pending.sum() == 0
    before = moe.bias.clone()
    moe.update_bias()  # nothing seen: nothing moves
    torch.testing.assert_close(moe.bias, before)


def test_balancing_balances():
    """Experts start 4:1 apart; the bias alone brings every share near 1 / E."""
    moe = mixture().train()
    with torch.no_grad():
        moe.centroids.mul_(0.05)
    moe.bias += torch.tensor([0.05, 0.0, 0.0, -0.05])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 8, dtype=torch.float64, generator=generator)
    counts = torch.zeros(4)
    with torch.no_grad():
        for _ in range(300):
            moe(x)
            counts = moe.pending.clone()
            moe.update_bias()
    assert (counts / counts.sum() - 0.25).abs().max() < 0.05


def test_tokens_are_counted_in_training_only_and_reported_as_shares():
    model = small_model()
    codes = torch.randint(0, 4, (2, 3, 3))
    model(codes, torch.ones(2, 3, dtype=torch.bool), codes)
    moes = [m for m in model.modules() if isinstance(m, SparseMoE)]
    assert [m.pending.sum().item() for m in moes] == [0, 0]
    model.train()
    model(codes, torch.ones(2, 3, dtype=torch.bool), codes)
    # 2 sessions of 3 * (1 + 3) - 1 tokens, each through 2 experts
    assert [m.pending.sum().item() for m in moes] == [44, 44]
    model.update_expert_bias()
    for shares in expert_load(model):
        assert abs(sum(shares) - 1) < 1e-6
