"""Gradient boosting beside the network of a reward model: LightGBM on the facts it reads.

A network and trees make different mistakes, so that a mean of both is often better than either. One
LightGBM model per tower learns from the facts of the network's wide part (`RewardOutput.facts`);
the share with which it counts is chosen per tower on the validation day and may be 0.

Shapes: R blocks, F facts, T towers, S shares.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onerec.config.feedback import Signal
from onerec.reward.model import RewardModel
from onerec.reward.scoring import network_and_facts
from onerec.session_dataset.reward_blocks import RewardBlocks

PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    "metric": "binary_logloss",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
OF_EXPECTATIONS = {"objective": "regression", "metric": "l2"}
MAX_TREES = 400
PATIENCE = 40
"""Early stopping: trees without a better loss on the validation day."""
FEWEST = 10
"""Fewest positives, and negatives, of a tower on the validation day: without positives whatever
predicts less than the network has the smaller loss."""
SHARES = tuple(tenth / 10 for tenth in range(11))
SMALLEST_PROBABILITY = 1e-6
"""Probabilities are kept so far from 0 and 1 before they are mixed in log-odds."""


@dataclass(frozen=True)
class Boosting:
    """LightGBM models and how much each counts.

    Attributes:
        signals: T signals, in the order of the towers.
        shares: (T,) from 0, the network alone, to 1, LightGBM alone.
        boosters: (T,) LightGBM models; None where the share is 0.
    """

    signals: tuple[Signal, ...]
    shares: tuple[float, ...]
    boosters: tuple[Any, ...]

    def mixed(self, network: Tensor, facts: Tensor) -> Tensor:
        """The predictions of a reward model (R, T).

        Args:
            network: (R, T) those of its network.
            facts: (R, F) that the network read.
        """
        columns, rows = list(network.unbind(-1)), facts.numpy()
        for i, (signal, share, booster) in enumerate(self._towers()):
            if booster is not None and len(rows):
                boosted = torch.from_numpy(predicted(booster, rows)).to(network.dtype)
                columns[i] = mixed(columns[i], boosted, share, signal)
        return torch.stack(columns, -1)

    def text(self) -> str:
        """JSON with the shares and LightGBM's own text by name of a signal."""
        boosters = {s.name: b.model_to_string() for s, _, b in self._towers() if b is not None}
        return json.dumps({"shares": self.shares_by_name(), "boosters": boosters})

    @staticmethod
    def parse(text: str, signals: tuple[Signal, ...]) -> "Boosting":
        """Read what `text` wrote for a model of these signals."""
        stored = json.loads(text)
        boosters = {
            name: lightgbm.Booster(model_str=trees) for name, trees in stored["boosters"].items()
        }
        return Boosting(
            signals,
            tuple(stored["shares"][signal.name] for signal in signals),
            tuple(boosters.get(signal.name) for signal in signals),
        )

    def shares_by_name(self) -> dict[str, float]:
        """The share of every signal."""
        return {signal.name: share for signal, share, _ in self._towers()}

    def trees(self) -> dict[str, int]:
        """Number of trees of the signals whose share is above 0."""
        return {s.name: b.num_trees() for s, _, b in self._towers() if b is not None}

    def _towers(self) -> Iterator[tuple[Signal, float, Any]]:
        return zip(self.signals, self.shares, self.boosters, strict=True)


def mixed(network: Tensor, boosted: Tensor, share: float, signal: Signal) -> Tensor:
    """(R,) predictions: probabilities are mixed in log-odds, expectations as they are, from 0 on.

    >>> half = mixed(torch.tensor([0.5]), torch.tensor([0.8]), 0.5, Signal(name="continued",
    ...     of_block="continued"))  # odds of 1 and 4: their geometric mean is 2
    >>> round(float(half), 4)
    0.6667
    """
    if signal.is_expectation:
        return (1 - share) * network + share * boosted.clamp(min=0)
    odds = [torch.logit(p, eps=SMALLEST_PROBABILITY) for p in (network, boosted)]
    return torch.sigmoid((1 - share) * odds[0] + share * odds[1])


def predicted(booster: Any, facts: np.ndarray) -> np.ndarray:
    """(R,) predictions of a LightGBM model from facts (R, F)."""
    return booster.predict(facts, num_threads=torch.get_num_threads())


class _Rows(NamedTuple):
    """Blocks as LightGBM learns from them: network's predictions, facts and labels."""

    network: Tensor
    facts: np.ndarray
    labels: Tensor


