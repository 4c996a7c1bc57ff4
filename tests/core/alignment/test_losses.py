"""Preference losses by hand arithmetic, and against a second way to write each of them."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onerec.alignment.losses import (
    CDPO,
    CPO,
    DPO,
    IPO,
    RDPO,
    SDPO,
    PairBatch,
    PreferenceLoss,
    SimPO,
    ipa_loss,
    margin,
)

SID_TOKENS = 15  # five items of three tokens


def pair(chosen: float, rejected: float, ref_chosen: float, ref_rejected: float) -> PairBatch:
    """One user with one rejected session, in double precision."""
    one = torch.float64
    return PairBatch(
        torch.tensor([chosen], dtype=one),
        torch.tensor([[rejected]], dtype=one),
        torch.tensor([ref_chosen], dtype=one),
        torch.tensor([[ref_rejected]], dtype=one),
        torch.tensor([SID_TOKENS]),
        torch.tensor([[SID_TOKENS]]),
    )


# The chosen session rose by 2 nats (-10 to -8), the rejected one fell by 1 (-12 to -13): Delta = 3.
MOVED = pair(-8.0, -13.0, -10.0, -12.0)


def softplus(x: float) -> float:
    """-log sigmoid(-x), in another form than the losses use."""
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (DPO(beta=0.1), 0.554355),  # ln(1 + e^-.3)
        (DPO(beta=0.5), 0.201413),  # ln(1 + e^-1.5)
        (IPO(beta=0.1), 23.04),  # (3/15 - 5)^2 = (-4.8)^2
        (CDPO(beta=0.5, label_noise=0.1), 0.351413),  # .9 * .201413 + .1 * (.201413 + 1.5)
        (RDPO(beta=0.5, label_noise=0.1), 0.013913),  # (.9 * .201413 - .1 * 1.701413) / .8
        (CPO(beta=0.1, nll_weight=1.0), 1.007410),  # ln(1 + e^-.5) = .474077, plus 8/15 = .533333
        (SimPO(beta=2.5, target_margin=1.375), 1.000216),  # 2.5 * 5/15 - 1.375 = -.541667
        (SDPO(beta=0.1), 0.554355),  # one rejected session: DPO
    ],
)
def test_by_hand(loss: PreferenceLoss, expected: float):
    assert float(margin(MOVED)) == pytest.approx(3.0)
    assert loss(MOVED).shape == (1,)
    assert float(loss(MOVED)) == pytest.approx(expected, abs=2e-6)


def test_sdpo_by_hand():
    """d_w = 2; d_l = -1, 0: beta .5 gives exponents -1.5, -1; ln(1 + e^-1.5 + e^-1) = .464369."""
    pairs = PairBatch(
        torch.tensor([-8.0]),
        torch.tensor([[-13.0, -9.0]]),
        torch.tensor([-10.0]),
        torch.tensor([[-12.0, -9.0]]),
        torch.tensor([SID_TOKENS]),
        torch.tensor([[SID_TOKENS, SID_TOKENS]]),
    )
    assert float(SDPO(beta=0.5)(pairs)) == pytest.approx(0.464369, abs=1e-6)
    # two rejected sessions are two pairs to DPO: (ln(1 + e^-1.5) + ln(1 + e^-1)) / 2
    assert float(DPO(beta=0.5)(pairs)) == pytest.approx((0.201413 + 0.313262) / 2, abs=1e-6)


def test_ipa_is_next_token_loss_and_weighted_dpo():
    preference = DPO(beta=0.5)(MOVED).mean()
    total = ipa_loss(torch.tensor(1.5), preference, ntp_weight=1.0, weight=0.3)
    assert float(total) == pytest.approx(1.5 + 0.3 * 0.201413, abs=1e-6)


logps = st.floats(-60, 0)
betas = st.floats(0.05, 3)
noises = st.floats(0, 0.45)


@given(logps, logps, logps, logps, betas, noises)
def test_against_other_formulas(w: float, v: float, ref_w: float, ref_v: float, b: float, e: float):
    """Bradley-Terry as a softmax, noise as a mixture, and means per token, written out anew."""
    pairs = pair(w, v, ref_w, ref_v)
    implicit = (b * (w - ref_w), b * (v - ref_v))  # DPO's implicit rewards
    dpo = softplus(implicit[1] - implicit[0])
    swapped = softplus(implicit[0] - implicit[1])
    expected = {
        DPO(b): dpo,
        IPO(b): ((w - ref_w - v + ref_v) / SID_TOKENS - 0.5 / b) ** 2,
        CDPO(b, e): dpo + e * (implicit[0] - implicit[1]),  # L(l, w) = L(w, l) + beta Delta
        RDPO(b, e): dpo - e / (1 - 2 * e) * (implicit[0] - implicit[1]),
        CPO(b, 0.5): softplus(b * (v - w)) + 0.5 * -w / SID_TOKENS,
        SimPO(b, 0.3): softplus(0.3 - b * (w - v) / SID_TOKENS),
        SDPO(b): dpo,
    }
    for loss, value in expected.items():
        assert float(loss(pairs)) == pytest.approx(value, rel=1e-9, abs=1e-9), loss
    # what rDPO is for: its expectation under labels that are wrong with probability e is DPO's
    noisy = (1 - e) * float(RDPO(b, e)(pairs)) + e * float(RDPO(b, e)(pair(v, w, ref_v, ref_w)))
    assert noisy == pytest.approx(dpo, rel=1e-9, abs=1e-9)
    assert swapped >= 0


@given(st.lists(logps, min_size=1, max_size=5), logps, betas)
def test_sdpo_is_a_softmax_over_all_sessions(rejected: list[float], chosen: float, b: float):
    many = torch.tensor([rejected], dtype=torch.float64)
    pairs = PairBatch(
        torch.tensor([chosen], dtype=torch.float64), many, torch.tensor([-20.0]),
        torch.full_like(many, -20.0), torch.tensor([SID_TOKENS]), torch.full_like(many, SID_TOKENS),
    )  # fmt: skip
    scores = torch.tensor([chosen, *rejected], dtype=torch.float64) * b
    assert float(SDPO(b)(pairs)) == pytest.approx(float(-scores.log_softmax(0)[0]), abs=1e-9)


def test_no_move_costs_ln_two():
    still = pair(-4.0, -9.0, -4.0, -9.0)
    for loss in (DPO(0.7), CDPO(0.7), RDPO(0.7), SDPO(0.7)):
        assert float(loss(still)) == pytest.approx(math.log(2)), loss


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("loss", "by_chosen", "by_rejected"),
    [
        (DPO(0.1), -0.1 * sigmoid(-0.3), 0.1 * sigmoid(-0.3)),  # -+.0425557
        (IPO(0.1), 2 * -4.8 / SID_TOKENS, -2 * -4.8 / SID_TOKENS),
        # cDPO: -beta * (sigmoid(-beta Delta) - eps)
        (CDPO(0.1, 0.2), -0.1 * (sigmoid(-0.3) - 0.2), 0.1 * (sigmoid(-0.3) - 0.2)),
        # rDPO: -beta * (sigmoid(-beta Delta) + eps / (1 - 2 eps))
        (RDPO(0.1, 0.2), -0.1 * (sigmoid(-0.3) + 0.2 / 0.6), 0.1 * (sigmoid(-0.3) + 0.2 / 0.6)),
        (CPO(0.1, 1.0), -0.1 * sigmoid(-0.5) - 1 / SID_TOKENS, 0.1 * sigmoid(-0.5)),
        (
            SimPO(2.5, 1.375),
            -2.5 / SID_TOKENS * sigmoid(1.375 - 2.5 * 5 / 15),
            2.5 / SID_TOKENS * sigmoid(1.375 - 2.5 * 5 / 15),
        ),
        (SDPO(0.1), -0.1 * sigmoid(-0.3), 0.1 * sigmoid(-0.3)),
    ],
)
def test_gradients_by_hand(loss: PreferenceLoss, by_chosen: float, by_rejected: float):
    chosen = MOVED.chosen_logp.clone().requires_grad_()
    rejected = MOVED.rejected_logp.clone().requires_grad_()
    loss(MOVED._replace(chosen_logp=chosen, rejected_logp=rejected)).sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert float(chosen.grad) == pytest.approx(by_chosen, abs=1e-9)
    assert float(rejected.grad) == pytest.approx(by_rejected, abs=1e-9)


def test_reference_free_losses_leave_the_start_alone():
    elsewhere = MOVED._replace(
        ref_chosen_logp=torch.tensor([-99.0]), ref_rejected_logp=torch.tensor([[-1.0]])
    )
    for loss in (CPO(), SimPO()):
        assert torch.equal(loss(MOVED), loss(elsewhere)), loss
    assert not torch.equal(DPO()(MOVED), DPO()(elsewhere))


def test_far_from_the_start_they_stay_finite():
    far = pair(-5000.0, 0.0, 0.0, -5000.0)
    assert float(DPO(beta=1.0)(far)) == pytest.approx(10_000.0)
    for loss in (IPO(), CDPO(1.0), RDPO(1.0), CPO(1.0), SimPO(), SDPO(1.0)):
        assert math.isfinite(float(loss(far))), loss


@pytest.mark.parametrize("loss", [CDPO(), RDPO()])
def test_labels_that_say_nothing_are_an_error(loss: CDPO | RDPO):
    with pytest.raises(ValueError, match=r"label_noise=0\.5"):
        dataclasses.replace(loss, label_noise=0.5)
