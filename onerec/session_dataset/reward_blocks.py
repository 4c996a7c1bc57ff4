"""Consecutive exposures with labels, to train a reward model on."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from onerec.catalogue import Catalogue
from onerec.config.feedback import CONTINUED, VIDEO_SIGNALS, WATCH_SECONDS, WATCH_SHARE, Signal
from onerec.session_dataset.item_attributes import ItemAttributes
from onerec.session_dataset.padding import first_of_each, last_of_each, positions
from onerec.session_dataset.reader import (
    Ints,
    dates_of,
    exposure_numbers,
    exposure_signals,
    items_of,
    known_items_of,
    read_sessions,
    read_signals,
    users_of,
)

if TYPE_CHECKING:
    from onerec.session_dataset.reward_facts import ExposureLog

_FEEDBACK = ("watch_seconds", "signals")
LARGEST_SHARE = 2.0
"""Largest watched share of an item that counts: two full views."""


@dataclass(frozen=True, kw_only=True)
class RewardThresholds:
    """Which labels there are and their thresholds, learned from the training days.

    Attributes:
        mean_watch_seconds: Median over the training blocks of the seconds watched per item, which
            a signal of `median_watch_seconds` compares with.
        signals: Declared signals with positive and negative training blocks, or `CONTINUED` where
            there is none; then `WATCH_SECONDS` and `WATCH_SHARE` where the log has watch times and
            item attributes are known.
        missing: Names of declared signals left out because training blocks have one class only.
    """

    mean_watch_seconds: float
    signals: tuple[Signal, ...] = VIDEO_SIGNALS
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RewardBlocks:
    """R blocks of U users; item indices, -1 padded on the right.

    Attributes:
        user: (R,) int64, rows of `user_ids`.
        user_ids: (U,) the users, sorted.
        history: (R, H) int32 item indices: the positives before the block's session.
        items: (R, M) int32 item indices, at least one of them not -1.
        watch_seconds: (R, M) float32, how long each item was watched; 0 where there is none.
        labels: (R, T) float32 in the order of `signals`: zeros and ones, or for the expectations
            means over the block's items.
        session: (R,) int64, equal for the blocks of one session.
        place: (R,) int64, 0 for the first block of a session.
        date: (R,) datetime64[D], the day of the session, in the log's time zone.
        started_at: (R,) datetime64[us], UTC, when the session began.
        thresholds: Thresholds and signals of the labels.
        item_facts: (R, M, Fi) float32, see `reward_facts`; Fi is 0 without facts.
        user_facts: (R, Fu) float32.
        log: The exposures that the facts are computed from.
    """

    user: Tensor
    user_ids: np.ndarray
    history: Tensor
    items: Tensor
    watch_seconds: Tensor
    labels: Tensor
    session: Tensor
    place: Tensor
    date: np.ndarray
    started_at: np.ndarray
    thresholds: RewardThresholds
    item_facts: Tensor = field(default_factory=lambda: torch.zeros(0))
    user_facts: Tensor = field(default_factory=lambda: torch.zeros(0))
    log: "ExposureLog | None" = None

    def __post_init__(self) -> None:
        if not len(self.item_facts):  # without facts: tensors of width 0
            without = {"item_facts": torch.zeros(*self.items.shape, 0)}
            without["user_facts"] = torch.zeros(len(self.items), 0)
            for name, nothing in without.items():
                object.__setattr__(self, name, nothing)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def hour(self) -> np.ndarray:
        """(R,) float64, the UTC hour at which the session began."""
        return (self.started_at - self.started_at.astype("datetime64[D]")) / np.timedelta64(1, "h")

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The T signals that the labels are of."""
        return self.thresholds.signals

    def rows(self, kept: Tensor) -> "RewardBlocks":
        """Select blocks by (R,) bools or row numbers; `user_ids` stays as it is."""
        tensors = (
            "user",
            "history",
            "items",
            "watch_seconds",
            "labels",
            "session",
            "place",
            "item_facts",
            "user_facts",
        )
        arrays = ("date", "started_at")
        return dataclasses.replace(
            self,
            **{name: getattr(self, name)[kept] for name in tensors},
            **{name: getattr(self, name)[kept.numpy()] for name in arrays},
        )