def fit_boosting(
    model: RewardModel, vectors: Tensor, train: RewardBlocks, valid: RewardBlocks, *, seed: int
) -> Boosting | None:
    """Fit LightGBM beside a trained network.

    Every block is there twice, with the user's facts and without: facts of users are known for
    logged blocks, and not for the sessions that are scored to choose pairs and lists. Trees that
    always had them rely on them; without them they are then worse (swt on KuaiRand, AUC .709
    instead of .712).

    Args:
        model: With facts.
        vectors: (N, Dv) item vectors.
        train: Blocks of the training days.
        valid: Blocks of the validation day, which chooses the number of trees and the shares.
        seed: Of LightGBM.

    Returns:
        None where no tower gains. A tower has no trees where the validation day cannot choose a
        share: with fewer than `FEWEST` positives or negatives.
    """
    learned, held_out = (_twice(model, vectors, blocks) for blocks in (train, valid))
    shares, boosters = [], []
    for i, signal in enumerate(model.signals):
        share, booster, labels = 0.0, None, learned.labels[:, i]
        if labels.min() < labels.max() and _can_choose(valid.labels[:, i], signal):
            booster = fit_booster(
                signal,
                (learned.facts, labels.numpy()),
                (held_out.facts, held_out.labels[:, i].numpy()),
                seed=seed,
            )
            boosted = torch.from_numpy(predicted(booster, held_out.facts))
            network, later = held_out.network[:, i].double(), held_out.labels[:, i].double()
            share = best_share(network.view(2, -1), boosted.view(2, -1), later.view(2, -1), signal)
        shares.append(share)
        boosters.append(booster if share else None)
    return Boosting(model.signals, tuple(shares), tuple(boosters)) if any(shares) else None


def fit_booster(
    signal: Signal,
    train: tuple[np.ndarray, np.ndarray],
    valid: tuple[np.ndarray, np.ndarray],
    *,
    seed: int,
) -> Any:
    """Fit the LightGBM model of one tower.

    Args:
        signal: Its signal.
        train: Facts (R, F) and labels (R,) of the training days, with more than one label.
        valid: The same of the validation day, for early stopping; may be empty.
        seed: Of LightGBM.
    """
    parameters = {**PARAMETERS, "seed": seed, **(OF_EXPECTATIONS if signal.is_expectation else {})}
    data = lightgbm.Dataset(train[0], label=np.ascontiguousarray(train[1]))
    stopping: dict[str, Any] = {}
    if len(valid[0]):
        later = data.create_valid(valid[0], label=np.ascontiguousarray(valid[1]))
        stopping["valid_sets"] = [later]
        stopping["callbacks"] = [lightgbm.early_stopping(PATIENCE, verbose=False)]
    booster = lightgbm.train(parameters, data, num_boost_round=MAX_TREES, **stopping)
    # the best trees alone: copies of a Booster would predict with the later ones, too
    return lightgbm.Booster(model_str=booster.model_to_string())


def best_share(network: Tensor, boosted: Tensor, labels: Tensor, signal: Signal) -> float:
    """The share of `SHARES` with the least loss, of equals the smallest.

    It is 0 unless the loss falls by more than the standard error of that fall: with a few positives
    (a follow in four hundred blocks) the least loss is chance.

    Args:
        network: (V, R) predictions of the network for V views of the same blocks.
        boosted: (V, R) predictions of LightGBM.
        labels: (V, R), as precise as the predictions.
        signal: Expectations have a squared error, probabilities a log-loss.
    """

    def losses(share: float) -> Tensor:
        p = mixed(network, boosted, share, signal)
        if signal.is_expectation:
            return (p - labels).square().mean(0)
        return F.binary_cross_entropy(p, labels, reduction="none").mean(0)

    by_share = torch.stack([losses(share) for share in SHARES])
    best = int(by_share.mean(1).argmin())
    gain = by_share[0] - by_share[best]
    return SHARES[best] if gain.mean() > gain.std() / len(gain) ** 0.5 else 0.0


def _can_choose(labels: Tensor, signal: Signal) -> bool:
    if signal.is_expectation:
        return len(labels) >= FEWEST
    positives = int(labels.sum())
    return min(positives, len(labels) - positives) >= FEWEST


def _twice(model: RewardModel, vectors: Tensor, blocks: RewardBlocks) -> _Rows:
    """Blocks with their users' facts, then without; 2R rows."""
    known, unknown = (
        network_and_facts(model, vectors, blocks, users_known=known) for known in (True, False)
    )
    network, facts = (torch.cat(pair) for pair in zip(known, unknown, strict=True))
    return _Rows(network, facts.numpy(), blocks.labels.repeat(2, 1))
