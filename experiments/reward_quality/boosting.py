"""Baselines of the reward model: base rates, and gradient boosting on hand-made features.

Both are fitted on blocks of the training days, as the reward model is. The validation day says how
many trees are enough, as it says which epoch of the reward model is kept. Nothing of the test day
reaches either.

Shapes: R blocks, M items of a block, H history items, N items, D days, T signals,
Dv item-vector width, F facts.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import lightgbm
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onerec.config.feedback import Signal
from onerec.session_dataset.reward_blocks import RewardBlocks

SMOOTHING = 10.0
"""Imagined blocks of average kind that every item has been in: few blocks say little."""
PARAMETERS: dict[str, Any] = {
    "objective": "binary",
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
    "metric": "binary_logloss",
}
MAX_TREES = 400
PATIENCE = 40
"""Trees without a better log-loss on the validation day before stopping."""
CHUNK_ROWS = 4096
"""Blocks whose item vectors are in memory at once."""


def facts_of(signals: Sequence[Signal]) -> tuple[str, ...]:
    """What boosting knows of a block: how much there is, when, how often its items were shown and
    with what result on other days, and how near they are to the history. F names."""
    return (
        "items",
        "history_items",
        "place",
        "hour",
        *(f"{how}_shown" for how in ("mean", "min", "max")),
        *(f"{how}_{signal.name}" for signal in signals for how in ("mean", "max")),
        "mean_similarity",
        "mean_best_similarity",
        "max_similarity",
    )


class Scorer(Protocol):
    """Anything that says how probable the signals of a block are."""

    def score(self, blocks: RewardBlocks, vectors: Tensor) -> Tensor:
        """(R, T) probabilities in the order of `blocks.signals`; labels are not looked at."""
        ...


@dataclass(frozen=True)
class BaseRates:
    """The same for every block.

    Attributes:
        rates: (T,) of the training blocks.
    """

    rates: Tensor

    def score(self, blocks: RewardBlocks, vectors: Tensor) -> Tensor:
        """See `Scorer.score`."""
        return self.rates.expand(len(blocks), -1)


def fit_base_rates(train: RewardBlocks) -> BaseRates:
    """Mean labels of the training blocks."""
    return BaseRates(train.labels.double().mean(0))


@dataclass(frozen=True)
class ItemRecord:
    """What came of the blocks that items were in, day by day.

    Attributes:
        days: (D,) datetime64[D], the training days in order.
        shown: (D, N) blocks.
        labels: (D, N, T) their labels' sums.
        overall: (T,) rates of all training blocks.
    """

    days: np.ndarray
    shown: np.ndarray
    labels: np.ndarray
    overall: np.ndarray

    def elsewhere(self, item: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Blocks (E,) and smoothed rates (E, T) of items on all training days but the given one.

        A training block would otherwise find its own labels among the facts it is explained by.

        Args:
            item: (E,) item indices.
            day: (E,) datetime64[D]; one that is no training day takes nothing away.
        """
        place = np.minimum(np.searchsorted(self.days, day), len(self.days) - 1)
        own = self.days[place] == day
        shown = self.shown.sum(0)[item] - self.shown[place, item] * own
        labels = self.labels.sum(0)[item] - self.labels[place, item] * own[:, None]
        smoothed = (labels + SMOOTHING * self.overall) / (shown + SMOOTHING)[:, None]
        return shown, smoothed


def item_record(train: RewardBlocks, num_items: int) -> ItemRecord:
    """Count the training blocks per day and item."""
    days, day = np.unique(train.date, return_inverse=True)
    row, place = np.nonzero(train.items.numpy() >= 0)
    key = day[row] * num_items + train.items.numpy()[row, place]
    labels = train.labels.double().numpy()
    size = len(days) * num_items
    sums = [np.bincount(key, labels[row, i], minlength=size) for i in range(labels.shape[1])]
    return ItemRecord(
        days=days,
        shown=np.bincount(key, minlength=size).reshape(len(days), num_items).astype(float),
        labels=np.stack(sums, -1).reshape(len(days), num_items, labels.shape[1]),
        overall=labels.mean(0),
    )


