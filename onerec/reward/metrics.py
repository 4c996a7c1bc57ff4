"""Metrics of a reward model on a day it was not trained on, per tower.

Shapes: R rows (blocks of a session), T towers, bins of equal row counts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from onerec.reward.pairwise_order import pairs_in_order
from onerec.statistics import percentile_ends

RELIABILITY_BINS = 10
AUC_RESAMPLES = 200
AUC_CONFIDENCE = 0.95
CHUNK_CELLS = 2_000_000
"""Most resample weights in memory at once; does not change results."""


def tower_metrics(
    probabilities: Tensor,
    labels: Tensor,
    base_rates: Tensor,
    towers: Sequence[str],
    *,
    user: Tensor | None = None,
) -> dict[str, Any]:
    """Discrimination and calibration per tower.

    Args:
        probabilities: (R, T) predictions in the order of the towers.
        labels: (R, T), 0 or 1.
        base_rates: (T,) rates of the *training* rows, the prediction of a scorer without features.
        towers: Their T names.
        user: (R,) the user of each row, for the AUC inside users.

    Returns:
        Per tower: `rows`, `finite`, `base_rate` (of these rows), `auc` (None where all rows carry
        one label, `auc_missing` then says which), `auc_interval` (its two ends, or None),
        `gauc` (`grouped_auc`, with users), `pcoc` (mean prediction over the observed rate),
        `log_loss`, `base_log_loss` (of `base_rates`), `ece` and the `reliability` bins it is made
        of. Without rows, or where a probability is not finite, every other number is None.
    """
    return {
        tower: _one(probabilities[:, i], labels[:, i], float(base_rates[i]), user)
        for i, tower in enumerate(towers)
    }


def grouped_auc(scores: Tensor, outcomes: Tensor, user: Tensor) -> float | None:
    """AUC inside each user, weighted by the user's rows: GAUC.

    For 0/1 outcomes it is the usual AUC; for numbers the share of a user's pairs with different
    outcomes that the score orders correctly. Users with equal outcomes only are left out.

    Args:
        scores: (R,) predictions; ties count half.
        outcomes: (R,) labels, or numbers.
        user: (R,) whole numbers from 0.

    Returns:
        None where no user has two different outcomes.

    Examples:
        >>> user = torch.tensor([0, 0, 0, 1, 1])
        >>> grouped_auc(torch.tensor([.9, .5, .1, .3, .3]), torch.tensor([1, 0, 0, 1, 0]), user)
        0.8
    """
    won, pairs = pairs_in_order(scores.double().numpy(), outcomes.double().numpy(), user.numpy())
    rows = np.bincount(user.numpy(), minlength=len(won)) * (pairs > 0)
    if not rows.any():
        return None
    return float((rows[pairs > 0] * won[pairs > 0] / pairs[pairs > 0]).sum() / rows.sum())


def expectation_metrics(expected: Tensor, observed: Tensor, user: Tensor) -> dict[str, Any]:
    """Metrics of predicted expectations.

    Args:
        expected: (R,) predictions.
        observed: (R,) observed values.
        user: (R,) whole numbers from 0.

    Returns:
        `rows`, `expected` and `observed` (means), `pcoc` (their ratio), `correlation` (Pearson's),
        `gauc` (`grouped_auc` of observed values rounded to twenty quantiles) and `calibration`
        (`reliability`); None where a number cannot be computed.
    """
    rows = {"rows": len(observed), "finite": bool(torch.isfinite(expected).all())}
    if not rows["rows"] or not rows["finite"] or observed.std() == 0 or expected.std() == 0:
        return rows | dict.fromkeys(
            ("expected", "observed", "pcoc", "correlation", "gauc", "calibration")
        )
    expected, observed = expected.double(), observed.double()
    edges = torch.linspace(0, 1, 21, dtype=torch.float64)[1:-1]
    rounded = torch.bucketize(observed, observed.quantile(edges))
    curve = reliability(expected, observed)
    return rows | {
        "expected": float(expected.mean()),
        "observed": float(observed.mean()),
        "pcoc": float(expected.mean() / observed.mean()) if observed.mean() else None,
        "correlation": float(torch.corrcoef(torch.stack([expected, observed]))[0, 1]),
        "gauc": grouped_auc(expected, rounded, user),
        "calibration": curve,
    }


def auc_interval(probabilities: Tensor, labels: Tensor, *, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap of the AUC over rows: see `resampled_aucs`.

    Rows of one user are resampled as if they were independent, so the interval is a little narrow.
    Resamples with one label only have no AUC and are left out.

    Args:
        probabilities: (R,) predictions.
        labels: (R,), 0 and 1, both present.
        seed: Seed of the resamples.

    Returns:
        Low and high end of the `AUC_CONFIDENCE` interval.

    Examples:
        >>> auc_interval(torch.tensor([0.1, 0.2, 0.8, 0.9]), torch.tensor([0, 0, 1, 1]))
        (1.0, 1.0)
    """
    aucs = resampled_aucs(probabilities, labels, torch.arange(len(labels)), seed=seed)
    return percentile_ends(aucs.numpy(), confidence=AUC_CONFIDENCE)


def resampled_aucs(
    probabilities: Tensor,
    labels: Tensor,
    unit: Tensor,
    *,
    seed: int = 0,
    samples: int = AUC_RESAMPLES,
) -> Tensor:
    """AUCs of bootstrap resamples of units, e.g. users, where rows of one unit are dependent.

    With the same units and seed two scorers get the same resamples, so that their AUCs are paired.

    Args:
        probabilities: (R,) predictions.
        labels: (R,), 0 or 1.
        unit: (R,) the resampled unit of each row, from 0, e.g. the row's user.
        seed: Of the resamples.
        samples: S.

    Returns:
        (S,) in double precision; NaN where a resample holds one label only.
    """
    units, unit = unit.unique(return_inverse=True)
    num = len(units)
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, CHUNK_CELLS // len(labels))
    aucs = []
    for start in range(0, samples, chunk):
        count = min(chunk, samples - start)
        drawn = torch.randint(num, (count, num), generator=generator)
        cells = drawn + torch.arange(count)[:, None] * num
        weights = cells.flatten().bincount(minlength=count * num).view(count, num)
        aucs.append(weighted_aucs(probabilities, labels, weights[:, unit]))
    return torch.cat(aucs)


def weighted_aucs(probabilities: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """AUC under each of several weightings of the same rows, from one sort.

    Args:
        probabilities: (R,) predictions; ties count half.
        labels: (R,), 0 or 1.
        weights: (S, R), multiplicity of each row.

    Returns:
        (S,) in double precision; NaN where the weighted rows carry one label only.
    """
    order = probabilities.argsort(stable=True)
    ranked = probabilities[order].contiguous()
    weights, positive = weights[:, order].double(), labels[order].double()
    wins = weights * positive
    negatives = torch.nn.functional.pad((weights * (1 - positive)).cumsum(1), (1, 0))
    below = negatives[:, torch.searchsorted(ranked, ranked)]
    up_to = negatives[:, torch.searchsorted(ranked, ranked, right=True)]
    return (wins * (below + up_to)).sum(1) / 2 / (wins.sum(1) * negatives[:, -1])


def log_loss(probabilities: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood of 0/1 labels; probabilities are clipped by 1e-7."""
    return float(log_losses(probabilities, labels).mean())


def log_losses(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each 0/1 label, in double precision; capped as `log_loss`."""
    p = probabilities.double().clamp(1e-7, 1 - 1e-7)
    return -(labels * p.log() + (1 - labels) * (1 - p).log())


def smoothed_rates(labels: Tensor) -> Tensor:
    """(T,) rates of (R, T) labels with one pseudo-count per class: never 0 or 1."""
    return (labels.double().sum(0) + 1) / (len(labels) + 2)


def reliability(probabilities: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """Mean prediction, observed rate and share of rows in bins of equal size, lowest first.

    Equal predictions share a bin, so with many ties there are fewer and larger bins; a constant
    prediction has one bin.
    """
    order = probabilities.argsort(stable=True)
    ranked = probabilities[order].contiguous()
    place = torch.searchsorted(ranked, ranked) * min(RELIABILITY_BINS, len(order)) // len(order)
    bins = place.unique(return_inverse=True)[1]
    count = bins.bincount().double()
    predicted = bins.bincount(probabilities[order].double()) / count
    observed = bins.bincount(labels[order].double()) / count
    return {
        "predicted": predicted.tolist(),
        "observed": observed.tolist(),
        "share": (count / len(order)).tolist(),
    }


def expected_calibration_error(curve: dict[str, list[float]]) -> float:
    """Mean absolute difference of prediction and observed rate over the bins, weighted by rows."""
    predicted, observed, share = (
        torch.tensor(curve[k]) for k in ("predicted", "observed", "share")
    )
    return float(((predicted - observed).abs() * share).sum())


def no_better_than_base_rate(towers: dict[str, Any]) -> list[str]:
    """Towers whose log-loss is not below that of the base rate, or could not be measured."""
    return [
        name
        for name, m in towers.items()
        if m["log_loss"] is None or m["log_loss"] >= m["base_log_loss"]
    ]


def _one(p: Tensor, y: Tensor, base_rate: float, user: Tensor | None) -> dict[str, Any]:
    finite = bool(torch.isfinite(p).all())
    if len(y) == 0 or not finite:
        numbers = (
            "base_rate", "auc", "auc_interval", "gauc", "pcoc", "log_loss", "base_log_loss", "ece",
        )  # fmt: skip
        empty = dict.fromkeys(numbers)
        reason = "no rows" if finite else "probabilities are not finite"
        return {
            "rows": len(y),
            "finite": finite,
            **empty,
            "auc_missing": reason,
            "reliability": None,
        }
    rate = float(y.double().mean())
    missing = {0.0: "no positive rows", 1.0: "no negative rows"}.get(rate)
    curve = reliability(p, y)
    return {
        "rows": len(y),
        "finite": True,
        "base_rate": rate,
        "auc": None if missing else float(binary_auroc(p, y.long())),
        "auc_interval": None if missing else list(auc_interval(p, y)),
        "auc_missing": missing,
        "gauc": None if user is None else grouped_auc(p, y, user),
        "pcoc": float(p.double().mean()) / rate if rate else None,
        "log_loss": log_loss(p, y),
        "base_log_loss": log_loss(torch.full_like(p, base_rate), y),
        "ece": expected_calibration_error(curve),
        "reliability": curve,
    }
