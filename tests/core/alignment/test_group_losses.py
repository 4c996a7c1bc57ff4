"""GRPO and ECPO by hand arithmetic, and their gradients against what the theory says."""

import doctest
import math

import pytest
import torch

from onerec.alignment import group_losses
from onerec.alignment.group_losses import ECPO, GRPO, GroupBatch, GroupLoss, advantages

LOGP = -2.0


def group(ratios: list[list[float]], rewards: list[float], ref: float = LOGP) -> GroupBatch:
    """One group whose tokens were as probable as e^LOGP and became `ratios` times that."""
    ratio = torch.tensor([ratios], dtype=torch.float64)
    old = torch.full_like(ratio, LOGP)
    return GroupBatch(
        old + ratio.log(),
        old,
        torch.full_like(ratio, ref),
        torch.ones_like(ratio, dtype=torch.bool),
        torch.tensor([rewards], dtype=torch.float64),
    )


def gradient(loss: GroupLoss, batch: GroupBatch) -> torch.Tensor:
    logp = batch.logp.clone().requires_grad_()
    loss(batch._replace(logp=logp)).sum().backward()
    assert logp.grad is not None
    return logp.grad


def test_example() -> None:
    result = doctest.testmod(group_losses)
    assert result.attempted > 0
    assert result.failed == 0


def test_grpo_by_hand():
    """Rewards 1, 0: A = 1, -1. Ratios 1.1 and 1.5 of the good one, .7 and 1.5 of the bad one.

    min(rho A, clip A): 1.1 and 1.2 (clipped), -.8 (clipped: -.7 is larger) and -1.5;
    the sum is 0, over four tokens.
    """
    batch = group([[1.1, 1.5], [0.7, 1.5]], [1.0, 0.0])
    assert float(GRPO(clip=0.2)(batch)) == pytest.approx(-(1.1 + 1.2 - 0.8 - 1.5) / 4)
    # KL with ref = e^-2.5: ref/pi = e^-.5 / rho each
    batch = group([[1.0], [1.0]], [1.0, 0.0], ref=-2.5)
    kl = math.exp(-0.5) + 0.5 - 1
    assert float(GRPO(kl_weight=0.04)(batch)) == pytest.approx(0.04 * kl)


def test_ecpo_by_hand():
    """Early clipping caps the bad session's 1.5 at 1.3; everything else is GRPO."""
    batch = group([[1.1, 1.5], [0.7, 1.5]], [1.0, 0.0])
    assert float(ECPO(0.2, 0.1)(batch)) == pytest.approx(-(1.1 + 1.2 - 0.8 - 1.3) / 4)


def test_gradient_is_that_of_the_policy_gradient():
    """At the start d loss / d logp = -A / number of tokens, for both."""
    batch = group([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], [3.0, 1.0, 2.0])
    expected = -advantages(batch.rewards)[..., None].expand(1, 3, 2) / 6
    torch.testing.assert_close(gradient(GRPO(), batch), expected)
    torch.testing.assert_close(gradient(ECPO(), batch), expected)


def test_where_the_clip_stops_and_where_early_clipping_holds_on():
    """Good and far enough: no gradient. Bad and rising: GRPO's grows with rho, ECPO's is 1.3."""
    batch = group([[1.5], [4.0]], [1.0, 0.0])
    grpo, ecpo = gradient(GRPO(), batch).flatten(), gradient(ECPO(0.2, 0.1), batch).flatten()
    assert grpo.tolist() == pytest.approx([0.0, 4.0 / 2])
    assert ecpo.tolist() == pytest.approx([0.0, 1.3 / 2])
    fallen = group([[1.0], [0.5]], [1.0, 0.0])
    assert gradient(GRPO(), fallen).flatten()[1] == 0


def test_rewards_alike_teach_nothing():
    batch = group([[1.1], [0.9]], [0.3, 0.3])
    for loss in (GRPO(), ECPO()):
        assert float(loss(batch)) == 0.0
        assert not gradient(loss, batch).any()


def test_kl_is_never_negative_and_pulls_back():
    for ratio in (0.3, 0.9, 1.7):
        batch = group([[ratio], [ratio]], [1.0, 1.0])
        assert float(GRPO(kl_weight=1.0)(batch)) > 0
        # d KL / d logp = 1 - ref/pi
        expected = (1 - 1 / ratio) / 2
        assert gradient(GRPO(kl_weight=1.0), batch).flatten()[0] == pytest.approx(expected)


def test_padding_counts_for_nothing():
    whole = group([[1.1], [0.9]], [1.0, 0.0])
    padded = group([[1.1, 5.0], [0.9, 0.1]], [1.0, 0.0])
    padded.mask[..., 1] = False
    for loss in (GRPO(kl_weight=0.1), ECPO()):
        assert float(loss(padded)) == pytest.approx(float(loss(whole)))
        assert not gradient(loss, padded)[..., 1].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GRPO(clip=1.0), r"clip=1\.0"),
        (lambda: GRPO(kl_weight=-1), "kl_weight=-1"),
        (lambda: ECPO(early_clip=0), "early_clip=0"),
    ],
)
def test_clear_errors(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
