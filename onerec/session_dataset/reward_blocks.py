"""Consecutive exposures with labels, to train a reward model on."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from onerec.catalogue import Catalogue
from onerec.session_dataset.padding import first_of_each, last_of_each, positions
from onerec.session_dataset.reader import (
    Ints,
    dates_of,
    exposure_numbers,
    items_of,
    known_items_of,
    read_sessions,
    users_of,
)

REWARD_LABELS = ("swt", "vtr", "wtr", "ltr")
"""Order of the reward labels and of everything predicted from them."""

_FEEDBACK = ("watch_seconds", "is_watched", "is_follow", "is_like")


@dataclass(frozen=True, kw_only=True)
class RewardThresholds:
    """What the label `swt` compares with.

    Attributes:
        mean_watch_seconds: Median over the training blocks of the seconds watched per item.
    """

    mean_watch_seconds: float


@dataclass(frozen=True, kw_only=True)
class RewardBlocks:
    """R blocks of U users; item indices, -1 padded on the right.

    Attributes:
        user: (R,) int64, rows of `user_ids`.
        user_ids: (U,) the users, sorted.
        history: (R, H) int32 item indices: the positives before the block's session.
        items: (R, M) int32 item indices, at least one of them not -1.
        labels: (R, 4) float32 of zeros and ones in the order of `REWARD_LABELS`.
        session: (R,) int64, equal for the blocks of one session.
        place: (R,) int64, 0 for the first block of a session.
        date: (R,) datetime64[D], the UTC day of the session.
        hour: (R,) float64, the hour of that day at which the session began.
        thresholds: What `swt` was compared with.
    """

    user: Tensor
    user_ids: np.ndarray
    history: Tensor
    items: Tensor
    labels: Tensor
    session: Tensor
    place: Tensor
    date: np.ndarray
    hour: np.ndarray
    thresholds: RewardThresholds

    def __len__(self) -> int:
        return len(self.items)

    def rows(self, kept: Tensor) -> "RewardBlocks":
        """Some of the blocks, by (R,) bools or by row numbers; users keep theirs."""
        tensors = ("user", "history", "items", "labels", "session", "place")
        arrays = ("date", "hour")
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
) -> RewardBlocks:
    """Cut every session of a split, good or not, into blocks of consecutive exposures.

    A session's known exposures 1..M are its first block, M+1..2M the second, and so on; the last
    may be shorter. All of them carry the session's history. The paper names the four targets but
    not how they become binary (OneRec v1, section 3.3.1); here a block's label is

    - `swt` (session watch time): its watch seconds per item reach the training split's median,
    - `vtr` (view rate): at least half of its items were watched effectively,
    - `wtr` (follow rate): it brought a follow,
    - `ltr` (like rate): it brought a like.

    Args:
        directory: Files of a `session_dataset` artifact.
        split: `train`, `valid` or `test`.
        catalogue: Exposures of items it does not know are dropped.
        history_length: H, the last known items of a history that are kept.
        block_items: M, exposures per block.
        thresholds: What `swt` compares with; by default those of the training split.

    Raises:
        ValueError: The split is unknown, a column is missing, or there is no training exposure to
            take the threshold from.
    """
    columns = ["user_id", "session_date", "started_at", "history_item_ids", "item_ids", *_FEEDBACK]
    table = read_sessions(directory, [split], columns)
    cut = _cut_blocks(table, catalogue, block_items)
    if thresholds is None:
        thresholds = (
            _thresholds(cut)
            if split == "train"
            else reward_thresholds(directory, catalogue, block_items=block_items)
        )
    history = last_of_each(
        *known_items_of(table, "history_item_ids", catalogue), table.num_rows, history_length
    )
    user_ids, user = users_of(table.select(["user_id"]).take(pa.array(cut.session)))
    started = table.column("started_at").to_numpy().astype("datetime64[us]")[cut.session]
    return RewardBlocks(
        user=torch.from_numpy(user),
        user_ids=user_ids,
        history=torch.from_numpy(history[cut.session]),
        items=torch.from_numpy(first_of_each(cut.items, cut.block, len(cut.session), block_items)),
        labels=torch.from_numpy(_labels(cut, thresholds)),
        session=torch.from_numpy(cut.session),
        place=torch.from_numpy(positions(cut.session, table.num_rows)),
        date=dates_of(table)[cut.session],
        hour=(started - started.astype("datetime64[D]")) / np.timedelta64(1, "h"),
        thresholds=thresholds,
    )


def reward_thresholds(
    directory: Path, catalogue: Catalogue, *, block_items: int
) -> RewardThresholds:
    """Thresholds of the reward labels, from the training split alone.

    Raises:
        ValueError: The training split has no exposure of a known item.
    """
    table = read_sessions(directory, ["train"], ["item_ids", *_FEEDBACK])
    return _thresholds(_cut_blocks(table, catalogue, block_items))


@dataclass(frozen=True)
class _Blocks:
    """Exposures of known items, cut into blocks: `items`, `block` and `feedback` have one entry an
    exposure, `session` (a row of the table) one a block."""

    items: Ints
    block: Ints
    session: Ints
    feedback: dict[str, npt.NDArray[np.float64]]

    def mean(self, column: str) -> npt.NDArray[np.float64]:
        num = len(self.session)
        total = np.bincount(self.block, weights=self.feedback[column], minlength=num)
        return total / np.maximum(np.bincount(self.block, minlength=num), 1)


def _cut_blocks(table: pa.Table, catalogue: Catalogue, block_items: int) -> _Blocks:
    items, session = items_of(table, "item_ids", catalogue)
    known = items >= 0
    items, session = items[known], session[known]
    opens = positions(session, table.num_rows) % block_items == 0
    return _Blocks(
        items=items,
        block=np.cumsum(opens) - 1,
        session=session[opens],
        feedback={name: exposure_numbers(table, name)[known] for name in _FEEDBACK},
    )


def _labels(cut: _Blocks, thresholds: RewardThresholds) -> npt.NDArray[np.float32]:
    """(R, 4) zeros and ones, in the order of `REWARD_LABELS`."""
    labels = (
        cut.mean("watch_seconds") >= thresholds.mean_watch_seconds,
        cut.mean("is_watched") >= 0.5,
        cut.mean("is_follow") > 0,
        cut.mean("is_like") > 0,
    )
    return np.stack(labels, axis=-1).astype(np.float32)


def _thresholds(cut: _Blocks) -> RewardThresholds:
    if not len(cut.session):
        raise ValueError(
            "the training split has no exposure of an item with a semantic ID, so reward labels "
            "have no threshold: widen window_days, or check that semantic_ids covers these days"
        )
    median = float(np.median(cut.mean("watch_seconds")))
    # When most blocks were not watched at all the median is 0, and `>= 0` would hold for every one.
    return RewardThresholds(mean_watch_seconds=max(median, float(np.finfo(np.float64).tiny)))
