"""What sequence models learn from: every user's positives of the training days, in time order.

Shapes: U users, W windows, H items a model reads, E exposures.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from onerec.datasets.history_sessions import load_positives
from onerec.datasets.list_columns import (
    first_of_each,
    flags,
    flat_values,
    items_of,
    known_items_of,
    last_of_each,
    strings,
)
from onerec.schema import SESSION_DATASET
from onerec.tokenizer.semantic_ids import SemanticIds


@dataclass(frozen=True)
class EvalUsers:
    """Users of one day: what they had liked before it, and what they then watched.

    Attributes:
        user: (U,) places of the users among all of the split's, sorted by id.
        history: (U, H) item indices, oldest first, -1 padded on the right.
        targets: (U, T) item indices, -1 padded; at least one each.
    """

    user: np.ndarray
    history: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


def load_windows(directory: Path, semantic_ids: SemanticIds, *, history_length: int) -> np.ndarray:
    """Cut every user's positives of the training days into windows, from the last one backwards.

    A sequence begins with the history of the user's first session, so that nothing a generator may
    read is kept from a baseline. Neighbouring windows share one item, so that every step from an
    item to the next is learned once.

    Args:
        directory: Files of a `session_dataset` artifact; only `train` is read.
        semantic_ids: The catalogue.
        history_length: H.

    Returns:
        (W, H + 1) item indices, oldest first, -1 padded on the right; at least two items each.

    Raises:
        ValueError: No user has two positives.
    """
    found = load_positives(directory, semantic_ids)
    windows = cut_windows(found.item, found.user, history_length + 1)
    if not len(windows):
        raise ValueError(
            f"{directory}: no user has two positive items on the training days; use more days"
        )
    return windows


def cut_windows(items: np.ndarray, owner: np.ndarray, width: int) -> np.ndarray:
    """Windows of each user's items, sharing one item with the next, aligned to the last item.

    Args:
        items: (E,) in time order within each user.
        owner: (E,) sorted.
        width: Items of a window, at least 2.

    Returns:
        (W, width), -1 padded on the right; users of one item have none.

    Examples:
        >>> cut_windows(np.array([4, 5, 6, 7, 9]), np.array([0, 0, 0, 0, 1]), 3).tolist()
        [[5, 6, 7], [4, 5, -1]]
    """
    assert width >= 2, "a window holds an item and the next"
    _, first, count = np.unique(owner, return_index=True, return_counts=True)
    windows_each = -(-(count - 1) // (width - 1))
    user = np.repeat(np.arange(len(count)), windows_each)
    number = np.arange(len(user)) - np.repeat(np.cumsum(windows_each) - windows_each, windows_each)
    last = first[user] + count[user] - 1 - number * (width - 1)
    start = np.maximum(last - width + 1, first[user])
    place = start[:, None] + np.arange(width)
    return np.where(place <= last[:, None], items[np.minimum(place, len(items) - 1)], -1)


def load_eval_users(
    directory: Path, semantic_ids: SemanticIds, *, split: str, history_length: int
) -> EvalUsers:
    """One case per user of a split, as an evaluation of its first day would ask.

    Args:
        directory: Files of a `session_dataset` artifact.
        semantic_ids: The catalogue.
        split: `valid` chooses epochs; `test` is never read here.
        history_length: H.
    """
    assert split != "test", "nothing of the test day reaches a baseline"
    columns = ["user_id", "session_id", "started_at", "history_item_ids", "item_ids", "is_watched"]
    table = _read(directory, split, columns)
    names, user = np.unique(strings(table, "user_id"), return_inverse=True)
    items, row = items_of(table, "item_ids", semantic_ids)
    watched = (items >= 0) & flags(flat_values(table, "is_watched", of="item_ids"))
    keys = user[row[watched]] * len(semantic_ids.item_ids) + items[watched]
    once = np.sort(np.unique(keys, return_index=True)[1])  # each item once, where it came first
    owner, wanted = user[row[watched]][once], items[watched][once]
    order = np.argsort(owner, kind="stable")
    count = np.bincount(owner, minlength=len(names))
    targets = first_of_each(wanted[order], owner[order], len(names), int(count.max(initial=1)))
    histories = last_of_each(
        *known_items_of(table, "history_item_ids", semantic_ids), table.num_rows, history_length
    )
    first = np.unique(user, return_index=True)[1]
    keep = np.flatnonzero(count)
    return EvalUsers(keep, histories[first[keep]].astype(np.int64), targets[keep].astype(np.int64))


def _read(directory: Path, split: str, columns: list[str]) -> pa.Table:
    files = [str(f) for f in sorted((directory / f"split={split}").glob("*.parquet"))]
    if not files:
        return pa.schema([SESSION_DATASET.field(name) for name in columns]).empty_table()
    table = pads.dataset(files, format="parquet").to_table(columns=columns)
    return table.sort_by([("started_at", "ascending"), ("session_id", "ascending")])
