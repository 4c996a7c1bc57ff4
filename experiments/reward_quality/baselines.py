"""Baselines of the reward model: base rates, and gradient boosting on the same facts.

Both are fitted on blocks of the training days, like the reward model. The validation day determines
the number of trees, as it determines the reward model's epoch. The test day is not used in fitting.

Shapes: R blocks, M items of a block, H history items, N items, T signals, Dv item-vector width,
F facts.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onerec.reward.boosting import fit_booster, predicted
from onerec.session_dataset.reward_blocks import RewardBlocks

CHUNK_ROWS = 4096
"""Blocks per batch of item vectors in memory."""


@dataclass(frozen=True)
class BaseRates:
    """Constant predictions.

    Attributes:
        rates: (T,) mean labels of the training blocks.
    """

    rates: Tensor

    def score(self, blocks: RewardBlocks, vectors: Tensor) -> Tensor:
        """(R, T) probabilities in the order of `blocks.signals`."""
        return self.rates.expand(len(blocks), -1)


def fit_base_rates(train: RewardBlocks) -> BaseRates:
    """Mean labels of the training blocks."""
    return BaseRates(train.labels.double().mean(0))


def block_facts(blocks: RewardBlocks, vectors: Tensor) -> np.ndarray:
    """(R, F) features of blocks; NaN where unknown.

    In this order: items of the block and of its history; mean, then largest value of each fact of
    its items; facts of the user; mean, mean of the best and largest similarity of its items to the
    history.

    Args:
        blocks: Their labels are not used.
        vectors: (N, Dv) item vectors.
    """
    there = (blocks.items >= 0).numpy()
    known = np.where(there[..., None], blocks.item_facts.numpy(), np.nan)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(Mean of empty|All-NaN) slice", RuntimeWarning)
        of_items = np.concatenate([np.nanmean(known, 1), np.nanmax(known, 1)], -1)
    sizes = np.stack([there.sum(1), (blocks.history >= 0).sum(1).numpy()], -1)
    similar = _similarities(blocks, vectors)
    return np.concatenate([sizes, of_items, blocks.user_facts.numpy(), similar], -1)


@dataclass(frozen=True)
class LightGBM:
    """One model per tower.

    Attributes:
        overall: (T,) means of the training labels.
        boosters: One per signal; None where all training blocks have one label.
    """

    overall: np.ndarray
    boosters: tuple[Any, ...]

    def score(self, blocks: RewardBlocks, vectors: Tensor) -> Tensor:
        """(R, T) probabilities in the order of `blocks.signals`; labels are not used."""
        facts = block_facts(blocks, vectors)
        columns = [
            np.full(len(blocks), rate)
            if booster is None or not len(blocks)
            else predicted(booster, facts)
            for booster, rate in zip(self.boosters, self.overall, strict=True)
        ]
        return torch.from_numpy(np.stack(columns, -1))

    def trees(self) -> list[int]:
        """Trees used per tower."""
        return [0 if b is None else b.num_trees() for b in self.boosters]


def fit_lightgbm(
    train: RewardBlocks, valid: RewardBlocks, vectors: Tensor, *, seed: int = 0
) -> LightGBM:
    """Fit one model per tower.

    Args:
        train: Blocks of the training days.
        valid: Blocks of the validation day, for early stopping; may be empty.
        vectors: (N, Dv) item vectors.
        seed: Of LightGBM.

    Raises:
        ValueError: There is no training block.
    """
    if not len(train):
        raise ValueError("train: no block to learn from; widen window_days")
    table, held_out = (block_facts(blocks, vectors) for blocks in (train, valid))
    boosters = [
        fit_booster(signal, (table, labels), (held_out, later), seed=seed)
        if labels.min() < labels.max()
        else None
        for signal, labels, later in zip(
            train.signals, train.labels.numpy().T, valid.labels.numpy().T, strict=True
        )
    ]
    return LightGBM(train.labels.double().mean(0).numpy(), tuple(boosters))


def _similarities(blocks: RewardBlocks, vectors: Tensor) -> np.ndarray:
    """(R, 3) cosines of items and history: their mean, the mean of each item's best, the best."""
    unit = F.normalize(vectors.float(), dim=-1)
    parts = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(Mean of empty|All-NaN) slice", RuntimeWarning)
        for rows in torch.arange(len(blocks)).split(CHUNK_ROWS):
            items, history = blocks.items[rows].long(), blocks.history[rows].long()
            cosine = torch.einsum(
                "rmd,rhd->rmh", unit[items.clamp(min=0)], unit[history.clamp(min=0)]
            ).numpy()
            known = ((items >= 0)[:, :, None] & (history >= 0)[:, None, :]).numpy()
            cosine = np.where(known, cosine, np.nan)
            best = np.nanmax(cosine, axis=2)
            means = np.nanmean(cosine, axis=(1, 2)), np.nanmean(best, axis=1)
            parts.append(np.stack([*means, np.nanmax(best, axis=1)], -1))
    return np.concatenate(parts) if parts else np.zeros((0, 3))
