"""Facts about sessions, recomputed from their lists: what a session dataset is checked against.

Nothing here trusts the flags that the session SQL wrote; every number is counted again.
"""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onerec.config import SessionConfig

PER_EXPOSURE = (
    "watch_seconds",
    "is_watched",
    "is_positive",
    "is_like",
    "is_follow",
    "is_comment",
    "is_share",
    "is_dislike",
)
INTERACTIONS = ("is_like", "is_follow", "is_comment", "is_share")
_DECIMALS = 6  # of the session SQL's sum of watch seconds


def session_facts(sessions: pa.Table, config: SessionConfig, day: date) -> pa.Table:
    """One row of recounted facts per session.

    Args:
        sessions: `schema.SESSION_DATASET`, S rows, ordered by (started_at, session_id).
        config: The settings the sessions were built with.
        day: The partition; its sessions are the test split.

    Returns:
        A table of S rows: the session's `session_id`, `session_date`, `split`, `is_good`, and
        `started_on`, `expected_split`, `num_exposures`, `has_aligned_lists`, `num_history`,
        `num_targets`, `num_unwatched_targets`, `num_repeated_targets`, `num_watched_items`,
        `watch_seconds`, `num_interactions`, `num_positives`, `meets_criteria`, `history_follows`.
    """
    size = sessions.num_rows
    history, history_rows, items, item_rows, targets, target_rows = _item_codes(
        sessions, ("history_item_ids", "item_ids", "target_item_ids")
    )
    num_codes = max((int(c.max(initial=-1)) for c in (history, items, targets)), default=0) + 2
    lengths = {name: _lengths(sessions.column(name)) for name in ("item_ids", *PER_EXPOSURE)}
    aligned = np.logical_and.reduce([lengths["item_ids"] == n for n in lengths.values()])
    if not aligned.all():  # the rest would compare flags with the wrong exposures
        raise ValueError(
            f"{int((~aligned).sum())} sessions have lists of unequal length, first "
            f"{sessions.column('session_id')[int(np.argmin(aligned))].as_py()!r}: materialise the "
            "sessions and the dataset again"
        )
    flat = {name: _flat(sessions.column(name)) for name in PER_EXPOSURE}
    watched = np.unique(_pair(item_rows, items, num_codes)[flat["is_watched"].astype(bool)])
    aimed = _pair(target_rows, targets, num_codes)
    num_watched = np.bincount(watched // num_codes, minlength=size)
    seconds = np.round(
        np.bincount(item_rows, weights=flat["watch_seconds"], minlength=size), _DECIMALS
    )
    clicks = sum(flat[name].astype(np.int64) for name in INTERACTIONS)
    interactions = np.bincount(item_rows, weights=clicks, minlength=size).astype(np.int64)
    num_targets = np.bincount(target_rows, minlength=size)
    unwatched = target_rows[~np.isin(aimed, watched)]
    return pa.table(
        {
            **{n: sessions.column(n) for n in ("session_id", "session_date", "split", "is_good")},
            "started_on": pc.cast(
                pc.floor_temporal(sessions.column("started_at"), unit="day"), pa.date32()
            ),
            "expected_split": _expected_split(sessions.column("session_date"), day),
            "num_exposures": lengths["item_ids"],
            "num_history": np.bincount(history_rows, minlength=size),
            "num_targets": num_targets,
            "num_expected_targets": np.minimum(num_watched, config.session_items),
            "num_unwatched_targets": np.bincount(unwatched, minlength=size),
            "num_repeated_targets": num_targets
            - np.bincount(np.unique(aimed) // num_codes, minlength=size),
            "num_watched_items": num_watched,
            "watch_seconds": seconds,
            "num_interactions": interactions,
            "num_positives": np.bincount(
                item_rows, weights=flat["is_positive"], minlength=size
            ).astype(np.int64),
            "meets_criteria": (num_watched >= config.good_min_watched_items)
            & (seconds >= config.good_min_watch_seconds)
            & (interactions >= config.good_min_positive_interactions),
            "history_follows": _history_follows(
                _codes(sessions.column("user_id")),
                history,
                history_rows,
                items[flat["is_positive"].astype(bool)],
                item_rows[flat["is_positive"].astype(bool)],
                config.history_length,
            ),
        }
    )


def _history_follows(
    users: np.ndarray,
    history: np.ndarray,
    history_rows: np.ndarray,
    positives: np.ndarray,
    positive_rows: np.ndarray,
    history_length: int,
) -> np.ndarray:
    """Whether each history is the one before it plus the positives of the session before.

    A history that knew its own session, or a later one, would be longer or end otherwise. The first
    session of a user has nothing to be compared with and passes.

    Args:
        users: (S,) user of each session; sessions in order of time.
        history: Flat item codes of all histories, in order of sessions.
        history_rows: The session of each of them.
        positives: Flat item codes of all positive exposures, in order of sessions.
        positive_rows: The session of each of them.
        history_length: n, the longest history.

    Returns:
        (S,) bool.
    """
    size = len(users)
    num_history = np.bincount(history_rows, minlength=size)
    num_positives = np.bincount(positive_rows, minlength=size)
    history_start = np.cumsum(num_history) - num_history
    positive_start = np.cumsum(num_positives) - num_positives
    by_user = np.argsort(users, kind="stable")
    before = np.full(size, -1)
    same_user = users[by_user[1:]] == users[by_user[:-1]]
    before[by_user[1:][same_user]] = by_user[:-1][same_user]

    known = num_history[before] + num_positives[before]  # all that the session before can pass on
    follows = (before < 0) | (num_history == np.minimum(known, history_length))
    checked = follows[history_rows] & (before[history_rows] >= 0)
    rows, codes = history_rows[checked], history[checked]
    place = np.arange(len(history))[checked] - history_start[rows]
    previous = before[rows]
    # the same distance from the end of (history before ++ positives before)
    source = known[rows] - (num_history[rows] - place)
    in_positives = source >= num_history[previous]
    everything = np.concatenate([history, positives])
    index = np.where(
        in_positives,
        len(history) + positive_start[previous] + source - num_history[previous],
        history_start[previous] + source,
    )
    follows[rows[everything[index] != codes]] = False
    return follows


def _item_codes(sessions: pa.Table, names: tuple[str, ...]) -> list[np.ndarray]:
    """Flat item codes and the row of each, for several list columns, in one code space."""
    columns = [sessions.column(name).combine_chunks() for name in names]
    flat = [pc.list_flatten(column) for column in columns]
    codes = _codes(pa.chunked_array([x.cast(pa.string()) for x in flat], pa.string()))
    ends = np.cumsum([len(x) for x in flat])
    found = []
    for column, part in zip(columns, np.split(codes, ends[:-1]), strict=True):
        found += [part, np.asarray(pc.list_parent_indices(column))]
    return found


def _codes(values: pa.ChunkedArray) -> np.ndarray:
    if not len(values):
        return np.zeros(0, np.int64)
    encoded = values.combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices).astype(np.int64)


def _pair(rows: np.ndarray, codes: np.ndarray, num_codes: int) -> np.ndarray:
    return rows.astype(np.int64) * num_codes + codes


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    return pc.list_flatten(column).combine_chunks().to_numpy(zero_copy_only=False)


def _lengths(column: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy()


def _expected_split(dates: pa.ChunkedArray, day: date) -> pa.ChunkedArray:
    eve = pa.scalar(day - timedelta(days=1))
    return pc.if_else(
        pc.equal(dates, pa.scalar(day)), "test", pc.if_else(pc.equal(dates, eve), "valid", "train")
    )
