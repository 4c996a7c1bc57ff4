"""Statistics of sessions recomputed from their lists, which asset checks compare a dataset with.

The flags that the session SQL wrote are not used; every number is computed again.
Shapes: S sessions, E exposures.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onerec.catalogue import Catalogue
from onerec.config import SessionConfig
from onerec.session_dataset.padding import distinct, ranges
from onerec.session_dataset.reader import (
    INTERACTIONS,
    dates_of,
    exposure_flags,
    exposure_numbers,
    items_of,
)
from onerec.session_dataset.splits import split_of, validation_day

_PER_SECOND = 10**6  # the session SQL adds up watch seconds of six decimals
RECOUNTED = (
    "session_id",
    "user_id",
    "session_date",
    "started_at",
    "split",
    "is_good",
    "history_item_ids",
    "target_item_ids",
    "item_ids",
    "watch_seconds",
    "is_watched",
    "is_positive",
    *INTERACTIONS,
)
"""Columns that `recount_sessions` reads."""


def recount_sessions(
    sessions: pa.Table, config: SessionConfig, test_day: date, time_zone: str = "UTC"
) -> pa.Table:
    """Recompute the statistics of each session.

    Args:
        sessions: `RECOUNTED` columns, S rows, ordered by (started_at, session_id).
        config: The settings the sessions were built with.
        test_day: The partition.
        time_zone: Time zone of the log's days.

    Returns:
        A table of S rows: the session's `session_id`, `session_date`, `split`, `is_good`, and
        `started_on`, `expected_split`, `num_exposures`, `num_history`, `num_targets`,
        `num_expected_targets`, `num_unwatched_targets`, `num_repeated_targets`, `watch_seconds`,
        `num_watched_items`, `num_interactions`, `num_positives`, `meets_criteria`,
        `history_follows`.

    Raises:
        ValueError: Lists that describe the same exposures differ in length.
    """
    everything = _everything(sessions)
    history, targets, shown = (
        _Lists(*items_of(sessions, name, everything), sessions.num_rows)
        for name in ("history_item_ids", "target_item_ids", "item_ids")
    )
    watched = shown.where(exposure_flags(sessions, "is_watched"))
    positive = shown.where(exposure_flags(sessions, "is_positive"))
    seconds = _rounded_totals(shown, sessions)
    clicks = np.stack([exposure_flags(sessions, name) for name in INTERACTIONS]).sum(0)
    interactions = shown.totals(clicks).astype(np.int64)
    watched_items = distinct(watched.pairs(len(everything)))
    aimed = targets.pairs(len(everything))
    num_watched = np.bincount(watched_items // len(everything), minlength=sessions.num_rows)
    num_different_targets = np.bincount(distinct(aimed) // len(everything), minlength=len(targets))
    users = sessions.column("user_id").combine_chunks().dictionary_encode().indices.to_numpy()
    dates, number = np.unique(dates_of(sessions), return_counts=True)
    valid_day = validation_day(dict(zip(dates.tolist(), number, strict=True)), test_day)
    return pa.table(
        {
            **{n: sessions.column(n) for n in ("session_id", "session_date", "split", "is_good")},
            "started_on": _local_days(sessions.column("started_at"), time_zone),
            "expected_split": split_of(sessions.column("session_date"), test_day, valid_day),
            "num_exposures": shown.lengths,
            "num_history": history.lengths,
            "num_targets": targets.lengths,
            "num_expected_targets": np.minimum(num_watched, config.session_items),
            "num_unwatched_targets": targets.where(~_is_among(watched_items, aimed)).lengths,
            "num_repeated_targets": targets.lengths - num_different_targets,
            "num_watched_items": num_watched,
            "watch_seconds": seconds,
            "num_interactions": interactions,
            "num_positives": positive.lengths,
            "meets_criteria": (num_watched >= config.good_min_watched_items)
            & (seconds >= config.good_min_watch_seconds)
            & (interactions >= config.good_min_positive_interactions)
            & (positive.lengths >= config.good_min_positives),
            "history_follows": _history_follows(users, history, positive, config.history_length),
        }
    )


def _rounded_totals(shown: "_Lists", sessions: pa.Table) -> np.ndarray:
    """(S,) watch seconds, of six decimals before they are added up, as in the session SQL."""
    watch_seconds = exposure_numbers(sessions, "watch_seconds")
    return shown.totals(np.floor(watch_seconds * _PER_SECOND + 0.5)) / _PER_SECOND


def _is_among(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Whether each value, not negative, is among others that are in order."""
    return np.append(ordered, -1)[np.searchsorted(ordered, values)] == values