def block_facts(blocks: RewardBlocks, record: ItemRecord, vectors: Tensor) -> np.ndarray:
    """(R, F) facts in the order of `facts_of`; NaN where a block has no history.

    Args:
        blocks: Their labels are not looked at.
        record: Of the training days.
        vectors: (N, Dv) item vectors.
    """
    items = blocks.items.numpy()
    there = items >= 0
    row, place = np.nonzero(there)
    shown, rates = record.elsewhere(items[row, place], blocks.date[row])
    columns = [
        there.sum(1),
        (blocks.history >= 0).sum(1).numpy(),
        blocks.place.numpy(),
        blocks.hour,
        *_over_items(np.log1p(shown), there, ("mean", "min", "max")),
    ]
    for tower in range(rates.shape[1]):
        columns += _over_items(rates[:, tower], there, ("mean", "max"))
    return np.stack([*columns, *_similarities(blocks, vectors).T], -1)


@dataclass(frozen=True)
class Boosting:
    """LightGBM, one model per tower.

    Attributes:
        record: Of the training days.
        boosters: One per signal; None where all training blocks have one label.
    """

    record: ItemRecord
    boosters: tuple[Any, ...]

    def score(self, blocks: RewardBlocks, vectors: Tensor) -> Tensor:
        """See `Scorer.score`."""
        facts = block_facts(blocks, self.record, vectors)
        columns = [
            np.full(len(blocks), rate)
            if booster is None or not len(blocks)
            else booster.predict(facts, num_threads=1)
            for booster, rate in zip(self.boosters, self.record.overall, strict=True)
        ]
        return torch.from_numpy(np.stack(columns, -1))

    def trees(self) -> list[int]:
        """Trees used per tower."""
        return [0 if b is None else b.best_iteration or b.num_trees() for b in self.boosters]


def fit_boosting(
    train: RewardBlocks, valid: RewardBlocks, vectors: Tensor, *, seed: int = 0
) -> Boosting:
    """Fit one model per tower.

    Args:
        train: Blocks of the training days.
        valid: Blocks of the validation day, for the number of trees; without any all are kept.
        vectors: (N, Dv) item vectors.
        seed: Of LightGBM.

    Raises:
        ValueError: There is no training block.
    """
    if not len(train):
        raise ValueError("train: no block to learn from; widen window_days")
    record = item_record(train, len(vectors))
    table, held_out = (block_facts(blocks, record, vectors) for blocks in (train, valid))
    parameters = {**PARAMETERS, "seed": seed}
    boosters = []
    for labels, later in zip(*map(_columns, (train, valid)), strict=True):
        if labels.min() == labels.max():
            boosters.append(None)
            continue
        data = lightgbm.Dataset(table, label=labels, feature_name=list(facts_of(train.signals)))
        stopping: dict[str, Any] = {}
        if len(valid):
            stopping["valid_sets"] = [data.create_valid(held_out, label=later)]
            stopping["callbacks"] = [lightgbm.early_stopping(PATIENCE, verbose=False)]
        boosters.append(lightgbm.train(parameters, data, num_boost_round=MAX_TREES, **stopping))
    return Boosting(record, tuple(boosters))


def _columns(blocks: RewardBlocks) -> np.ndarray:
    """(T, R) labels, each tower's one after the other in memory, as LightGBM wants them."""
    return np.ascontiguousarray(blocks.labels.numpy().T)


def _over_items(values: np.ndarray, there: np.ndarray, how: tuple[str, ...]) -> list[np.ndarray]:
    """Columns (R,): mean, min or max of one value per item that is there."""
    table = np.full(there.shape, np.nan)
    table[there] = values
    functions = {"mean": np.nanmean, "min": np.nanmin, "max": np.nanmax}
    return [functions[name](table, axis=1) for name in how]  # every block has an item


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
