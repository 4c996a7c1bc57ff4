"""What users watched before the window, cut into sessions that a generator can learn from.

A log that begins with a `prior_history`, or a window that is shorter than the log, holds more of
what users watched than its sessions do. SASRec and its kin learn every step of a history; here it
is cut into targets of m items with what came before them as their history.
"""

from pathlib import Path

import numpy as np
import torch

from onerec.datasets.list_columns import known_items_of, strings
from onerec.datasets.session_tensors import SessionTensors, read_sessions
from onerec.tokenizer.semantic_ids import SemanticIds


def load_history_sessions(
    directory: Path, semantic_ids: SemanticIds, *, history_length: int, session_items: int
) -> SessionTensors:
    """Cut the history of every user's first training session into sessions, from its end backwards.

    Only the oldest of a user's sessions may have fewer than m items. Histories hold positive items
    alone, so all targets were watched or liked, but nobody knows which of them were one sitting.

    Args:
        directory: Files of a `session_dataset` artifact; only `train` is read.
        semantic_ids: The catalogue.
        history_length: H.
        session_items: M.

    Returns:
        S sessions, none where no history reaches back before the window; their `date` is the day of
        the session whose history they are from.
    """
    columns = ["user_id", "session_id", "started_at", "session_date", "history_item_ids"]
    table = read_sessions(directory, ["train"], columns)
    table = table.sort_by([("started_at", "ascending"), ("session_id", "ascending")])
    names = strings(table, "user_id")
    first = table.take(np.unique(names, return_index=True)[1])
    items, owner = known_items_of(first, "history_item_ids", semantic_ids)
    begin, end, row = cut_backwards(owner, session_items)
    targets = _slices(items, begin, end, session_items)
    before = np.maximum(begin - history_length, np.searchsorted(owner, row))
    user_ids, user = np.unique(strings(first, "user_id")[row], return_inverse=True)
    return SessionTensors(
        user=torch.from_numpy(user.astype(np.int64)),
        user_ids=user_ids,
        history=torch.from_numpy(_slices(items, before, begin, history_length)),
        targets=torch.from_numpy(targets),
        is_good=torch.ones(len(row), dtype=torch.bool),
        date=first.column("session_date").to_numpy().astype("datetime64[D]")[row],
    )


def joined(first: SessionTensors, second: SessionTensors) -> SessionTensors:
    """Both one after the other; users are numbered anew."""
    names = np.concatenate([s.user_ids[s.user.numpy()] for s in (first, second)])
    user_ids, user = np.unique(names, return_inverse=True)
    return SessionTensors(
        user=torch.from_numpy(user.astype(np.int64)),
        user_ids=user_ids,
        history=torch.cat([first.history, second.history]),
        targets=torch.cat([first.targets, second.targets]),
        is_good=torch.cat([first.is_good, second.is_good]),
        date=np.concatenate([first.date, second.date]),
    )


def cut_backwards(owner: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut every owner's run of rows into pieces of `size` from its end; the oldest may be shorter.

    Args:
        owner: (E,) sorted.
        size: Rows per piece.

    Returns:
        First row and row after the last (S,) of every piece, and its owner, in order.

    Example:
        >>> begin, end, owner = cut_backwards(np.array([0, 0, 0, 4, 4]), 2)
        >>> begin.tolist(), end.tolist(), owner.tolist()
        ([0, 1, 3], [1, 3, 5], [0, 0, 4])
    """
    known, start, count = np.unique(owner, return_index=True, return_counts=True)
    pieces = -(-count // size)
    of = np.repeat(np.arange(len(known)), pieces)
    from_end = np.repeat(np.cumsum(pieces), pieces) - 1 - np.arange(len(of))
    end = start[of] + count[of] - from_end * size
    return np.maximum(end - size, start[of]), end, known[of]


def _slices(items: np.ndarray, begin: np.ndarray, end: np.ndarray, width: int) -> np.ndarray:
    """(S, width) int32 `items[begin:end]` of each row, -1 padded on the right."""
    place = begin[:, None] + np.arange(width)
    if not len(items):
        return np.full(place.shape, -1, np.int32)
    found = items[np.minimum(place, len(items) - 1)]
    return np.where(place < end[:, None], found, -1).astype(np.int32)
