"""From the `session_dataset` artifact's Parquet to padded tensors of item indices.

Ids become rows of the semantic-ID table; items it does not know are dropped and what is left
closes up. -1 pads on the right. Everything is done on flat values and row numbers (a list column is
exactly that), so that no Python loop runs over sessions.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import torch
from torch import Tensor

from onerec.datasets.list_columns import (
    Array,
    first_of_each,
    flags,
    flat_values,
    items_of,
    known_items_of,
    last_of_each,
    positions,
    strings,
)
from onerec.schema import SESSION_DATASET, SPLITS
from onerec.tokenizer.semantic_ids import SemanticIds

REWARD_LABELS = ("swt", "vtr", "wtr", "ltr")
"""Order of the reward labels and of everything predicted from them."""


@dataclass(frozen=True, kw_only=True)
class SessionTensors:
    """Sessions to train a generator on.

    Attributes:
        user: (S,) int64, rows of `user_ids`.
        user_ids: (U,) the users, sorted.
        history: (S, H) int32 item indices, oldest first; may be all -1.
        targets: (S, M) int32 item indices in watching order; at least one is not -1.
        is_good: (S,) bool.
        date: (S,) datetime64[D], the UTC day.
    """

    user: Tensor
    user_ids: Array
    history: Tensor
    targets: Tensor
    is_good: Tensor
    date: Array

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, kw_only=True)
class RewardThresholds:
    """What the label `swt` compares with.

    Attributes:
        mean_watch_seconds: Median over the training blocks of the seconds watched per item.
    """

    mean_watch_seconds: float


@dataclass(frozen=True, kw_only=True)
class RewardBlocks:
    """Consecutive exposures with feedback, to train a reward model on.

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
    user_ids: Array
    history: Tensor
    items: Tensor
    labels: Tensor
    session: Tensor
    place: Tensor
    date: Array
    hour: Array
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


@dataclass(frozen=True, kw_only=True)
class Cases:
    """Users of the test day and what they watched on it.

    Attributes:
        user_ids: (C,) the users, sorted.
        history: (C, H) int32 item indices: positives before the user's first session of the day.
        targets: (C, Tmax) int32 item indices, each once, in watching order; -1 pads.
    """

    user_ids: Array
    history: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.user_ids)


def load_session_tensors(
    directory: Path,
    split: str,
    semantic_ids: SemanticIds,
    *,
    history_length: int,
    session_items: int,
    good_only: bool,
) -> SessionTensors:
    """Read the sessions of one split; those without a known target are left out.

    Args:
        directory: Files of a `session_dataset` artifact.
        split: `train`, `valid` or `test`.
        semantic_ids: The catalogue.
        history_length: H, the last known items of a history that are kept.
        session_items: M, the first known targets that are kept.
        good_only: Leave out sessions that are not good.

    Raises:
        ValueError: The split is unknown, or a column is missing.
    """
    columns = ["user_id", "session_date", "history_item_ids", "target_item_ids", "is_good"]
    table = read_sessions(directory, [split], columns, good_only=good_only)
    num = table.num_rows
    targets = first_of_each(
        *known_items_of(table, "target_item_ids", semantic_ids), num, session_items
    )
    keep = np.flatnonzero(targets[:, 0] >= 0)
    history = last_of_each(
        *known_items_of(table, "history_item_ids", semantic_ids), num, history_length
    )
    user_ids, user = np.unique(strings(table, "user_id")[keep], return_inverse=True)
    return SessionTensors(
        user=torch.from_numpy(user.astype(np.int64)),
        user_ids=user_ids,
        history=torch.from_numpy(history[keep]),
        targets=torch.from_numpy(targets[keep]),
        is_good=torch.from_numpy(flags(table.column("is_good"))[keep]),
        date=table.column("session_date").to_numpy().astype("datetime64[D]")[keep],
    )


