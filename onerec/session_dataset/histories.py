"""Histories at the end of the last day, to serve with."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from onerec.catalogue import Catalogue
from onerec.schema import SPLITS
from onerec.session_dataset.padding import last_of_each
from onerec.session_dataset.reader import (
    exposure_flags,
    items_of,
    known_items_of,
    read_sessions,
    users_of,
)


def load_serving_histories(
    directory: Path,
    catalogue: Catalogue,
    *,
    history_length: int,
    splits: Sequence[str] = SPLITS,
) -> tuple[np.ndarray, Tensor]:
    """Histories at the end of the artifact's last day, for the next day's requests.

    Serving may use the test day, unlike training. Without `test` in `splits` the histories are
    those at the start of the test day.

    Returns:
        (U,) sorted users active in any of the splits, and (U, H) int32 item indices: the history of
        a user's last session followed by that session's positives, the last H of them.
    """
    columns = ["user_id", "history_item_ids", "item_ids", "is_positive"]
    table = read_sessions(directory, splits, columns, in_time_order=True)
    user_ids, user = users_of(table)
    last = len(user) - 1 - np.unique(user[::-1], return_index=True)[1]
    last_session = table.take(pa.array(last))
    before, before_row = known_items_of(last_session, "history_item_ids", catalogue)
    shown, shown_row = items_of(last_session, "item_ids", catalogue)
    positive = (shown >= 0) & exposure_flags(last_session, "is_positive")
    items = np.concatenate([before, shown[positive]])
    row = np.concatenate([before_row, shown_row[positive]])
    order = np.argsort(row, kind="stable")
    history = last_of_each(items[order], row[order], len(user_ids), history_length)
    return user_ids, torch.from_numpy(history)


def active_users(directory: Path) -> pa.Array:
    """Distinct users with a session in any of the splits."""
    users = read_sessions(directory, SPLITS, ["user_id"]).column("user_id")
    return users.unique()
