"""Everything users watched or liked on the training days, as sequences and cut into sessions.

Good sessions contain only part of the watched items: sessions that miss the criteria and items from
before the window are missing. Sequence models learn every step of these full sequences; a generator
learns the same from sessions of M consecutive targets with the preceding items as history.

Shapes: U users, E positives, S sessions, H history items, M target items.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from onerec.catalogue import Catalogue
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.session_dataset.padding import padded_slices, ranges
from onerec.session_dataset.reader import (
    BATCH_ROWS,
    dates_of,
    exposure_flags,
    items_of,
    known_items_of,
    read_sessions,
    session_batches,
    users_of,
)
from onerec.session_dataset.rows_on_disk import RowsOnDisk
from onerec.session_dataset.user_attributes import load_user_attributes

_TIME_ORDER = ("started_at", "session_id")


@dataclass(frozen=True)
class UserSequences:
    """What every user watched or liked, in order of time.

    Attributes:
        user_ids: (U,) users of the splits that were read, sorted.
        first_day: (U,) datetime64[D], day of their first session of the splits read.
        user: (E,) rows of `user_ids`, sorted.
        item: (E,) int32 item indices; within a user, oldest first.
        day: (E,) datetime64[D], day of the session; NaT for items of the first session's history.
        attributes: U rows, what is known of the users; None where nothing is.
    """

    user_ids: np.ndarray
    first_day: np.ndarray
    user: np.ndarray
    item: np.ndarray
    day: np.ndarray
    attributes: pa.Table | None = None


def load_user_sequences(
    directory: Path, catalogue: Catalogue, *, splits: Sequence[str] = ("train",)
) -> UserSequences:
    """The history of every user's first session, then the positives of all sessions.

    Lists are read a batch at a time: memory grows by some 30 bytes a positive and some more a
    session, whatever histories hold.

    Args:
        directory: Files of a `session_dataset` artifact.
        catalogue: Items it does not know are dropped.
        splits: Splits to read; with `valid` the sequences end the day before the test day.
    """
    sessions = read_sessions(directory, splits, ["user_id", "session_date", *_TIME_ORDER])
    user_ids, user = users_of(sessions)
    order = pc.sort_indices(sessions, [(name, "ascending") for name in _TIME_ORDER]).to_numpy()
    order = order[np.argsort(user[order], kind="stable")]  # by user, then by time
    first = order[np.searchsorted(user[order], np.arange(len(user_ids)))]
    days = dates_of(sessions)
    is_first = np.zeros(len(user), dtype=bool)
    is_first[first] = True
    found = _positives(directory, splits, catalogue, is_first)
    begin, length = (np.cumsum(found.length) - found.length)[order], found.length[order]
    day = np.repeat(days[order], length)
    day[ranges(np.cumsum(length) - length, found.num_before[order])] = np.datetime64("NaT")
    return UserSequences(
        user_ids=user_ids,
        first_day=days[first],
        day=day,
        user=np.repeat(user[order], length),
        item=found.item[ranges(begin, length)],
        attributes=load_user_attributes(directory, user_ids),
    )


class _Positives(NamedTuple):
    """Positives of S sessions in the order of the files.

    Attributes:
        item: (E,) int32 item indices; a session's history, where wanted, and then its positives.
        length: (S,) items of each session.
        num_before: (S,) how many of them are of its history.
    """

    item: np.ndarray
    length: np.ndarray
    num_before: np.ndarray


def _positives(
    directory: Path, splits: Sequence[str], catalogue: Catalogue, with_history: np.ndarray
) -> _Positives:
    """Read the lists; `with_history` (S,) bool says which sessions' histories are kept."""
    columns = ["history_item_ids", "item_ids", "is_watched", "is_positive"]
    parts, num_read = [], 0
    for table in chain(*(session_batches(directory, split, columns) for split in splits)):
        num = table.num_rows
        past, past_row = known_items_of(table, "history_item_ids", catalogue)
        kept = with_history[num_read : num_read + num][past_row]
        item, row = items_of(table, "item_ids", catalogue)
        positive = exposure_flags(table, "is_watched") | exposure_flags(table, "is_positive")
        positive &= item >= 0
        owner = np.concatenate([past_row[kept], row[positive]])
        items = np.concatenate([past[kept], item[positive]]).astype(np.int32)
        parts.append(
            _Positives(
                item=items[np.argsort(owner, kind="stable")],  # a history before its session
                length=np.bincount(owner, minlength=num),
                num_before=np.bincount(past_row[kept], minlength=num),
            )
        )
        num_read += num
    return _Positives(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def sessions_of_sequences(
    sequences: UserSequences,
    *,
    history_length: int,
    session_items: int,
    since: date | None = None,
) -> SessionTensors:
    """Cut every user's sequence into sessions, from the last one backwards; rows are on disk.

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
    with RowsOnDisk(history_length) as history, RowsOnDisk(session_items) as targets:
        for at in range(0, len(row), BATCH_ROWS):
            part = slice(at, at + BATCH_ROWS)
            history.append(padded_slices(sequences.item, before[part], begin[part], history_length))
            targets.append(padded_slices(sequences.item, begin[part], end[part], session_items))
        padded = history.tensor(), targets.tensor()
    return SessionTensors(
        user=torch.from_numpy(row.astype(np.int64)),
        user_ids=sequences.user_ids,
        history=padded[0],
        targets=padded[1],
        is_good=torch.ones(len(row), dtype=torch.bool),
        date=sequences.first_day[row],
        attributes=sequences.attributes,
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
