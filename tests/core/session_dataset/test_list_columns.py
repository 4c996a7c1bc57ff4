"""Lists cut from flat rows against plain Python, whatever the batches."""

import itertools
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest

from onerec.session_dataset.list_columns import EXPOSURE_LISTS, with_exposures, with_histories

MOMENTS = pa.schema([("user_id", pa.string()), ("id", pa.string()), ("is_item", pa.bool_())])
EXPOSURES = pa.schema(
    [
        ("session_row", pa.int64()),
        ("is_first_watch", pa.bool_()),
        *((name, pa.bool_()) for name in EXPOSURE_LISTS.values() if name.startswith("is_")),
        ("item_id", pa.string()),
        ("watch_seconds", pa.float64()),
        ("signals", pa.list_(pa.bool_())),
    ]
)


def moments(seed: int) -> list[dict]:
    rng = np.random.default_rng(seed)
    rows = []
    for user, num in enumerate(rng.integers(1, 30, 12)):
        for n in range(num):
            is_item = bool(rng.random() < 0.6)
            rows.append({"user_id": f"u{user}", "id": f"{user}.{n}", "is_item": is_item})
    return rows


@pytest.mark.parametrize("batch_rows", [1, 3, 7, 1000])
@pytest.mark.parametrize("history_length", [1, 4, 50])
def test_histories_are_the_last_items_of_the_user_before(
    batch_rows: int, history_length: int
) -> None:
    rows = moments(seed=batch_rows)
    had: dict[str, list[str]] = defaultdict(list)
    wanted = []
    for row in rows:
        if row["is_item"]:
            had[row["user_id"]].append(row["id"])
        else:
            last = had[row["user_id"]][-history_length:]
            wanted.append({"session_id": row["id"], "history_item_ids": last})
    batches = pa.Table.from_pylist(rows, MOMENTS).to_batches(max_chunksize=batch_rows)
    found = [r for batch in with_histories(batches, history_length) for r in batch.to_pylist()]
    assert found == wanted
    assert any(len(row["history_item_ids"]) == min(history_length, 8) for row in wanted)


def exposures(seed: int) -> list[dict]:
    rng = np.random.default_rng(seed)
    flags = [name for name in EXPOSURES.names if name.startswith("is_")]
    return [
        {
            "session_row": session,
            "item_id": f"i{rng.integers(9)}",
            "watch_seconds": float(rng.random()) if rng.random() < 0.9 else None,
            "signals": [bool(b) for b in rng.random(3) < 0.5],
            **{name: bool(rng.random() < 0.5) for name in flags},
        }
        for session, num in enumerate(rng.integers(1, 9, 40))
        for _ in range(num)
    ]


def as_reader(rows: list[dict], batch_rows: int) -> pa.RecordBatchReader:
    return pa.Table.from_pylist(rows, EXPOSURES).to_reader(max_chunksize=batch_rows)


@pytest.mark.parametrize(("session_rows", "batch_rows"), [(1, 1), (3, 5), (7, 1000), (1000, 2)])
@pytest.mark.parametrize("most", [1, 3])
def test_lists_are_the_exposures_of_the_session(
    session_rows: int, batch_rows: int, most: int
) -> None:
    rows = exposures(seed=most)
    wanted = []
    for session, group in itertools.groupby(rows, key=lambda row: row["session_row"]):
        own = list(group)
        lists = {name: [r[of] for r in own] for name, of in EXPOSURE_LISTS.items()}
        targets = [r["item_id"] for r in own if r["is_first_watch"]][:most]
        wanted.append({"session_id": f"s{session}", **lists, "target_item_ids": targets})
    counted = [
        {"session_row": n, "session_id": row["session_id"], "num_exposures": len(row["item_ids"])}
        for n, row in enumerate(wanted)
    ]
    batches = pa.Table.from_pylist(counted).to_batches(max_chunksize=session_rows)
    found = with_exposures(batches, as_reader(rows, batch_rows), most)
    assert [row for batch in found for row in batch.to_pylist()] == wanted
    assert any(not row["target_item_ids"] for row in wanted)


@pytest.mark.parametrize(
    ("sessions", "message"),
    [
        ({1: 2, 2: 2}, "not as many rows"),  # the rows end first
        ({1: 1, 2: 2}, "not as many rows"),  # rows of 1 are taken for those of 2
        ({1: 2}, "more than the sessions count"),
        ({1: 2, 3: 1}, "not as many rows"),
    ],
)
def test_sessions_and_rows_of_two_builds_stop(sessions: dict[int, int], message: str) -> None:
    rows = exposures(seed=0)[:3]
    for row, session in zip(rows, (1, 1, 2), strict=True):
        row["session_row"] = session
    counted = pa.table({"session_row": list(sessions), "num_exposures": list(sessions.values())})
    with pytest.raises(ValueError, match=message):
        list(with_exposures(counted.to_batches(), as_reader(rows, 2), 5))


def test_no_session_at_all() -> None:
    empty = pa.table({name: pa.array([], pa.int64()) for name in ("session_row", "num_exposures")})
    assert list(with_histories([], 3)) == []
    found = [r for b in with_exposures(empty.to_batches(), as_reader([], 2), 3) for r in [b]]
    assert sum(batch.num_rows for batch in found) == 0
