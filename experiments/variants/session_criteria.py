"""Rebuilds a nightly run's sessions with other good-session criteria or shorter targets.

Only the training and validation splits are rebuilt: the cases of the test day never change.
"""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experiments.variants.variant import CRITERIA
from onerec.config import SessionConfig
from onerec.schema import SESSION_DATASET
from onerec.session_dataset.reader import read_sessions
from onerec.session_dataset.session_checks import recount_sessions
from onerec.session_dataset.splits import LEARNED
from onerec.session_dataset.user_attributes import USERS_FILE
from onerec.session_dataset.writer import write_split


def rebuild_sessions(
    source: Path, out_dir: Path, config: SessionConfig, published: SessionConfig, day: date
) -> dict[str, int]:
    """Write the training and validation splits with other settings.

    `is_good` is computed again from each session. Targets are split, not dropped: a session with
    five targets becomes five examples for `session_items=1`, each with the earlier targets at the
    end of its history, which is next-item prediction.

    Args:
        source: Files of the `session_dataset` artifact.
        out_dir: Gets `split=<name>/part-00000.parquet`, and what is known of users.
        config: The new criteria, `session_items` and `history_length`.
        published: Settings that the artifact was made with.
        day: The test day.

    Returns:
        Rows and good rows per split.
    """
    counts = {}
    for split in LEARNED:
        table = read_sessions(source, [split], SESSION_DATASET.names)
        criteria = replace(published, **_criteria(config))
        good = recount_sessions(table, criteria, day).column("meets_criteria")
        place = table.schema.get_field_index("is_good")
        table = table.set_column(place, SESSION_DATASET.field("is_good"), good)
        if config.session_items < published.session_items:
            table = cut_targets(table, config.session_items, config.history_length)
        counts |= {split: table.num_rows, f"good {split}": pc.sum(table.column("is_good")).as_py()}
        write_split(table, split, out_dir)
    if (source / USERS_FILE).exists():
        shutil.copyfile(source / USERS_FILE, out_dir / USERS_FILE)
    return counts


def cut_targets(table: pa.Table, session_items: int, history_length: int) -> pa.Table:
    """Split each session into sessions of at most M targets, in order.

    Later parts have the earlier targets at the end of their history. Only the first part keeps the
    exposures of the session, so that they are learned once.

    Args:
        table: `schema.SESSION_DATASET`.
        session_items: M.
        history_length: n, the longest history.
    """
    history, targets = (
        table.column(name).combine_chunks() for name in ("history_item_ids", "target_item_ids")
    )
    num_history, num_targets = (
        pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
        for column in (history, targets)
    )
    pieces = np.maximum(-(-num_targets // session_items), 1)
    row = np.repeat(np.arange(table.num_rows), pieces)
    number = _ranges(np.zeros_like(pieces), pieces)
    # history and targets of a session, one after the other: every piece is two windows of it
    together = pa.concat_arrays([pc.list_flatten(history), pc.list_flatten(targets)])
    order = _interleaved(num_history, num_targets)
    start = np.cumsum(num_history + num_targets) - num_history - num_targets
    first = num_history[row] + number * session_items  # of the piece's targets, in its session
    kept = np.minimum(first, history_length)
    length = np.minimum(session_items, num_history[row] + num_targets[row] - first)

    def windows(begin: np.ndarray, size: np.ndarray) -> pa.Array:
        values = together.take(pa.array(order[_ranges(start[row] + begin, size)]))
        offsets = np.concatenate([[0], np.cumsum(size)]).astype(np.int32)
        return pa.ListArray.from_arrays(offsets, values)

    cut = {
        "history_item_ids": windows(first - kept, kept),
        "target_item_ids": windows(first, length),
        "session_id": pc.binary_join_element_wise(
            table.column("session_id").combine_chunks().take(pa.array(row)),
            pa.array(number.astype(str)),
            "#",
        ),
    }
    taken = table.take(pa.array(row))
    exposures = [f.name for f in table.schema if pa.types.is_list(f.type) and f.name not in cut]
    for name in exposures:
        shown = table.column(name).combine_chunks()
        length = pc.fill_null(pc.list_value_length(shown), 0).to_numpy()[row]
        ends = np.cumsum(np.where(number == 0, length, 0))
        offsets = np.concatenate([[0], ends]).astype(np.int32)
        cut[name] = pa.ListArray.from_arrays(offsets, pc.list_flatten(shown))
    for name, column in cut.items():
        place = taken.schema.get_field_index(name)
        taken = taken.set_column(place, SESSION_DATASET.field(name), column)
    return taken.cast(SESSION_DATASET)


def _criteria(config: SessionConfig) -> dict[str, float]:
    return {name: getattr(config, name) for name in CRITERIA}


def _ranges(begin: np.ndarray, size: np.ndarray) -> np.ndarray:
    """begin[0], begin[0] + 1, ... (size[0] of them), begin[1], ...

    >>> _ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(size)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(begin - ends + size, size)


def _interleaved(num_a: np.ndarray, num_b: np.ndarray) -> np.ndarray:
    """Index into all of a followed by all of b that interleaves them row by row."""
    total = int(num_a.sum())
    starts = np.stack([np.cumsum(num_a) - num_a, total + np.cumsum(num_b) - num_b], 1).ravel()
    return _ranges(starts, np.stack([num_a, num_b], 1).ravel())
