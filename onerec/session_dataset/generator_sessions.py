"""Sessions to train and align a generator on: padded histories and targets."""

import dataclasses
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from onerec.catalogue import Catalogue
from onerec.session_dataset.padding import first_of_each, last_of_each
from onerec.session_dataset.reader import (
    BATCH_ROWS,
    dates_of,
    flags,
    known_items_of,
    session_batches,
    users_of,
)
from onerec.session_dataset.rows_on_disk import RowsOnDisk
from onerec.session_dataset.user_attributes import load_user_attributes, take_rows

_SESSION_COLUMNS = ["user_id", "session_date", "is_good"]
_TENSORS = ("user", "history", "targets", "is_good")


@dataclass(frozen=True, kw_only=True)
class SessionTensors:
    """S sessions of U users; item indices, -1 padded on the right.

    Attributes:
        user: (S,) int64, rows of `user_ids`.
        user_ids: (U,) the users, sorted.
        history: (S, H) int32 item indices, oldest first; may be all -1.
        targets: (S, M) int32 item indices in watching order; at least one is not -1.
        is_good: (S,) bool.
        date: (S,) datetime64[D], the day, in the log's time zone.
        attributes: U rows, what is known of the users; None where nothing is.
    """

    user: Tensor
    user_ids: np.ndarray
    history: Tensor
    targets: Tensor
    is_good: Tensor
    date: np.ndarray
    attributes: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self, kept: np.ndarray) -> "SessionTensors":
        """Select sessions by (S,) bools or row numbers; `user_ids` stays as it is."""
        rows = torch.from_numpy(kept)
        tensors = {name: getattr(self, name)[rows] for name in _TENSORS}
        return dataclasses.replace(self, **tensors, date=self.date[kept])

    def attributes_of(self, rows: Tensor) -> pa.Table | None:
        """Attributes of the users of some sessions, a row for each."""
        return take_rows(self.attributes, self.user[rows].numpy())


def load_session_tensors(
    directory: Path,
    split: str,
    catalogue: Catalogue,
    *,
    history_length: int,
    session_items: int,
    good_only: bool,
) -> SessionTensors:
    """Read the sessions of one split; those without a known target are left out.

    Lists are read a batch at a time and kept as item indices on disk (`RowsOnDisk`), so that memory
    grows by some bytes a session, whatever its lists hold.

    Args:
        directory: Files of a `session_dataset` artifact.
        split: `train`, `valid` or `test`.
        catalogue: Unknown items are dropped before lists are cut and padded.
        history_length: H, the last known items of a history that are kept.
        session_items: M, the first known targets that are kept.
        good_only: Leave out sessions that are not good.

    Raises:
        ValueError: The split is unknown, or a column is missing.
    """
    columns = [*_SESSION_COLUMNS, "history_item_ids", "target_item_ids"]
    kept_sessions = []
    with RowsOnDisk(history_length) as history, RowsOnDisk(session_items) as targets:
        for table in session_batches(directory, split, columns, good_only=good_only):
            wanted = known_items_of(table, "target_item_ids", catalogue)
            aimed = first_of_each(*wanted, table.num_rows, session_items)
            watched = known_items_of(table, "history_item_ids", catalogue)
            keep = np.flatnonzero(aimed[:, 0] >= 0)
            targets.append(aimed[keep])
            history.append(last_of_each(*watched, table.num_rows, history_length)[keep])
            kept_sessions.append(table.select(_SESSION_COLUMNS).take(pa.array(keep)))
        padded = history.tensor(), targets.tensor()
    sessions = pa.concat_tables(kept_sessions)
    user_ids, user = users_of(sessions)
    return SessionTensors(
        user=torch.from_numpy(user),
        user_ids=user_ids,
        history=padded[0],
        targets=padded[1],
        is_good=torch.from_numpy(flags(sessions.column("is_good")).copy()),
        date=dates_of(sessions),
        attributes=load_user_attributes(directory, user_ids),
    )


def concatenate_sessions(first: SessionTensors, second: SessionTensors) -> SessionTensors:
    """Concatenate two sets of sessions, on disk; `user_ids` are the users of either, and attributes
    are known of both or none."""
    both = first, second
    without = [sessions.attributes is None for sessions in both]
    assert all(without) or not any(without), "attributes are known of both or none"
    present = [sessions.user.unique().numpy() for sessions in both]  # sorted
    names = [s.user_ids[users] for s, users in zip(both, present, strict=True)]
    user_ids, at, number = np.unique(np.concatenate(names), return_index=True, return_inverse=True)
    known = [take_rows(s.attributes, users) for s, users in zip(both, present, strict=True)]
    tables = [table for table in known if table is not None]
    numbers = np.split(number, [len(present[0])])
    user = [
        new[np.searchsorted(old, s.user.numpy())]
        for s, old, new in zip(both, present, numbers, strict=True)
    ]
    padded = {}
    for name in ("history", "targets"):
        parts = [getattr(s, name) for s in both]
        with RowsOnDisk(parts[0].shape[1]) as rows:
            for block in chain(*(part.split(BATCH_ROWS) for part in parts)):
                rows.append(block.numpy())
            padded[name] = rows.tensor()
    return SessionTensors(
        user=torch.from_numpy(np.concatenate(user).astype(np.int64)),
        user_ids=user_ids,
        is_good=torch.cat([first.is_good, second.is_good]),
        date=np.concatenate([first.date, second.date]),
        attributes=take_rows(pa.concat_tables(tables), at) if tables else None,
        **padded,
    )
