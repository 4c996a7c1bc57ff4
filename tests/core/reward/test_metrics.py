"""Tower metrics against hand arithmetic and brute force."""

import doctest
import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

from onerec.config.feedback import VIDEO_SIGNALS
from onerec.reward import metrics
from onerec.reward.metrics import (
    auc_interval,
    expected_calibration_error,
    log_loss,
    no_better_than_base_rate,
    reliability,
    resampled_aucs,
    smoothed_rates,
    tower_metrics,
    weighted_aucs,
)

TOWERS = [signal.name for signal in VIDEO_SIGNALS]
HALF = torch.full((4,), 0.5)
P = torch.tensor([0.9, 0.2, 0.6, 0.4])
Y = torch.tensor([1.0, 0.0, 0.0, 1.0])


def test_auc_and_log_loss_by_hand():
    rates = torch.full((4,), 0.25)
    m = tower_metrics(P[:, None].expand(4, 4), Y[:, None].expand(4, 4), rates, TOWERS)["swt"]
    # pairs (positive, negative): .9 > .2, .9 > .6, .4 > .2 right, .4 < .6 wrong
    assert m["auc"] == pytest.approx(3 / 4)
    assert m["log_loss"] == pytest.approx(-math.log(0.9 * 0.8 * 0.4 * 0.4) / 4, abs=1e-6)
    assert m["base_log_loss"] == pytest.approx(-math.log(0.25**2 * 0.75**2) / 4, abs=1e-6)
    assert m["base_rate"] == 0.5


def _tied(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions of which many are equal, and labels that lean on them."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.randint(1, 9, (rows,), generator=generator) / 10
    return p, (torch.rand(rows, generator=generator) < p).float()


@pytest.mark.parametrize("seed", range(3))
def test_weighted_auc_is_that_of_the_rows_repeated(seed: int):
    p, y = _tied(12, seed)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randint(0, 4, (25, 12), generator=generator)
    weights[:, :2], y[:2] = 1, torch.tensor([0.0, 1.0])  # both labels in every resample
    repeated = [
        float(binary_auroc(p.repeat_interleave(w), y.repeat_interleave(w).long())) for w in weights
    ]
    assert weighted_aucs(p, y, weights).tolist() == pytest.approx(repeated, abs=1e-6)
    assert weighted_aucs(p, y, y[None].long()).isnan().all()  # no negative row is left


def test_auc_interval_is_made_of_resampled_rows():
    p, y = _tied(40, 5)
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randint(40, (metrics.AUC_RESAMPLES, 40), generator=generator)
    aucs = torch.stack([binary_auroc(p[rows], y[rows].long()) for rows in drawn])
    expected = aucs.quantile(torch.tensor([0.025, 0.975])).tolist()
    assert auc_interval(p, y, seed=3) == pytest.approx(expected, abs=1e-6)


def test_auc_interval_depends_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch):
    p, y = _tied(300, 1)
    whole = auc_interval(p, y, seed=1)
    assert whole != auc_interval(p, y, seed=2)
    monkeypatch.setattr(metrics, "CHUNK_CELLS", 1000)
    assert auc_interval(p, y, seed=1) == whole


def test_auc_interval_holds_the_truth_about_as_often_as_it_says():
    held = 0
    for trial in range(100):
        generator = torch.Generator().manual_seed(trial)
        y = (torch.rand(400, generator=generator) < 0.3).float()
        p = torch.randn(400, generator=generator).add(y).sigmoid()
        low, high = auc_interval(p, y, seed=trial)
        held += low <= 0.7602 <= high  # Phi(1 / sqrt(2))
    assert 88 <= held <= 100


def test_interval_is_around_the_auc_and_rarer_labels_widen_it():
    p, _ = _tied(600, 2)
    often, seldom = (torch.arange(600) % every == 0 for every in (2, 60))
    labels = torch.stack([often, seldom, often, often], dim=1).float()
    towers = tower_metrics(p[:, None].expand(600, 4), labels, HALF, TOWERS)
    for m in towers.values():
        low, high = m["auc_interval"]
        assert low < m["auc"] < high
    swt, vtr = (np.ptp(towers[t]["auc_interval"]) for t in ("swt", "vtr"))
    assert vtr > 2 * swt


def test_examples_in_docstrings():
    assert doctest.testmod(metrics).failed == 0


def test_calibration_by_hand():
    p = torch.cat([torch.full((10,), 0.2), torch.full((10,), 0.6)])
    y = torch.zeros(20)
    y[[0, 10, 11, 12, 13]] = 1.0
    curve = reliability(p, y)
    assert sum(curve["share"]) == pytest.approx(1)
    # equal predictions are one bin: 1 of 10 and 4 of 10
    assert curve["predicted"] == pytest.approx([0.2, 0.6])
    assert curve["observed"] == pytest.approx([0.1, 0.4])
    assert expected_calibration_error(curve) == pytest.approx(0.5 * 0.1 + 0.5 * 0.2)


def test_bins_hold_equally_many_rows_where_no_predictions_are_equal():
    generator = torch.Generator().manual_seed(0)
    p = torch.randperm(60, generator=generator) / 60
    curve = reliability(p, (p > 0.5).float())
    assert curve["share"] == pytest.approx([0.1] * 10)
    assert curve["predicted"] == pytest.approx([(2.5 + 6 * b) / 60 for b in range(10)])


def test_calibration_error_is_torchmetrics_where_the_bins_are_the_same():
    """Theirs are of equal width: with as many predictions in each tenth both cut alike."""
    generator = torch.Generator().manual_seed(1)
    p = (torch.arange(200) + 0.5) / 200
    y = (torch.rand(200, generator=generator) < p**2).float()
    shuffled = torch.randperm(200, generator=generator)
    expected = float(binary_calibration_error(p, y.long(), n_bins=10, norm="l1"))
    got = expected_calibration_error(reliability(p[shuffled], y[shuffled]))
    assert got == pytest.approx(expected, abs=1e-6)


def test_users_are_resampled_whole():
    """Two users of two rows each: resamples are of one user alone or of both."""
    p = torch.tensor([0.1, 0.9, 0.6, 0.4])
    y = torch.tensor([0.0, 1.0, 0.0, 1.0])
    aucs = resampled_aucs(p, y, torch.tensor([7, 7, 3, 3]), samples=100)
    assert set(aucs.tolist()) == {1.0, 0.0, 0.75}
    again = resampled_aucs(1 - p, y, torch.tensor([7, 7, 3, 3]), samples=100)
    assert (aucs + again).tolist() == pytest.approx([1.0] * 100)  # the same resamples


@pytest.mark.parametrize(
    ("label", "reason"), [(0.0, "no positive rows"), (1.0, "no negative rows")]
)
def test_auc_of_one_label_is_missing_and_never_made_up(label: float, reason: str):
    m = tower_metrics(P[:, None].expand(4, 4), torch.full((4, 4), label), HALF, TOWERS)
    assert m["ltr"]["auc"] is None
    assert m["ltr"]["auc_interval"] is None
    assert m["ltr"]["auc_missing"] == reason
    assert m["ltr"]["log_loss"] is not None


def test_no_rows_and_not_finite():
    none = tower_metrics(torch.zeros(0, 4), torch.zeros(0, 4), HALF, TOWERS)
    assert none["vtr"]["log_loss"] is None
    assert none["vtr"]["auc_interval"] is None
    assert none["vtr"]["auc_missing"] == "no rows"
    broken = tower_metrics(torch.full((3, 4), torch.nan), torch.ones(3, 4), HALF, TOWERS)
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
