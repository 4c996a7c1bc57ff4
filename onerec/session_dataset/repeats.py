"""Repeat consumption: usual for groceries, music and news, rare for short videos.

Shapes: S sessions, E events.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from onerec.artifacts import read_json
from onerec.config import BeamConfig, SessionConfig
from onerec.session_dataset.reader import exposure_flags, open_sessions, read_sessions

STATS = "stats.json"


def repeat_share(directory: Path) -> float:
    """Share of the validation day's watched events whose item the user had on an earlier day.

    An item counts as had if it was watched on a training day of the window or is in a history. The
    test day is not used, since recommendations for it must not depend on it.

    Args:
        directory: Files of a `session_dataset` artifact.

    Returns:
        A number in [0, 1]; 0 without such an event.
    """
    columns = ["user_id", "history_item_ids", "item_ids", "is_watched"]
    valid = read_sessions(directory, ["valid"], columns)
    watched = exposure_flags(valid, "is_watched")
    pairs = _Pairs(
        valid.column("user_id").unique(),
        pc.list_flatten(valid.column("item_ids")).filter(pa.array(watched)).unique(),
    )
    now, count = np.unique(pairs.of(valid, "item_ids", watched), return_counts=True)
    if not len(now):
        return 0.0
    found = _Found(now)
    # histories of later sessions include items of the same day: only the first session's counts
    user = valid.column("user_id").to_numpy(zero_copy_only=False).astype(str)
    opens = valid.take(pa.array(np.sort(np.unique(user, return_index=True)[1])))
    found.add(pairs.of(opens, "history_item_ids"))
    for batch in open_sessions(directory, ["train"]).to_batches(columns=columns):
        train = pa.Table.from_batches([batch])
        train = train.filter(pc.is_in(train.column("user_id"), value_set=pairs.users))
        found.add(pairs.of(train, "item_ids", exposure_flags(train, "is_watched")))
        found.add(pairs.of(train, "history_item_ids"))
    return float(count[found.among].sum() / count.sum())


class _Found:
    """Which of some numbers came: a hash table of them is made once, and not of all that come.

    Attributes:
        among: (N,) bool.
    """

    def __init__(self, numbers: np.ndarray):
        self._index = pd.Index(numbers)
        self.among = np.zeros(len(numbers), dtype=bool)

    def add(self, came: np.ndarray) -> None:
        place = self._index.get_indexer(pd.Index(came))
        self.among[place[place >= 0]] = True


@dataclass(frozen=True)
class _Pairs:
    """Numbers for (user, item) pairs of some users and items."""

    users: pa.Array
    items: pa.Array

    def of(self, sessions: pa.Table, name: str, kept: np.ndarray | None = None) -> np.ndarray:
        """A number for each value of a list column, of those that are kept; others are left out."""
        rows = _rows(sessions, name)
        user = _index(sessions.column("user_id"), self.users)[rows]
        item = _index(pc.list_flatten(sessions.column(name)), self.items)
        known = (user >= 0) & (item >= 0)
        if kept is not None:
            known &= kept
        return user[known] * len(self.items) + item[known]


def _index(values: pa.ChunkedArray, known: pa.Array) -> np.ndarray:
    """(E,) where each value is among the known ones, -1 if it is not."""
    found = pc.fill_null(pc.index_in(values, value_set=known).cast(pa.int64()), -1)
    return found.to_numpy(zero_copy_only=False)


def repeat_facts(directory: Path, config: SessionConfig) -> dict[str, Any]:
    """`repeat_share` and `repeats` of a session dataset, for its `stats.json`."""
    share = repeat_share(directory)
    return {"repeat_share": share, "repeats": may_repeat(config, share)}


def may_repeat(config: SessionConfig, share: float) -> bool:
    """Whether a log repeats: as declared, or by its repeat share."""
    if config.repeats == "auto":
        return share >= config.min_repeat_share
    return config.repeats == "always"


def with_seen_items(decoding: BeamConfig, session_dataset: Path) -> BeamConfig:
    """The decoding of a data set: items of the history are left out only where it does not repeat.

    Args:
        decoding: Where its `filter_seen` is already False, it stays so.
        session_dataset: Files of the artifact; one without `stats.json` does not repeat.
    """
    file = session_dataset / STATS
    found = file.exists() and read_json(file).get("repeats", False)
    return dataclasses.replace(decoding, filter_seen=decoding.filter_seen and not found)


def _rows(table: pa.Table, name: str) -> np.ndarray:
    lengths = pc.fill_null(pc.list_value_length(table.column(name)), 0).to_numpy()
    return np.repeat(np.arange(table.num_rows), lengths)
