"""Reads a session dataset: columns of some splits, and list columns as flat values.

Item ids become indices into a catalogue, -1 for unknown items. Shapes: S sessions, E values
of a list column.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from onerec.artifacts import MANIFEST, read_json
from onerec.catalogue import Catalogue
from onerec.config import SessionConfig
from onerec.config.feedback import VIDEO_SIGNALS, Feedback, Signal
from onerec.schema import SESSION_DATASET, SPLITS

BATCH_ROWS = 20_000
"""Sessions that are read at once where they need not all be in memory."""
Ints = npt.NDArray[np.int64]
INTERACTIONS = ("is_like", "is_follow", "is_comment", "is_share")
"""Exposure columns any of which makes an exposure a positive interaction."""


def open_sessions(directory: Path, splits: Sequence[str] = SPLITS) -> pads.Dataset:
    """The files of some splits, in order; no rows where a split has no files.

    Raises:
        ValueError: A split is unknown, or the directory holds none.
    """
    for split in splits:
        if split not in SPLITS:
            raise ValueError(f"split={split!r}: use one of {', '.join(SPLITS)}")
    files = [str(f) for s in splits for f in sorted((directory / f"split={s}").glob("*.parquet"))]
    if files:
        return pads.dataset(files, format="parquet")
    if not any((directory / f"split={s}").is_dir() for s in SPLITS):
        raise ValueError(f"{directory}: no split=... directory, so this is no session_dataset")
    return pads.dataset(SESSION_DATASET.empty_table())


def read_sessions(
    directory: Path,
    splits: Sequence[str],
    columns: Sequence[str],
    *,
    good_only: bool = False,
    in_time_order: bool = False,
) -> pa.Table:
    """Columns of some splits.

    Args:
        directory: Files of a `session_dataset` artifact.
        splits: `train`, `valid`, `test`.
        columns: Of `schema.SESSION_DATASET`.
        good_only: Leave out sessions that are not good.
        in_time_order: Order by (started_at, session_id), which are read as well; otherwise the
            order is that of the files.

    Raises:
        ValueError: A split is unknown, a column is missing, or this is no session dataset.
    """
    order = ["started_at", "session_id"] if in_time_order else []
    wanted = list(dict.fromkeys([*columns, *order]))
    dataset = _with_columns(directory, splits, wanted)
    table = dataset.to_table(columns=wanted, filter=pc.field("is_good") if good_only else None)
    return sorted_by_time(table) if in_time_order else table


def sorted_by_time(sessions: pa.Table) -> pa.Table:
    """Sessions ordered by (started_at, session_id). Sorting copies every list, so it is left out
    where they are in order already, as the files of a dataset are."""
    names = ("started_at", "session_id")
    (time, later_time), (id_, later_id) = (
        (sessions.column(n).slice(0, max(len(sessions) - 1, 0)), sessions.column(n).slice(1))
        for n in names
    )
    follows = pc.or_(
        pc.less(time, later_time),
        pc.and_(pc.equal(time, later_time), pc.less_equal(id_, later_id)),
    )
    if pc.all(follows, skip_nulls=False, min_count=0).as_py():
        return sessions
    return sessions.sort_by([(name, "ascending") for name in names])


def session_batches(
    directory: Path, split: str, columns: Sequence[str], *, good_only: bool = False
) -> Iterator[pa.Table]:
    """Columns of one split in the order of its files, at most `BATCH_ROWS` sessions at a time.

    At least one batch, if only an empty one. Arguments and errors are those of `read_sessions`.
    """
    dataset = _with_columns(directory, [split], columns)
    batches = dataset.to_batches(
        columns=list(columns),
        filter=pc.field("is_good") if good_only else None,
        batch_size=BATCH_ROWS,
        batch_readahead=1,
        fragment_readahead=1,
    )
    yield dataset.schema.empty_table().select(list(columns))
    for batch in batches:
        yield pa.Table.from_batches([batch])


def _with_columns(directory: Path, splits: Sequence[str], wanted: Sequence[str]) -> pads.Dataset:
    dataset = open_sessions(directory, splits)
    missing = sorted(set(wanted) - set(dataset.schema.names))
    if missing:
        raise ValueError(
            f"{directory}: columns {', '.join(missing)} are missing; the session_dataset was "
            "written by another version, materialise it again"
        )
    return dataset


def read_session_config(directory: Path) -> SessionConfig:
    """The settings a `session_dataset` artifact was built with, from its manifest.

    Lengths of histories and sessions come from here, since the current settings may differ.
    """
    built_with = read_json(directory / MANIFEST)["config"]["sessions"]
    known = {f.name for f in dataclasses.fields(SessionConfig)}
    return SessionConfig(**{name: v for name, v in built_with.items() if name in known})


def read_signals(directory: Path) -> tuple[Signal, ...]:
    """The signals that a `session_dataset` artifact's log declares, in the order of its column.

    They are in its manifest; without a manifest the video signals are assumed.
    """
    if not (directory / MANIFEST).exists():
        return VIDEO_SIGNALS
    declared = read_json(directory / MANIFEST)["config"].get("feedback")
    return VIDEO_SIGNALS if declared is None else Feedback.model_validate(declared).signals


def users_of(sessions: pa.Table) -> tuple[np.ndarray, Ints]:
    """(U,) distinct users, sorted, and (S,) the index of each session's user."""
    names = sessions.column("user_id")
    user_ids = names.unique().sort()
    user = pc.index_in(names, value_set=user_ids).to_numpy().astype(np.int64)
    return user_ids.to_numpy(zero_copy_only=False).astype(object), user


