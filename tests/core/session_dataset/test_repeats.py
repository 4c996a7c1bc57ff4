"""The repeat share against plain Python, and what follows from it."""

import json
from pathlib import Path

import pytest

from onerec.config import BeamConfig, SessionConfig
from onerec.session_dataset.repeats import may_repeat, repeat_share, with_seen_items
from tests.core.session_dataset.test_readers import random_rows
from tests.core.training.small import write_session_dataset


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_repeat_share_matches_plain_python(tmp_path: Path, seed: int) -> None:
    rows = random_rows(seed, num=200)
    write_session_dataset(tmp_path, rows)
    had: dict[str, set[str]] = {}
    first: set[str] = set()
    for row in rows:
        items = had.setdefault(row["user_id"], set())
        if row["split"] == "train":
            items |= set(row["history_item_ids"] or [])
            items |= {i for i, w in zip(row["item_ids"], row["is_watched"], strict=True) if w}
        elif row["split"] == "valid" and row["user_id"] not in first:
            first.add(row["user_id"])
            items |= set(row["history_item_ids"] or [])
    watched = [
        (row["user_id"], item)
        for row in rows
        if row["split"] == "valid"
        for item, was in zip(row["item_ids"], row["is_watched"], strict=True)
        if was
    ]
    expected = sum(item in had[user] for user, item in watched) / len(watched)
    assert repeat_share(tmp_path) == pytest.approx(expected)
    assert 0 < expected < 1


def test_the_test_day_takes_no_part(tmp_path: Path) -> None:
    rows = random_rows(0)
    write_session_dataset(tmp_path / "with", rows)
    write_session_dataset(tmp_path / "without", [r for r in rows if r["split"] != "test"])
    assert repeat_share(tmp_path / "with") == repeat_share(tmp_path / "without")
    write_session_dataset(tmp_path / "none", [r for r in rows if r["split"] == "train"])
    assert repeat_share(tmp_path / "none") == 0


@pytest.mark.parametrize(
    ("declared", "share", "expected"),
    [("auto", 0.24, False), ("auto", 0.25, True), ("always", 0.0, True), ("never", 1.0, False)],
)
def test_what_is_declared_wins(declared: str, share: float, expected: bool) -> None:
    assert may_repeat(SessionConfig(repeats=declared), share) == expected  # pyright: ignore


def test_what_counts_as_repeating_is_a_setting() -> None:
    assert not may_repeat(SessionConfig(min_repeat_share=0.31), 0.3)
    assert may_repeat(SessionConfig(min_repeat_share=0.3), 0.3)


@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("repeated", [True, False])
def test_seen_items_are_left_out_only_where_nothing_repeats(
    tmp_path: Path, filter_seen: bool, repeated: bool
) -> None:
    (tmp_path / "stats.json").write_text(json.dumps({"repeats": repeated}))
    decoding = with_seen_items(BeamConfig(filter_seen=filter_seen), tmp_path)
    assert decoding.filter_seen == (filter_seen and not repeated)
