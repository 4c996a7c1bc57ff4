"""Losses of the sequence models: one object per loss.

Shapes: B windows of a batch, L items, P predicted items of all windows, N items, D width.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from onerec.evaluation.baselines.transformer import BlockKind, SequenceModel


class SequenceLoss(Protocol):
    """A loss of windows; `causal` and `block` say which kind of model it trains.

    Masks and negatives are drawn from a generator of their own.
    """

    @property
    def causal(self) -> bool: ...

    @property
    def block(self) -> BlockKind: ...

    def __call__(
        self,
        model: SequenceModel,
        windows: Tensor,
        learned: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """A scalar.

        Args:
            model: What is trained.
            windows: (B, L + 1) item indices, -1 padded on the right.
            learned: (B, L + 1) bool: the items that are predicted, at least one of a window and
                none of the padding; the others are read.
            generator: Of masks and negatives.
        """
        ...


@dataclass(frozen=True)
class NextItem:
    """SASRec with the cross-entropy of a softmax over the whole catalogue."""

    causal: bool = True
    block: BlockKind = "transformer"

    def __call__(
        self,
        model: SequenceModel,
        windows: Tensor,
        learned: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """See `SequenceLoss`: items of a window, the first one from the start token."""
        hidden, target = _states_and_targets(model, windows, learned)
        return F.cross_entropy(model.scores(hidden), target)


@dataclass(frozen=True)
class NextItemOneNegative:
    """SASRec as published: binary cross-entropy with one random negative (Kang & McAuley 2018)."""

    causal: bool = True
    block: BlockKind = "transformer"

    def __call__(
        self,
        model: SequenceModel,
        windows: Tensor,
        learned: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """See `SequenceLoss`; the negative is no item of the window."""
        hidden, target = _states_and_targets(model, windows, learned)
        row = learned.nonzero()[:, 0]
        negative = negatives(windows, row, model.shape.num_items, generator)
        positive_score = (hidden * model.items(target)).sum(-1)
        negative_score = (hidden * model.items(negative)).sum(-1)
        return (F.softplus(-positive_score) + F.softplus(negative_score)).mean()


@dataclass(frozen=True)
class NextItemSampledSoftmax:
    """SASRec with a softmax over the next item and items drawn uniformly, for each prediction anew
    (Klenitskiy & Vasilev 2023; eSASRec, 2025).

    Attributes:
        negatives: Items drawn for each prediction; none of them is in the window.
    """

    negatives: int = 256
    causal: bool = True
    block: BlockKind = "transformer"

    def __call__(
        self,
        model: SequenceModel,
        windows: Tensor,
        learned: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """See `SequenceLoss`; the right item is the first of each softmax."""
        hidden, target = _states_and_targets(model, windows, learned)
        row = learned.nonzero()[:, :1].expand(-1, self.negatives).flatten()
        drawn = negatives(windows, row, model.shape.num_items, generator)
        offered = torch.cat([target[:, None], drawn.view(-1, self.negatives)], 1)
        logits = (model.items(offered) @ hidden.unsqueeze(-1)).squeeze(-1)
        return F.cross_entropy(logits, torch.zeros_like(target))


@dataclass(frozen=True)
class MaskedItems:
    """BERT4Rec: items masked at random are predicted from both sides (Sun et al. 2019).

    Attributes:
        share: Of the items that are masked; at least one of a window.
        last_share: Of the windows in which only the last item is masked, as when ranking.
    """

    share: float = 0.3
    last_share: float = 0.3
    causal: bool = False
    block: BlockKind = "transformer"

    def __call__(
        self,
        model: SequenceModel,
        windows: Tensor,
        learned: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """See `SequenceLoss`; of a full window the last L items are read."""
        length, full = model.shape.length, (windows >= 0).all(1, keepdim=True)
        items, learned = (
            torch.where(full, rows[:, -length:], rows[:, :length]) for rows in (windows, learned)
        )
        masked = self.mask(items, learned, generator)
        states = model(items.masked_fill(masked, model.shape.num_items))[:, 1:]
        return F.cross_entropy(model.scores(states[masked]), items[masked])

    def mask(self, items: Tensor, learned: Tensor, generator: torch.Generator) -> Tensor:
        """(B, L) bool: which of the items (B, L) are masked; the last one or learned ones."""
        present = items >= 0
        uniform = torch.rand(items.shape, generator=generator).to(items.device)
        masked = learned & (uniform < self.share)
        lowest = uniform.masked_fill(~learned, 2.0).argmin(1, keepdim=True)
        masked = masked.scatter(1, lowest, True)
        last = torch.zeros_like(present).scatter(1, present.sum(1, keepdim=True) - 1, True)
        only_last = torch.rand(len(items), 1, generator=generator) < self.last_share
        return torch.where(only_last.to(items.device), last, masked)


LOSSES: dict[str, SequenceLoss] = {
    "sasrec_ce": NextItem(),
    "sasrec_bce": NextItemOneNegative(),
    "sasrec_ss": NextItemSampledSoftmax(),
    "esasrec": NextItemSampledSoftmax(block="ligr"),
    "bert4rec": MaskedItems(),
}
"""Name of the baseline -> its loss."""


def negatives(windows: Tensor, row: Tensor, num_items: int, generator: torch.Generator) -> Tensor:
    """(P,) random items, uniform over those that are not in the window of each prediction.

    Args:
        windows: (B, L + 1) item indices, -1 padded.
        row: (P,) the window of each prediction.
        num_items: N, more than a window holds.
        generator: Source of the randomness.
    """
    # The k-th free item: k plus the taken items that are not above it, each of them once.
    taken = windows.sort(1).values
    repeats = F.pad(taken[:, 1:] == taken[:, :-1], (1, 0))
    taken = taken.masked_fill(repeats | (taken < 0), num_items).sort(1).values
    count = (taken < num_items).sum(1)
    places = torch.arange(taken.shape[1], device=taken.device)
    free_below = taken - places  # free items below each taken one
    uniform = torch.rand(len(row), generator=generator).to(taken.device)
    k = (uniform * (num_items - count[row])).long()
    return k + (free_below[row] <= k[:, None]).logical_and(taken[row] < num_items).sum(1)


def _states_and_targets(
    model: SequenceModel, windows: Tensor, learned: Tensor
) -> tuple[Tensor, Tensor]:
    """(P, D) states before each learned item of the windows, and the items (P,)."""
    return model(windows[:, :-1])[learned], windows[learned]
