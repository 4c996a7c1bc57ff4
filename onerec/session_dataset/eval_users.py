"""Evaluation users of a day: their histories before it, and the items they watched on it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from onerec.catalogue import Catalogue
from onerec.session_dataset.padding import first_of_each, last_of_each
from onerec.session_dataset.reader import (
    exposure_flags,
    items_of,
    known_items_of,
    read_sessions,
    users_of,
)
from onerec.session_dataset.user_attributes import load_user_attributes, take_rows


@dataclass(frozen=True)
class EvalUsers:
    """U users, each with at least one target; item indices, -1 padded on the right.

    Attributes:
        user_ids: (U,) sorted.
        history: (U, H) int64: positives before the user's first session of the day, oldest first.
        targets: (U, T) int64: watched items, each once, in watching order.
        attributes: U rows, what is known of the users; None where nothing is.
    """

    user_ids: np.ndarray
    history: np.ndarray
    targets: np.ndarray
    attributes: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.user_ids)

    def rows(self, kept: np.ndarray) -> "EvalUsers":
        """Select users by row numbers."""
        return EvalUsers(
            self.user_ids[kept],
            self.history[kept],
            self.targets[kept],
            take_rows(self.attributes, kept),
        )


def load_eval_users(
    directory: Path,
    split: str,
    catalogue: Catalogue,
    *,
    history_length: int,
    rankable: np.ndarray | None = None,
) -> EvalUsers:
    """Read the users of an evaluation day who watched at least one item that may be recommended.

    Args:
        directory: Files of a `session_dataset` artifact.
        split: `valid` for model selection, `test` for evaluation.
        catalogue: Items it does not know are dropped.
        history_length: H, the last known items of a history that are kept.
        rankable: (N,) bool: items that may be targets; all of the catalogue if not given.

    Raises:
        ValueError: The split is unknown, or a column is missing.
    """
    columns = ["user_id", "history_item_ids", "item_ids", "is_watched"]
    table = read_sessions(directory, [split], columns, in_time_order=True)
    user_ids, user = users_of(table)
    items, session = items_of(table, "item_ids", catalogue)
    watched = (items >= 0) & exposure_flags(table, "is_watched")
    if rankable is not None:
        watched[watched] = rankable[items[watched]]
    items, owner = items[watched], user[session[watched]]
    once = np.sort(np.unique(owner * len(catalogue) + items, return_index=True)[1])
    items, owner = items[once], owner[once]  # the first occurrence of each item
    order = np.argsort(owner, kind="stable")  # users in order, a user's items in watching order
    counts = np.bincount(owner, minlength=len(user_ids))
    targets = first_of_each(items[order], owner[order], len(user_ids), int(counts.max(initial=1)))
    first_session = np.unique(user, return_index=True)[1]
    history = last_of_each(
        *known_items_of(table, "history_item_ids", catalogue), table.num_rows, history_length
    )
    keep = np.flatnonzero(counts)
    return EvalUsers(
        user_ids=user_ids[keep],
        history=history[first_session[keep]].astype(np.int64),
        targets=targets[keep].astype(np.int64),
        attributes=load_user_attributes(directory, user_ids[keep]),
    )
