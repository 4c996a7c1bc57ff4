"""How the sequence models learn: one object per loss.

Shapes: B windows of a batch, L items, P predicted places, N items, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onerec.config import MOST_TRIALS, EvaluationConfig
from onerec.evaluation.baselines.loop import Plan, fit_epochs
from onerec.evaluation.baselines.transformer import SequenceModel, SequenceRanker, SequenceShape
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.ranked_lists import Ranker
from onerec.session_dataset.eval_users import EvalUsers

BATCH_SIZE = 128
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01
PATIENCE = 5
"""Epochs without a better NDCG@10 on the validation day before stopping.

These models stay at popularity's level for some epochs before they learn order: on the demo's data
SASRec for 4, BERT4Rec for more than 6 (2026-11-25), so less patience would stop them there.
"""
CUTOFF = 10

R = TypeVar("R", bound=Ranker)


@dataclass(frozen=True)
class Trial:
    """Settings of one training.

    Attributes:
        rate: Factor of the model's usual learning rate.
        dropout: Instead of the model's usual one; None keeps it.
    """

    rate: float = 1.0
    dropout: float | None = None


TRIALS = (Trial(), Trial(dropout=0.4), Trial(rate=3.0), Trial(rate=3.0, dropout=0.4))
"""In the order in which they are tried; the first is the usual one."""
assert len(TRIALS) == MOST_TRIALS


class SequenceLoss(Protocol):
    """A loss of windows; `causal` says which kind of model it trains."""

    @property
    def causal(self) -> bool: ...

    def __call__(self, model: SequenceModel, windows: Tensor, draws: torch.Generator) -> Tensor:
        """A scalar, from windows (B, L + 1) of item indices, -1 padded on the right."""
        ...


@dataclass(frozen=True)
class NextItem:
    """SASRec with the cross-entropy of a softmax over the whole catalogue."""

    causal: bool = True

    def __call__(self, model: SequenceModel, windows: Tensor, draws: torch.Generator) -> Tensor:
        """See `SequenceLoss`: every item of a window, the first from the start token."""
        hidden, wanted = _predicted(model, windows)
        return F.cross_entropy(model.scores(hidden), wanted)


@dataclass(frozen=True)
class NextItemAgainstOne:
    """SASRec as published: binary cross-entropy against one random item (Kang & McAuley 2018)."""

    causal: bool = True

    def __call__(self, model: SequenceModel, windows: Tensor, draws: torch.Generator) -> Tensor:
        """See `SequenceLoss`; the other item is none of the window's."""
        hidden, wanted = _predicted(model, windows)
        row = (windows >= 0).nonzero()[:, 0]
        other = negatives(windows, row, model.shape.num_items, draws)
        right = (hidden * model.items(wanted)).sum(-1)
        wrong = (hidden * model.items(other)).sum(-1)
        return (F.softplus(-right) + F.softplus(wrong)).mean()


@dataclass(frozen=True)
class MaskedItems:
    """BERT4Rec: items hidden at random are told from both sides (Sun et al. 2019).

    Attributes:
        share: Of the items that are hidden; at least one of a window.
        last_share: Of the windows in which only the last item is hidden, as when ranking.
    """

    share: float = 0.3
    last_share: float = 0.3
    causal: bool = False

    def __call__(self, model: SequenceModel, windows: Tensor, draws: torch.Generator) -> Tensor:
        """See `SequenceLoss`; of a full window the last L items are read."""
        read = windows[:, -model.shape.length :]
        full = (windows >= 0).all(1, keepdim=True)
        read = torch.where(full, read, windows[:, : model.shape.length])
        hidden_at = self.hide(read, draws)
        states = model(read.masked_fill(hidden_at, model.shape.num_items))[:, 1:]
        return F.cross_entropy(model.scores(states[hidden_at]), read[hidden_at])

    def hide(self, read: Tensor, draws: torch.Generator) -> Tensor:
        """(B, L) bool: which items (B, L) are to be told; never padding."""
        there = read >= 0
        chance = torch.rand(read.shape, generator=draws)
        hidden = there & (chance < self.share)
        lowest = chance.masked_fill(~there, 2.0).argmin(1, keepdim=True)
        hidden = hidden.scatter(1, lowest, True)
        last = torch.zeros_like(there).scatter(1, there.sum(1, keepdim=True) - 1, True)
        only_last = torch.rand(len(read), 1, generator=draws) < self.last_share
        return torch.where(only_last, last, hidden)


LOSSES: dict[str, SequenceLoss] = {
    "sasrec_ce": NextItem(),
    "sasrec_bce": NextItemAgainstOne(),
    "bert4rec": MaskedItems(),
}
"""Name of the baseline -> how it learns."""


