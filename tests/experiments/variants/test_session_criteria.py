"""Sessions filtered and cut otherwise, against loops over sessions."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.variants.session_criteria import cut_targets, rebuild_sessions
from onerec.config import SessionConfig
from onerec.schema import SESSION_DATASET
from onerec.session_dataset.user_sequences import load_user_sequences
from tests.core.evaluation import night as small

EVE = small.DAY - timedelta(days=1)


def random_sessions(num: int, seed: int) -> list[dict]:
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(num):
        row = small.session(f"u{n}", EVE, [f"i{i}" for i in range(int(rng.integers(1, 6)))])
        history = [f"h{i}" for i in range(int(rng.integers(0, 5)))]
        targets = [f"t{n}{i}" for i in range(int(rng.integers(0, 6)))]
        rows.append({**row, "history_item_ids": history, "target_item_ids": targets})
    return rows


@pytest.mark.parametrize("items", [1, 2, 5])
def test_each_piece_has_the_targets_before_it_in_its_history(items: int):
    rows, length = random_sessions(40, seed=items), 4
    cut = cut_targets(pa.Table.from_pylist(rows, schema=SESSION_DATASET), items, length)
    expected = []
    for row in rows:
        targets = row["target_item_ids"]
        for first in range(0, max(len(targets), 1), items):
            known = row["history_item_ids"] + targets[:first]
            shown = [] if first else row["item_ids"]
            expected.append((known[-length:], targets[first : first + items], shown))
    names = ("history_item_ids", "target_item_ids", "item_ids")
    assert [tuple(row[n] for n in names) for row in cut.to_pylist()] == expected
    assert cut.schema.equals(SESSION_DATASET)
    ids = cut.column("session_id").to_pylist()
    assert len(set(ids)) == len(ids)


def test_what_was_watched_is_there_once_however_sessions_are_cut(tmp_path: Path):
    shown = [[f"i{i:02d}" for i in range(n, n + 4)] for n in range(3)]
    rows = [small.session("u", EVE - timedelta(days=2 - n), i) for n, i in enumerate(shown)]
    rows = [{**row, "session_id": f"s{n}", "split": "train"} for n, row in enumerate(rows)]
    source = small.write_sessions(tmp_path / "source", rows)
    published = SessionConfig()
    rebuild_sessions(
        source, tmp_path / "cut", replace(published, session_items=1), published, small.DAY
    )
    before, after = (load_user_sequences(d, small.catalogue()) for d in (source, tmp_path / "cut"))
    assert len(before.item), "the sessions hold something watched"
    assert np.array_equal(after.item, before.item)
    assert np.array_equal(after.user, before.user)


def kept(directory: Path) -> list[str]:
    table = pq.read_table(directory / "split=valid" / "part-00000.parquet")
    return [row["user_id"] for row in table.to_pylist() if row["is_good"]]


@pytest.mark.parametrize(
    ("criteria", "good"),
    [
        ((1, 0.0, 0), ["few", "short", "liked"]),
        ((3, 0.0, 0), ["short", "liked"]),
        ((1, 45.0, 0), ["liked"]),
        ((1, 0.0, 1), ["liked"]),
        ((3, 45.0, 1), ["liked"]),
        ((5, 0.0, 0), []),
    ],
)
def test_a_criterion_alone_decides(tmp_path: Path, criteria: tuple, good: list[str]):
    def row(user: str, num: int, seconds: float, liked: bool) -> dict:
        made = small.session(user, EVE, [f"i{i}" for i in range(num)])
        return {**made, "watch_seconds": [seconds] * num, "is_like": [liked] * num}

    rows = [row("few", 2, 20.0, False), row("short", 4, 5.0, False), row("liked", 4, 20.0, True)]
    source = small.write_sessions(tmp_path / "source", rows)
    items, seconds, interactions = criteria
    wanted = SessionConfig(
        good_min_watched_items=items,
        good_min_watch_seconds=seconds,
        good_min_positive_interactions=interactions,
    )
    out = tmp_path / "out"
    counts = rebuild_sessions(
        source, out, wanted, SessionConfig(), date.fromisoformat("2026-06-14")
    )
    assert kept(out) == good
    assert counts["good valid"] == len(good)
    assert not (out / "split=test").exists(), "the cases of the test day never change"
