"""Everything users watched or liked on the training days, as sequences and cut into sessions.

Good sessions contain only part of the watched items: sessions that miss the criteria and items from
before the window are missing. Sequence models learn every step of these full sequences; a generator
learns the same from sessions of M consecutive targets with the preceding items as history.

Shapes: U users, E positives, S sessions, H history items, M target items.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch

from onerec.catalogue import Catalogue
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.session_dataset.padding import padded_slices
from onerec.session_dataset.reader import (
    dates_of,
    exposure_flags,
    items_of,
    known_items_of,
    read_sessions,
    users_of,
)


@dataclass(frozen=True)
class UserSequences:
    """What every user watched or liked, in order of time.

    Attributes:
        user_ids: (U,) users of the training days, sorted.
        first_day: (U,) datetime64[D], day of their first session of the splits read.
        user: (E,) rows of `user_ids`, sorted.
        item: (E,) item indices; within a user, oldest first.
        day: (E,) datetime64[D], day of the session; NaT for items of the first session's history.
    """

    user_ids: np.ndarray
    first_day: np.ndarray
    user: np.ndarray
    item: np.ndarray
    day: np.ndarray


def load_user_sequences(
    directory: Path, catalogue: Catalogue, *, splits: Sequence[str] = ("train",)
) -> UserSequences:
    """The history of every user's first session, then the positives of all sessions.

    Args:
        directory: Files of a `session_dataset` artifact.
        catalogue: Items it does not know are dropped.
        splits: Splits to read; with `valid` the sequences end the day before the test day.
    """
    columns = [
        "user_id",
        "session_date",
        "history_item_ids",
        "item_ids",
        "is_watched",
        "is_positive",
    ]
    table = read_sessions(directory, splits, columns, in_time_order=True)
    user_ids, user = users_of(table)
    first = np.unique(user, return_index=True)[1]
    past, row = known_items_of(table, "history_item_ids", catalogue)
    before = np.isin(row, first)
    past, past_user = past[before], user[row[before]]
    item, row = items_of(table, "item_ids", catalogue)
    positive = exposure_flags(table, "is_watched") | exposure_flags(table, "is_positive")
    positive &= item >= 0
    owner = np.concatenate([past_user, user[row[positive]]])
    order = np.argsort(owner, kind="stable")  # history items first, then sessions by time
    days = dates_of(table)
    before_all = np.full(len(past), np.datetime64("NaT", "D"))
    return UserSequences(
        user_ids=user_ids,
        first_day=days[first],
        day=np.concatenate([before_all, days[row[positive]]])[order],
        user=owner[order],
        item=np.concatenate([past, item[positive]])[order],
    )


def sessions_of_sequences(
    sequences: UserSequences,
    *,
    history_length: int,
    session_items: int,
    since: date | None = None,
) -> SessionTensors:
    """Cut every user's sequence into sessions, from the last one backwards.

    Only the oldest of a user's sessions may have fewer than M items. All targets were watched or
    liked, but not necessarily in one sitting.

    Args:
        sequences: Of all users.
        history_length: H.
        session_items: M.
        since: Only targets of this day and later ones, with histories of all days; all by default.

    Returns:
        S sessions; their `date` is the day of the user's first session.
    """
    wanted = np.arange(len(sequences.user))
    if since is not None:  # the end of every user's sequence, so the cuts stay in one piece
        wanted = np.flatnonzero(sequences.day >= np.datetime64(since, "D"))
    begin, end, row = cut_backwards(sequences.user[wanted], session_items)
    begin, end = wanted[begin], wanted[end - 1] + 1
    before = np.maximum(begin - history_length, np.searchsorted(sequences.user, row))
    history = padded_slices(sequences.item, before, begin, history_length)
    targets = padded_slices(sequences.item, begin, end, session_items)
    return SessionTensors(
        user=torch.from_numpy(row.astype(np.int64)),
        user_ids=sequences.user_ids,
        history=torch.from_numpy(history.astype(np.int32)),
        targets=torch.from_numpy(targets.astype(np.int32)),
        is_good=torch.ones(len(row), dtype=torch.bool),
        date=sequences.first_day[row],
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
