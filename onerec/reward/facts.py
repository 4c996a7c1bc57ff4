"""Features ("facts") that a reward model stores: those of its items on its day, and all scales.

The facts themselves are computed by `onerec.session_dataset.reward_facts`. Shapes: N items, Fi and
Fu facts, Q quantiles, R blocks, M items of a block.
"""

import numpy as np
import torch
from torch import Tensor, nn

from onerec.session_dataset.item_attributes import ItemAttributes
from onerec.session_dataset.reward_blocks import LARGEST_SHARE, RewardBlocks

SCALE_FLOOR = 1e-3
LARGEST_STANDARDISED = 5.0
"""Standardised facts are clipped to so many standard deviations."""


class RewardFacts(nn.Module):
    """Buffers of a reward model.

    Attributes:
        of_items: (N + 1, Fi) standardised facts as of the model's day; the last row is for items
            outside the model's catalogue.
        item_scale: (2, Fi) mean and standard deviation over the training blocks' items.
        user_scale: (2, Fu).
        author, category: (N + 1,) numbers, -1 where they are unknown.
        duration: (N + 1,) seconds, the median where it is unknown; 1 where the log has no
            durations, so that shares are seconds.
        share_edges: (Q - 1,) of the quantiles of the watched share.
        share_means: (Q,) mean share inside each.
    """

    of_items: Tensor
    item_scale: Tensor
    user_scale: Tensor
    author: Tensor
    category: Tensor
    duration: Tensor
    share_edges: Tensor
    share_means: Tensor

    def __init__(
        self,
        num_items: int,
        item_facts: tuple[str, ...],
        user_facts: tuple[str, ...],
        quantiles: int,
    ) -> None:
        super().__init__()
        num = len(item_facts), len(user_facts)
        described = num_items + 1 if item_facts or quantiles else 0
        unknown = torch.full((described,), -1)
        for name, values in {
            "of_items": torch.zeros(described, num[0]),
            "item_scale": torch.tensor([[0.0], [1.0]]).repeat(1, num[0]),
            "user_scale": torch.tensor([[0.0], [1.0]]).repeat(1, num[1]),
            "author": unknown,
            "category": unknown.clone(),
            "duration": torch.ones(described),
            "share_edges": torch.zeros(max(quantiles - 1, 0)),
            "share_means": torch.zeros(quantiles),
        }.items():
            self.register_buffer(name, values)

    def describe(self, of_items: Tensor, attributes: ItemAttributes, train: RewardBlocks) -> None:
        """Set the catalogue's facts, and the scales from the training blocks."""
        shown = train.items >= 0
        duration, unknown = np.ones(len(of_items)), 1.0
        if attributes.has_durations:
            unknown = float(np.nanmedian(attributes.duration_seconds))
            duration = np.nan_to_num(attributes.duration_seconds, nan=unknown)
        self.item_scale.copy_(_scale(train.item_facts[shown]))
        self.user_scale.copy_(_scale(train.user_facts))
        self.of_items[:-1] = standardised(of_items, self.item_scale)
        self.author[:-1] = torch.from_numpy(attributes.author)
        self.category[:-1] = torch.from_numpy(attributes.category)
        self.duration[:-1], self.duration[-1] = torch.from_numpy(duration), unknown
        if len(self.share_means):
            shares = self.shares(train)[shown]
            self.share_edges.copy_(share_edges(shares, len(self.share_means)))
            place = torch.bucketize(shares, self.share_edges, right=True)
            count = place.bincount(minlength=len(self.share_means))
            sums = place.bincount(shares.double(), minlength=len(self.share_means))
            self.share_means.copy_(sums / count.clamp(min=1))

    def rows(self, items: Tensor) -> Tensor:
        """Row of each item index in the buffers; the last row for padding and unknown items."""
        unknown = len(self.duration) - 1
        return torch.where((items >= 0) & (items < unknown), items, unknown)

    def shares(self, blocks: RewardBlocks) -> Tensor:
        """(R, M) watched share of each item's duration; 0 where there is no item."""
        shares = blocks.watch_seconds / self.duration[self.rows(blocks.items.long())]
        return shares.clamp(max=LARGEST_SHARE) if self.has_durations else shares

    @property
    def has_durations(self) -> bool:
        """Whether watched shares are relative to durations; otherwise they are seconds."""
        return bool((self.duration != 1).any())

    def share_quantiles(self, blocks: RewardBlocks) -> Tensor:
        """(R, M) quantile of the watched share of each item, -1 where there is no item."""
        if not len(self.share_means):
            return torch.full_like(blocks.items, -1, dtype=torch.long)
        place = torch.bucketize(self.shares(blocks), self.share_edges, right=True)
        return place.masked_fill(blocks.items < 0, -1)


def share_edges(shares: Tensor, quantiles: int) -> Tensor:
    """(Q - 1,) edges between equally frequent shares; equal edges leave quantiles empty.

    >>> share_edges(torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]), 2)
    tensor([2.])
    """
    at = np.linspace(0, 1, quantiles + 1)[1:-1]
    return torch.from_numpy(np.quantile(shares.numpy(), at)).to(shares.dtype)


def standardised(facts: Tensor, scale: Tensor) -> Tensor:
    """Facts (..., F) in standard deviations from their mean; 0 where unknown."""
    return (
        ((facts - scale[0]) / scale[1])
        .clamp(-LARGEST_STANDARDISED, LARGEST_STANDARDISED)
        .nan_to_num(0.0)
    )


def _scale(facts: Tensor) -> Tensor:
    """(2, F) mean and standard deviation of rows (R, F), NaN left out."""
    known = torch.isfinite(facts)
    num = known.sum(0).clamp(min=1)
    values = torch.where(known, facts, 0.0).double()
    mean = values.sum(0) / num
    variance = torch.where(known, (values - mean) ** 2, 0.0).sum(0) / num
    return torch.stack([mean, variance.sqrt().clamp(min=SCALE_FLOOR)]).float()
