"""Repeat consumption: usual for groceries, music and news, rare for short videos.

Shapes: S sessions, E events.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onerec.artifacts import read_json
from onerec.config import BeamConfig, SessionConfig
from onerec.session_dataset.reader import exposure_flags, read_sessions
from onerec.session_dataset.splits import LEARNED

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
    columns = ["user_id", "session_date", "history_item_ids", "item_ids", "is_watched", "split"]
    table = read_sessions(directory, LEARNED, columns)
    lists = ("item_ids", "history_item_ids")
    shown, past = (_pairs(table, name) for name in lists)
    watched = exposure_flags(table, "is_watched")
    is_valid = pc.equal(table.column("split"), "valid").to_numpy(zero_copy_only=False)
    row = _rows(table, "item_ids")
    now = shown.filter(pa.array(watched & is_valid[row]))
    # histories of later sessions include items of the same day: only the first session's counts
    user = table.column("user_id").to_numpy(zero_copy_only=False).astype(str)
    started_first = np.zeros(table.num_rows, dtype=bool)
    in_split = np.flatnonzero(is_valid)
    started_first[in_split[np.unique(user[in_split], return_index=True)[1]]] = True
    kept = ~is_valid | started_first
    had = [
        shown.filter(pa.array(watched & ~is_valid[row])),
        past.filter(pa.array(kept[_rows(table, "history_item_ids")])),
    ]
    if not len(now):
        return 0.0
    known = pc.is_in(now, value_set=pa.concat_arrays(had))
    return float(pc.mean(known).as_py())


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


def _pairs(table: pa.Table, name: str) -> pa.Array:
    """(E,) one text per (user, item) pair of a list column, unique by including lengths."""
    items = pc.list_flatten(table.column(name))
    users = table.column("user_id").take(pa.array(_rows(table, name)))
    size = pc.cast(pc.utf8_length(users), pa.string())
    return pc.binary_join_element_wise(size, users, items, "|").combine_chunks()
