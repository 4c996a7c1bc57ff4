"""Everything users watched or liked before the validation day, as sequences and cut into sessions.

Good sessions hold a part of what was watched: sessions with too little of it, and what came before
the window, are left out. SASRec and its kin learn every step of a history; here histories are cut
into targets of m items with what came before them, for a generator to learn the same.

Shapes: U users, E positives, S sessions, H history items, M target items.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from onerec.datasets.list_columns import flags, flat_values, items_of, known_items_of, strings
from onerec.datasets.session_tensors import SessionTensors, read_sessions
from onerec.tokenizer.semantic_ids import SemanticIds


@dataclass(frozen=True)
class Positives:
    """What every user watched or liked, in order of time.

    Attributes:
        user_ids: (U,) users of the training days, sorted.
        first_day: (U,) datetime64[D], day of their first training session.
        user: (E,) rows of `user_ids`, sorted.
        item: (E,) item indices; within a user, oldest first.
    """

    user_ids: np.ndarray
    first_day: np.ndarray
    user: np.ndarray
    item: np.ndarray


def load_positives(directory: Path, semantic_ids: SemanticIds) -> Positives:
    """The history of every user's first training session, then the positives of all of them.

    Args:
        directory: Files of a `session_dataset` artifact; only `train` is read.
        semantic_ids: The catalogue.
    """
    columns = ["user_id", "session_id", "started_at", "session_date", "history_item_ids"]
    table = read_sessions(directory, ["train"], [*columns, "item_ids", "is_watched", "is_positive"])
    table = table.sort_by([("started_at", "ascending"), ("session_id", "ascending")])
    names = strings(table, "user_id")
    user_ids, first, user = np.unique(names, return_index=True, return_inverse=True)
    past, row = known_items_of(table, "history_item_ids", semantic_ids)
    before = np.isin(row, first)
    past, past_user = past[before], user[row[before]]
    item, row = items_of(table, "item_ids", semantic_ids)
    liked = flags(flat_values(table, "is_watched", of="item_ids"))
    liked |= flags(flat_values(table, "is_positive", of="item_ids"))
    liked &= item >= 0
    owner = np.concatenate([past_user, user[row[liked]]])
    order = np.argsort(owner, kind="stable")  # the past first, then sessions in order of time
    days = table.column("session_date").to_numpy().astype("datetime64[D]")
    return Positives(
        user_ids, days[first], owner[order], np.concatenate([past, item[liked]])[order]
    )


def load_history_sessions(
    directory: Path, semantic_ids: SemanticIds, *, history_length: int, session_items: int
) -> SessionTensors:
    """Cut every user's positives into sessions, from the last one backwards.

    Only the oldest of a user's sessions may have fewer than m items. All targets were watched or
    liked, but nobody knows which of them were one sitting.

    Args:
        directory: Files of a `session_dataset` artifact; only `train` is read.
        semantic_ids: The catalogue.
        history_length: H.
        session_items: M.

    Returns:
        S sessions; their `date` is the day of the user's first training session.
    """
    found = load_positives(directory, semantic_ids)
    begin, end, row = cut_backwards(found.user, session_items)
    before = np.maximum(begin - history_length, np.searchsorted(found.user, row))
    return SessionTensors(
        user=torch.from_numpy(row.astype(np.int64)),
        user_ids=found.user_ids,
        history=torch.from_numpy(_slices(found.item, before, begin, history_length)),
        targets=torch.from_numpy(_slices(found.item, begin, end, session_items)),
        is_good=torch.ones(len(row), dtype=torch.bool),
        date=found.first_day[row],
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

    Examples:
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