def negatives(windows: Tensor, row: Tensor, num_items: int, draws: torch.Generator) -> Tensor:
    """(P,) random items, uniform over those that are not in the window of each place.

    Args:
        windows: (B, L + 1) item indices, -1 padded.
        row: (P,) the window of each place.
        num_items: N, more than a window holds.
        draws: Where the randomness comes from.
    """
    # The k-th free item: k plus the taken items that are not above it, each of them once.
    taken = windows.sort(1).values
    repeats = F.pad(taken[:, 1:] == taken[:, :-1], (1, 0))
    taken = taken.masked_fill(repeats | (taken < 0), num_items).sort(1).values
    count = (taken < num_items).sum(1)
    free_below = taken - torch.arange(taken.shape[1])  # free items below each taken one
    k = (torch.rand(len(row), generator=draws) * (num_items - count[row])).long()
    return k + (free_below[row] <= k[:, None]).logical_and(taken[row] < num_items).sum(1)


def fit_sequence_model(
    loss: SequenceLoss,
    windows: np.ndarray,
    valid: EvalUsers,
    candidates: np.ndarray,
    config: EvaluationConfig,
    *,
    on_epoch: Callable[[dict[str, float]], None] = lambda numbers: None,
) -> SequenceRanker:
    """Train one sequence model; the trial and epoch of best NDCG@10 on the validation day count.

    Args:
        loss: SASRec's or BERT4Rec's.
        windows: (W, L + 1) of the training days.
        valid: Users of the validation day; without any the last epoch counts.
        candidates: (N,) booleans: items that may be listed.
        config: `baseline_epochs`, `baseline_width`, `baseline_trials` and `seed`.
        on_epoch: Called with `trial`, `epoch`, `loss`, `recall@10`, `ndcg@10`, `seconds`.
    """
    told = torch.from_numpy(windows).long()

    def fit(
        trial: Trial, told_of: Callable[[dict[str, float]], None]
    ) -> tuple[SequenceRanker, float]:
        shape = SequenceShape(
            num_items=len(candidates),
            length=windows.shape[1] - 1,
            width=config.baseline_width,
            causal=loss.causal,
        )
        if trial.dropout is not None:
            shape = replace(shape, dropout=trial.dropout)
        model = SequenceModel(shape)
        ranker = SequenceRanker(model, candidates)
        progress = fit_epochs(
            model,
            lambda rows, draws: loss(model, told[rows], draws),
            lambda draws: torch.randperm(len(told), generator=draws).split(BATCH_SIZE),
            Plan(
                epochs=config.baseline_epochs,
                learning_rate=LEARNING_RATE * trial.rate,
                weight_decay=WEIGHT_DECAY,
                patience=PATIENCE if len(valid) else None,
            ),
            seed=config.seed,
            score=(lambda: validation(ranker, valid)) if len(valid) else None,
            on_epoch=told_of,
        )
        return ranker, progress.best_score

    return best_trial(fit, config, is_judged=len(valid) > 0, on_epoch=on_epoch)


def best_trial(
    fit: Callable[[Trial, Callable[[dict[str, float]], None]], tuple[R, float]],
    config: EvaluationConfig,
    *,
    is_judged: bool,
    on_epoch: Callable[[dict[str, float]], None],
) -> R:
    """The best of `config.baseline_trials` trainings from the same seed.

    Args:
        fit: Trains with a trial's settings; gives the system and its score, higher being better.
        config: `baseline_trials` and `seed`.
        is_judged: There is a validation day; without one only the usual settings are tried.
        on_epoch: Called with messages about every epoch, with the number of the trial.
    """
    trials = TRIALS[: config.baseline_trials if is_judged else 1]
    best: tuple[R, float] | None = None
    for number, trial in enumerate(trials, start=1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            made = fit(trial, lambda numbers, n=number: on_epoch({"trial": n, **numbers}))
        if best is None or made[1] > best[1]:
            best = made
    assert best is not None, "there is a first trial"
    return best[0]


def validation(ranker: Ranker, valid: EvalUsers) -> dict[str, float]:
    """Means over the users of a validation day at the cutoff that chooses epochs."""
    lists = ranker.rank(valid.history, CUTOFF)
    found = per_case_metrics(lists.items, valid.targets, (CUTOFF,))
    return {name: float(found[name].mean()) for name in (f"recall@{CUTOFF}", f"ndcg@{CUTOFF}")}


def _predicted(model: SequenceModel, windows: Tensor) -> tuple[Tensor, Tensor]:
    """(P, D) states before each item of the windows, and the items (P,)."""
    there = windows >= 0
    return model(windows[:, :-1])[there], windows[there]