def load_reward_blocks(
    directory: Path,
    split: str,
    catalogue: Catalogue,
    *,
    history_length: int,
    block_items: int,
    thresholds: RewardThresholds | None = None,
    attributes: ItemAttributes | None = None,
) -> RewardBlocks:
    """Cut every session of a split, good or not, into blocks of consecutive exposures.

    A session's known exposures 1..M are its first block, M+1..2M the second, and so on; the last
    may be shorter. All blocks share the session's history. The paper names four targets but not how
    they are binarised (OneRec v1, section 3.3.1); here every declared signal of which training
    blocks have both classes is a label (`onerec.config.feedback.Signal`). In a video log:

    - `swt` (session watch time): its watch seconds per item reach the training split's median,
    - `vtr` (view rate): at least half of its items were watched effectively,
    - `wtr` (follow rate): it brought a follow,
    - `ltr` (like rate): it brought a like.

    With attributes and watch times also `watch_seconds` per item, and `watch_share` of durations.

    Args:
        directory: Files of a `session_dataset` artifact.
        split: `train`, `valid` or `test`.
        catalogue: Exposures of items it does not know are dropped.
        history_length: H, the last known items of a history that are kept.
        block_items: M, exposures per block.
        thresholds: Thresholds of the labels; by default those of the training split.
        attributes: Item attributes; without them there is no watched share.

    Raises:
        ValueError: A column is missing, or no signal of the training split has both classes.
    """
    columns = ["user_id", "session_date", "started_at", "history_item_ids", "item_ids", *_FEEDBACK]
    table = read_sessions(directory, [split], columns)
    cut = _cut_blocks(table, catalogue, block_items, read_signals(directory))
    if thresholds is None:
        learned = cut if split == "train" else None
        thresholds = _thresholds_of(directory, catalogue, learned, block_items, attributes)
    history = last_of_each(
        *known_items_of(table, "history_item_ids", catalogue), table.num_rows, history_length
    )
    user_ids, user = users_of(table.select(["user_id"]).take(pa.array(cut.session)))
    started = table.column("started_at").to_numpy().astype("datetime64[us]")
    return RewardBlocks(
        user=torch.from_numpy(user),
        user_ids=user_ids,
        history=torch.from_numpy(history[cut.session]),
        items=torch.from_numpy(first_of_each(cut.items, cut.block, len(cut.session), block_items)),
        watch_seconds=torch.from_numpy(cut.watched_by_item(block_items)),
        labels=torch.from_numpy(_labels(cut, thresholds, attributes)),
        session=torch.from_numpy(cut.session),
        place=torch.from_numpy(positions(cut.session, table.num_rows)),
        date=dates_of(table)[cut.session],
        started_at=started[cut.session],
        thresholds=thresholds,
    )


def _thresholds_of(
    directory: Path,
    catalogue: Catalogue,
    learned: "_Blocks | None",
    block_items: int,
    attributes: ItemAttributes | None,
) -> RewardThresholds:
    """Thresholds of the training split, whose blocks are read unless `learned` has them."""
    declared = read_signals(directory)
    if learned is None:
        table = read_sessions(directory, ["train"], ["item_ids", *_FEEDBACK])
        learned = _cut_blocks(table, catalogue, block_items, declared)
    return _thresholds(learned, declared, attributes)


@dataclass(frozen=True)
class _Blocks:
    """Exposures of known items, cut into blocks.

    Attributes:
        items: (E,) item indices.
        block: (E,) the block of each.
        session: (R,) row of the table of each block.
        watch_seconds: (E,).
        met: By name of a declared signal, (E,) booleans: the exposure meets its condition.
        goes_on: (R,) booleans: the session has a further block.
    """

    items: Ints
    block: Ints
    session: Ints
    watch_seconds: npt.NDArray[np.float64]
    met: dict[str, npt.NDArray[np.bool_]]
    goes_on: npt.NDArray[np.bool_]

    def mean(self, values: np.ndarray) -> npt.NDArray[np.float64]:
        """(R,) means of a number per exposure (E,)."""
        num = len(self.session)
        total = np.bincount(self.block, weights=values, minlength=num)
        return total / np.maximum(np.bincount(self.block, minlength=num), 1)

    def watched_by_item(self, block_items: int) -> npt.NDArray[np.float32]:
        """(R, M) seconds that each item was watched."""
        seconds = np.zeros((len(self.session), block_items), dtype=np.float32)
        seconds[self.block, positions(self.block, len(self.session))] = self.watch_seconds
        return seconds

    def label(self, signal: Signal, mean_watch_seconds: float) -> npt.NDArray[np.bool_]:
        """(R,) booleans: the blocks that are positive for a signal."""
        if signal.of_block == "continued":
            return self.goes_on
        if signal.of_block == "median_watch_seconds":
            return self.mean(self.watch_seconds) >= mean_watch_seconds
        share = self.mean(self.met[signal.name])
        return share >= 0.5 if signal.of_block == "half" else share > 0