def _local_days(times: pa.ChunkedArray, time_zone: str) -> pa.ChunkedArray:
    """Days of UTC times in a time zone."""
    local = pc.local_timestamp(times.cast(pa.timestamp("us", tz=time_zone)))
    return pc.cast(pc.floor_temporal(local, unit="day"), pa.date32())


@dataclass(frozen=True)
class _Lists:
    """A list of items per session.

    Attributes:
        items: (E,) item indices, in order of sessions.
        rows: (E,) the session of each.
        num_rows: S.
    """

    items: np.ndarray
    rows: np.ndarray
    num_rows: int

    def __len__(self) -> int:
        return self.num_rows

    @property
    def lengths(self) -> np.ndarray:
        """(S,)."""
        return np.bincount(self.rows, minlength=self.num_rows)

    @property
    def starts(self) -> np.ndarray:
        """(S,): where in `items` each list begins."""
        return np.cumsum(self.lengths) - self.lengths

    def where(self, kept: np.ndarray) -> "_Lists":
        """The items where a flag (E,) is set."""
        return _Lists(self.items[kept], self.rows[kept], self.num_rows)

    def totals(self, values: np.ndarray) -> np.ndarray:
        """(S,): sums of a number per item, (E,)."""
        return np.bincount(self.rows, weights=values, minlength=self.num_rows)

    def pairs(self, num_items: int) -> np.ndarray:
        """(E,): a number unique to each (session, item) pair."""
        return self.rows * num_items + self.items


def _everything(sessions: pa.Table) -> Catalogue:
    """A catalogue of all items in the lists; never empty."""
    names = ("history_item_ids", "target_item_ids", "item_ids")
    parts = [chunk for n in names for chunk in pc.list_flatten(sessions.column(n)).chunks]
    ids = pa.chunked_array([*parts, pa.array([""])], pa.string()).unique()
    return Catalogue(ids.to_numpy(zero_copy_only=False), np.full(len(ids), "NaT", "datetime64[D]"))


def _history_follows(
    users: np.ndarray, history: _Lists, positives: _Lists, history_length: int
) -> np.ndarray:
    """Whether each history equals the previous session's history plus its positives.

    This detects leakage: a history with items of its own or a later session would be longer or end
    differently. The first session of a user has no predecessor and passes.

    Args:
        users: (S,) user of each session; sessions in order of time.
        history: Of each session.
        positives: Positive exposures of each session.
        history_length: n, the longest history.

    Returns:
        (S,) bool.
    """
    num_history, num_positives = history.lengths, positives.lengths
    by_user = np.argsort(users, kind="stable")
    before = np.full(len(users), -1)
    same_user = users[by_user[1:]] == users[by_user[:-1]]
    before[by_user[1:][same_user]] = by_user[:-1][same_user]

    known = num_history[before] + num_positives[before]  # all that the session before can pass on
    follows = (before < 0) | (num_history == np.minimum(known, history_length))
    # what is left of the history before stands first, positives of the session before last
    checked = np.flatnonzero(follows & (before >= 0))
    previous, own = before[checked], history.starts[checked]
    forgotten = known[checked] - num_history[checked]
    of_history = np.maximum(num_history[previous] - forgotten, 0)
    of_positives = num_history[checked] - of_history
    after = positives.starts[previous] + num_positives[previous]
    for source, begin, at, lengths in (
        (history, history.starts[previous] + forgotten, own, of_history),
        (positives, after - of_positives, own + of_history, of_positives),
    ):
        differs = source.items[ranges(begin, lengths)] != history.items[ranges(at, lengths)]
        follows[np.repeat(checked, lengths)[differs]] = False
    return follows