def load_reward_blocks(
    directory: Path,
    split: str,
    semantic_ids: SemanticIds,
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
        semantic_ids: The catalogue.
        history_length: H, the last known items of a history that are kept.
        block_items: M, exposures per block.
        thresholds: What `swt` compares with; by default those of the training split.

    Raises:
        ValueError: The split is unknown, a column is missing, or there is no training exposure to
            take the threshold from.
    """
    columns = ["user_id", "session_date", "started_at", "history_item_ids", *_EXPOSURE_COLUMNS]
    table = read_sessions(directory, [split], columns)
    cut = _cut_blocks(table, semantic_ids, block_items)
    if thresholds is None:
        thresholds = (
            _thresholds(cut)
            if split == "train"
            else reward_thresholds(directory, semantic_ids, block_items=block_items)
        )
    history = last_of_each(
        *known_items_of(table, "history_item_ids", semantic_ids), table.num_rows, history_length
    )
    labels = np.stack(
        [
            cut.mean("watch_seconds") >= thresholds.mean_watch_seconds,
            cut.mean("is_watched") >= 0.5,
            cut.mean("is_follow") > 0,
            cut.mean("is_like") > 0,
        ],
        axis=-1,
    )
    user_ids, user = np.unique(strings(table, "user_id")[cut.session], return_inverse=True)
    started = table.column("started_at").to_numpy().astype("datetime64[us]")[cut.session]
    return RewardBlocks(
        user=torch.from_numpy(user.astype(np.int64)),
        user_ids=user_ids,
        history=torch.from_numpy(history[cut.session]),
        items=torch.from_numpy(first_of_each(cut.items, cut.block, len(cut.session), block_items)),
        labels=torch.from_numpy(labels.astype(np.float32)),
        session=torch.from_numpy(cut.session),
        place=torch.from_numpy(positions(cut.session, table.num_rows)),
        date=table.column("session_date").to_numpy().astype("datetime64[D]")[cut.session],
        hour=(started - started.astype("datetime64[D]")) / np.timedelta64(1, "h"),
        thresholds=thresholds,
    )


def reward_thresholds(
    directory: Path, semantic_ids: SemanticIds, *, block_items: int
) -> RewardThresholds:
    """Thresholds of the reward labels, from the training split alone.

    Raises:
        ValueError: The training split has no exposure of a known item.
    """
    table = read_sessions(directory, ["train"], _EXPOSURE_COLUMNS)
    return _thresholds(_cut_blocks(table, semantic_ids, block_items))


def load_cases(
    directory: Path, semantic_ids: SemanticIds, *, history_length: int, before: date
) -> Cases:
    """Read the evaluation cases: users with a watched, rankable item on the test day.

    Args:
        directory: Files of a `session_dataset` artifact.
        semantic_ids: The catalogue.
        history_length: H, the last known items of a history that are kept.
        before: The test day: an item is rankable when it was first seen on an earlier day.
    """
    columns = ["user_id", "session_id", "started_at", "history_item_ids", "item_ids", "is_watched"]
    table = _in_time_order(read_sessions(directory, ["test"], columns))
    user_ids, user = np.unique(strings(table, "user_id"), return_inverse=True)
    items, session = items_of(table, "item_ids", semantic_ids)
    old_enough = semantic_ids.known_before(before)
    rankable = (items >= 0) & flags(flat_values(table, "is_watched", of="item_ids"))
    rankable[rankable] = old_enough[items[rankable]]
    items, owner = items[rankable], user[session[rankable]]

    _, once = np.unique(np.stack([owner, items], axis=-1), axis=0, return_index=True)
    once.sort()
    items, owner = items[once], owner[once]
    order = np.argsort(owner, kind="stable")  # users in order, each user's items in watching order
    items, owner = items[order], owner[order]

    counts = np.bincount(owner, minlength=len(user_ids))
    targets = first_of_each(items, owner, len(user_ids), int(counts.max(initial=1)))
    first_session = np.unique(user, return_index=True)[1]
    history = last_of_each(
        *known_items_of(table, "history_item_ids", semantic_ids), table.num_rows, history_length
    )
    keep = np.flatnonzero(counts)
    return Cases(
        user_ids=user_ids[keep],
        history=torch.from_numpy(history[first_session[keep]]),
        targets=torch.from_numpy(targets[keep]),
    )


def load_serving_histories(
    directory: Path,
    semantic_ids: SemanticIds,
    *,
    history_length: int,
    splits: Sequence[str] = SPLITS,
) -> tuple[Array, Tensor]:
    """Histories as they stand at the end of the artifact's last day, for tomorrow's requests.

    This is serving, not training: the test day counts. Without it in `splits`, they are those of
    the morning of the test day.

    Returns:
        (U,) sorted users active in any of the splits, and (U, H) int32 item indices: the history of
        a user's last session followed by that session's positives, the last H of them.
    """
    columns = ["user_id", "session_id", "started_at", "history_item_ids", "item_ids", "is_positive"]
    table = _in_time_order(read_sessions(directory, splits, columns))
    user_ids, from_end = np.unique(strings(table, "user_id")[::-1], return_index=True)
    last_session = table.take(pa.array(table.num_rows - 1 - from_end))
    before, before_row = known_items_of(last_session, "history_item_ids", semantic_ids)
    shown, shown_row = items_of(last_session, "item_ids", semantic_ids)
    keep = (shown >= 0) & flags(flat_values(last_session, "is_positive", of="item_ids"))
    items = np.concatenate([before, shown[keep]])
    row = np.concatenate([before_row, shown_row[keep]])
    order = np.argsort(row, kind="stable")
    history = last_of_each(items[order], row[order], len(user_ids), history_length)
    return user_ids, torch.from_numpy(history)


_EXPOSURE_COLUMNS = ["item_ids", "watch_seconds", "is_watched", "is_follow", "is_like"]


@dataclass(frozen=True)
class _Blocks:
    """Exposures of known items, cut: `items`, `block` and `feedback` have one entry an exposure,
    `session` (a row of the table) one a block."""

    items: npt.NDArray[np.int64]
    block: npt.NDArray[np.int64]
    session: npt.NDArray[np.int64]
    feedback: dict[str, npt.NDArray[np.float64]]

    def mean(self, column: str) -> npt.NDArray[np.float64]:
        num = len(self.session)
        total = np.bincount(self.block, weights=self.feedback[column], minlength=num)
        return total / np.maximum(np.bincount(self.block, minlength=num), 1)


def _cut_blocks(table: pa.Table, semantic_ids: SemanticIds, block_items: int) -> _Blocks:
    items, session = items_of(table, "item_ids", semantic_ids)
    known = items >= 0
    items, session = items[known], session[known]
    opens = positions(session, table.num_rows) % block_items == 0
    return _Blocks(
        items=items,
        block=np.cumsum(opens) - 1,
        session=session[opens],
        feedback={
            name: np.nan_to_num(
                flat_values(table, name, of="item_ids")
                .cast(pa.float64())
                .to_numpy(zero_copy_only=False)
            )[known]
            for name in _EXPOSURE_COLUMNS
            if name != "item_ids"
        },
    )


def _thresholds(cut: _Blocks) -> RewardThresholds:
    if not len(cut.session):
        raise ValueError(
            "the training split has no exposure of an item with a semantic ID, so reward labels "
            "have no threshold: widen window_days, or check that semantic_ids covers these days"
        )
    median = float(np.median(cut.mean("watch_seconds")))
    # When most blocks were not watched at all the median is 0, and `>= 0` would hold for every one.
    return RewardThresholds(mean_watch_seconds=max(median, float(np.finfo(np.float64).tiny)))


def read_sessions(
    directory: Path, splits: Sequence[str], columns: Sequence[str], *, good_only: bool = False
) -> pa.Table:
    """Columns of some splits, in the order of the files; a split without files has no rows."""
    for split in splits:
        if split not in SPLITS:
            raise ValueError(f"split={split!r}: use one of {', '.join(SPLITS)}")
    files = [f for s in splits for f in sorted((directory / f"split={s}").glob("*.parquet"))]
    wanted = pa.schema([SESSION_DATASET.field(name) for name in columns])
    if not files:
        if not any((directory / f"split={s}").is_dir() for s in SPLITS):
            raise ValueError(f"{directory}: no split=... directory, so this is no session_dataset")
        return wanted.empty_table()
    dataset = pads.dataset([str(f) for f in files], format="parquet")
    missing = sorted(set(columns) - set(dataset.schema.names))
    if missing:
        raise ValueError(
            f"{directory}: columns {', '.join(missing)} are missing; the session_dataset was "
            "written by another version, materialise it again"
        )
    condition = pc.field("is_good") if good_only else None
    return dataset.to_table(columns=list(columns), filter=condition)


def _in_time_order(table: pa.Table) -> pa.Table:
    return table.sort_by([("started_at", "ascending"), ("session_id", "ascending")])