def dates_of(sessions: pa.Table) -> np.ndarray:
    """(S,) datetime64[D], the day of each session."""
    return sessions.column("session_date").to_numpy().astype("datetime64[D]")


def items_of(sessions: pa.Table, name: str, catalogue: Catalogue) -> tuple[Ints, Ints]:
    """(E,) item index (-1: unknown) and (E,) session of every value of a list column."""
    lengths = _lengths(sessions, name).to_numpy()
    rows = np.repeat(np.arange(sessions.num_rows), lengths)
    return catalogue.index_of(pc.list_flatten(sessions.column(name))), rows


def known_items_of(sessions: pa.Table, name: str, catalogue: Catalogue) -> tuple[Ints, Ints]:
    """As `items_of`, without unknown items."""
    items, rows = items_of(sessions, name, catalogue)
    return items[items >= 0], rows[items >= 0]


def exposure_flags(sessions: pa.Table, name: str) -> npt.NDArray[np.bool_]:
    """(E,) booleans of a list column parallel to `item_ids`; null is false."""
    values = pc.fill_null(_per_exposure(sessions, name), False)
    return values.to_numpy(zero_copy_only=False).astype(np.bool_)


def exposure_signals(sessions: pa.Table, num_signals: int) -> npt.NDArray[np.bool_]:
    """(E, num_signals) booleans: whether each declared signal's condition holds.

    Raises:
        ValueError: An exposure has another number of signals.
    """
    values = pc.fill_null(pc.list_flatten(_per_exposure(sessions, "signals")), False)
    num_exposures = pc.sum(_lengths(sessions, "item_ids")).as_py() or 0
    if len(values) != num_exposures * num_signals:
        raise ValueError(
            f"session_dataset: {len(values)} signals for {num_exposures} exposures and "
            f"{num_signals} declared signals; materialise it again"
        )
    flat = values.to_numpy(zero_copy_only=False).astype(np.bool_)
    return flat.reshape(num_exposures, num_signals)


def exposure_numbers(sessions: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """(E,) numbers of a list column parallel to `item_ids`; null, NaN, false are 0, true is 1."""
    values = _per_exposure(sessions, name).cast(pa.float64())
    return np.nan_to_num(values.to_numpy(zero_copy_only=False))


def flags(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """(S,) booleans; null is false."""
    return pc.fill_null(column, False).to_numpy(zero_copy_only=False).astype(np.bool_)


def _per_exposure(sessions: pa.Table, name: str) -> pa.ChunkedArray:
    if not _lengths(sessions, name).equals(_lengths(sessions, "item_ids")):
        raise ValueError(
            f"session_dataset: {name} and item_ids differ in length within a row; materialise it "
            "again"
        )
    return pc.list_flatten(sessions.column(name))


def _lengths(sessions: pa.Table, name: str) -> pa.ChunkedArray:
    lengths = pc.list_value_length(sessions.column(name))
    return pc.fill_null(lengths.cast(pa.int64()), 0)
