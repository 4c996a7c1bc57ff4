"""Tower metrics against hand arithmetic."""

import math

import pytest
import torch

from onerec.reward.metrics import (
    expected_calibration_error,
    log_loss,
    no_better_than_base_rate,
    reliability,
    smoothed_rates,
    tower_metrics,
)

P = torch.tensor([0.9, 0.2, 0.6, 0.4])
Y = torch.tensor([1.0, 0.0, 0.0, 1.0])


def test_auc_and_log_loss_by_hand():
    rates = torch.full((4,), 0.25)
    m = tower_metrics(P[:, None].expand(4, 4), Y[:, None].expand(4, 4), rates)["swt"]
    # pairs (positive, negative): .9 > .2, .9 > .6, .4 > .2 right, .4 < .6 wrong
    assert m["auc"] == pytest.approx(3 / 4)
    assert m["log_loss"] == pytest.approx(-math.log(0.9 * 0.8 * 0.4 * 0.4) / 4, abs=1e-6)
    assert m["base_log_loss"] == pytest.approx(-math.log(0.25**2 * 0.75**2) / 4, abs=1e-6)
    assert m["base_rate"] == 0.5


def test_calibration_by_hand():
    p = torch.cat([torch.full((10,), 0.2), torch.full((10,), 0.6)])
    y = torch.zeros(20)
    y[[0, 10, 11, 12, 13]] = 1.0
    curve = reliability(p, y)
    assert sum(curve["share"]) == pytest.approx(1)
    assert len(curve["share"]) == 10
    assert curve["predicted"] == pytest.approx([0.2] * 5 + [0.6] * 5)
    assert curve["observed"] == [0.5, 0, 0, 0, 0, 1, 1, 0, 0, 0]
    # |.2-.5| + 4 * .2 + 2 * .4 + 3 * .6 over ten bins of a tenth each
    assert expected_calibration_error(curve) == pytest.approx(0.1 * (0.3 + 0.8 + 0.8 + 1.8))


@pytest.mark.parametrize(
    ("label", "reason"), [(0.0, "no positive rows"), (1.0, "no negative rows")]
)
def test_auc_of_one_label_is_missing_and_never_made_up(label: float, reason: str):
    m = tower_metrics(P[:, None].expand(4, 4), torch.full((4, 4), label), torch.full((4,), 0.5))
    assert m["ltr"]["auc"] is None
    assert m["ltr"]["auc_missing"] == reason
    assert m["ltr"]["log_loss"] is not None


def test_no_rows_and_not_finite():
    none = tower_metrics(torch.zeros(0, 4), torch.zeros(0, 4), torch.full((4,), 0.5))
    assert none["vtr"]["log_loss"] is None
    assert none["vtr"]["auc_missing"] == "no rows"
    broken = tower_metrics(torch.full((3, 4), torch.nan), torch.ones(3, 4), torch.full((4,), 0.5))
    assert broken["vtr"]["finite"] is False


def test_towers_no_better_than_their_base_rate_are_named():
    good, bad, unknown = (
        {"log_loss": a, "base_log_loss": b} for a, b in ((0.1, 0.2), (0.2, 0.2), (None, None))
    )
    named = no_better_than_base_rate({"swt": good, "vtr": bad, "wtr": unknown})
    assert named == ["vtr", "wtr"]


def test_rates_are_never_certain():
    assert smoothed_rates(torch.zeros(8, 4)).tolist() == [0.1] * 4
    assert log_loss(torch.zeros(2), torch.ones(2)) < 17