def _cut_blocks(
    table: pa.Table, catalogue: Catalogue, block_items: int, declared: tuple[Signal, ...]
) -> _Blocks:
    items, session = items_of(table, "item_ids", catalogue)
    known = items >= 0
    items, session = items[known], session[known]
    opens = positions(session, table.num_rows) % block_items == 0
    of_block = session[opens]
    met = exposure_signals(table, len(declared))[known]
    return _Blocks(
        items=items,
        block=np.cumsum(opens) - 1,
        session=of_block,
        watch_seconds=exposure_numbers(table, "watch_seconds")[known],
        met={signal.name: met[:, i] for i, signal in enumerate(declared)},
        goes_on=np.append(of_block[1:] == of_block[:-1], False)[: len(of_block)],
    )


def _labels(
    cut: _Blocks, thresholds: RewardThresholds, attributes: ItemAttributes | None
) -> npt.NDArray[np.float32]:
    """(R, T) in the order of the signals."""

    def label(signal: Signal) -> np.ndarray:
        if not signal.is_expectation:
            return cut.label(signal, thresholds.mean_watch_seconds)
        watched = cut.watch_seconds
        if signal == WATCH_SHARE:
            assert attributes is not None, "the share watched needs durations"
            watched = watched_share(watched, attributes.duration_seconds[cut.items])
        return cut.mean(watched)

    return np.stack([label(s) for s in thresholds.signals], axis=-1).astype(np.float32)


def watched_share(seconds: np.ndarray, duration: np.ndarray) -> np.ndarray:
    """Share of a duration that was watched; 0 where the duration is unknown.

    Capped at `LARGEST_SHARE`: higher shares come from players that were left running.

    >>> watched_share(np.array([5.0, 90.0, 3.0]), np.array([10.0, 10.0, np.nan])).tolist()
    [0.5, 2.0, 0.0]
    """
    return np.nan_to_num(np.minimum(seconds / duration, LARGEST_SHARE))


def _thresholds(
    cut: _Blocks, declared: tuple[Signal, ...], attributes: ItemAttributes | None
) -> RewardThresholds:
    if not len(cut.session):
        raise ValueError(
            "the training split has no exposure of an item with a semantic ID, so reward labels "
            "have no threshold: widen window_days, or check that semantic_ids covers these days"
        )
    median = float(np.median(cut.mean(cut.watch_seconds)))
    # When most blocks were not watched at all the median is 0, and `>= 0` would hold for every one.
    median = max(median, float(np.finfo(np.float64).tiny))

    def in_both_classes(signal: Signal) -> bool:
        label = cut.label(signal, median)
        return bool(label.any() and not label.all())

    found = tuple(signal for signal in declared if in_both_classes(signal))
    missing = tuple(signal.name for signal in declared if signal not in found)
    if not found and in_both_classes(CONTINUED):
        found = (CONTINUED,)
    if not found:
        raise ValueError(
            f"signals {', '.join(missing)}: none of them varies over the training blocks (all "
            "have it, or none), and every session is one block, so that a reward model has nothing "
            "to learn; declare feedback.signals, or use longer sessions (session_mode: user_day)"
        )
    if attributes is not None and cut.watch_seconds.any():
        found += (WATCH_SECONDS, WATCH_SHARE) if attributes.has_durations else (WATCH_SECONDS,)
    return RewardThresholds(mean_watch_seconds=median, signals=found, missing=missing)
