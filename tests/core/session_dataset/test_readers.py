"""The vectorised readers against plain Python over the same rows."""

import json
import random
import statistics
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from onerec.artifacts import MANIFEST
from onerec.config import RewardConfig
from onerec.config.feedback import CONTINUED, FEEDBACK, DeclaredFeedback, Feedback
from onerec.reward.scoring import tower_weights
from onerec.schema import SESSION_DATASET
from onerec.session_dataset.eval_users import load_eval_users
from onerec.session_dataset.generator_sessions import load_session_tensors
from onerec.session_dataset.histories import load_serving_histories
from onerec.session_dataset.reader import sorted_by_time
from onerec.session_dataset.reward_blocks import (
    RewardThresholds,
    load_reward_blocks,
)
from onerec.tokenizer.semantic_ids import SemanticIds
from tests.core.training.small import video_signals, write_session_dataset

NUM_ITEMS = 25
H, M = 4, 3
FIRST, TEST_DAY = date(2026, 6, 1), date(2026, 6, 5)
Row = dict[str, Any]


@pytest.fixture(scope="module")
def catalogue() -> SemanticIds:
    """Items i0..i24, in an order that is not alphabetical; i20..i24 first seen on the test day."""
    days = [TEST_DAY if n >= 20 else FIRST for n in range(NUM_ITEMS)]
    return SemanticIds(
        item_ids=np.array([f"i{n}" for n in range(NUM_ITEMS)], dtype=object),
        codes=torch.stack([torch.arange(NUM_ITEMS) // 5, torch.arange(NUM_ITEMS) % 5], dim=-1),
        tokenizer_version="g",
        first_seen=np.array(days, dtype="datetime64[D]"),
        codebook_size=5,
    )


def random_rows(seed: int, num: int = 120) -> list[Row]:
    """Sessions of a few users with unknown items, nulls, empty and long histories, repeats."""
    rng = random.Random(seed)
    rows: list[Row] = []
    for n in range(num):
        day = rng.randrange(5)
        size = rng.randrange(1, 9)
        items = [f"i{rng.randrange(NUM_ITEMS + 6)}" for _ in range(size)]
        watched = [rng.random() < 0.5 for _ in items]
        started = datetime(2026, 6, 1 + day, rng.randrange(20), tzinfo=UTC)
        rows.append(
            {
                "session_id": f"s{n:04d}",
                "user_id": f"u{rng.randrange(15)}",
                "session_date": FIRST + timedelta(days=day),
                "started_at": started,
                "history_item_ids": rng.choice(
                    [
                        None,
                        [],
                        [f"i{rng.randrange(NUM_ITEMS + 6)}" for _ in range(rng.randrange(9))],
                    ]
                ),
                "item_ids": items,
                "watch_seconds": [rng.choice([0.0, 3.0, 10.0, 40.0]) for _ in items],
                "is_watched": watched,
                "is_positive": [w or rng.random() < 0.1 for w in watched],
                "is_like": [rng.choice([None, False, rng.random() < 0.3]) for _ in items],
                "is_follow": [rng.random() < 0.05 for _ in items],
                "is_comment": [False for _ in items],
                "is_share": [False for _ in items],
                "is_dislike": [False for _ in items],
                "target_item_ids": [i for i, w in zip(items, watched, strict=True) if w][:M],
                "is_good": rng.random() < 0.6,
                "split": ("train", "train", "train", "valid", "test")[day],
            }
        )
    return sorted(rows, key=lambda r: (r["started_at"], r["session_id"]))


def index(item: str) -> int:
    number = int(item[1:])
    return number if number < NUM_ITEMS else -1


def known(items: list[str] | None) -> list[int]:
    return [index(i) for i in items or [] if index(i) >= 0]


def padded(items: list[int], width: int) -> list[int]:
    return items + [-1] * (width - len(items))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("good_only", [True, False])
def test_sessions_match_plain_python(
    tmp_path: Path, catalogue: SemanticIds, seed: int, good_only: bool
) -> None:
    rows = random_rows(seed)
    write_session_dataset(tmp_path, rows)
    for split in ("train", "valid", "test"):
        expected = [
            (
                row["user_id"],
                padded(known(row["history_item_ids"])[-H:], H),
                padded(known(row["target_item_ids"])[:M], M),
                row["is_good"],
                row["session_date"],
            )
            for row in rows
            if row["split"] == split
            and (row["is_good"] or not good_only)
            and known(row["target_item_ids"])
        ]
        tensors = load_session_tensors(
            tmp_path, split, catalogue, history_length=H, session_items=M, good_only=good_only
        )
        got = list(
            zip(
                tensors.user_ids[tensors.user].tolist(),
                tensors.history.tolist(),
                tensors.targets.tolist(),
                tensors.is_good.tolist(),
                tensors.date.tolist(),
                strict=True,
            )
        )
        assert got == expected
        assert len(tensors) == len(expected) > 0
        assert tensors.history.dtype == tensors.targets.dtype == torch.int32


def blocks_in_plain_python(rows: list[Row]) -> list[tuple[Row, list[int], list[Row]]]:
    """(session, items, exposures) of every block of M known exposures."""
    blocks = []
    for row in rows:
        shown = [
            {k: row[k][n] for k in ("watch_seconds", "is_watched", "is_follow", "is_like")}
            | {"item": index(item)}
            for n, item in enumerate(row["item_ids"])
            if index(item) >= 0
        ]
        for start in range(0, len(shown), M):
            part = shown[start : start + M]
            blocks.append((row, [e["item"] for e in part], part))
    return blocks


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reward_blocks_match_plain_python(
    tmp_path: Path, catalogue: SemanticIds, seed: int
) -> None:
    rows = random_rows(seed)
    write_session_dataset(tmp_path, rows)

    def mean_seconds(part: list[Row]) -> float:
        return sum(e["watch_seconds"] for e in part) / len(part)

    train_blocks = blocks_in_plain_python([r for r in rows if r["split"] == "train"])
    median = statistics.median(mean_seconds(part) for _, _, part in train_blocks)
    read = load_reward_blocks(tmp_path, "valid", catalogue, history_length=H, block_items=M)
    assert read.thresholds == RewardThresholds(mean_watch_seconds=median)
    for split in ("train", "valid", "test"):
        expected = [
            (
                row["user_id"],
                padded(known(row["history_item_ids"])[-H:], H),
                padded(items, M),
                [
                    float(mean_seconds(part) >= median),
                    float(sum(e["is_watched"] for e in part) >= len(part) / 2),
                    float(any(e["is_follow"] for e in part)),
                    float(any(e["is_like"] for e in part)),
                ],
            )
            for row, items, part in blocks_in_plain_python([r for r in rows if r["split"] == split])
        ]
        blocks = load_reward_blocks(tmp_path, split, catalogue, history_length=H, block_items=M)
        got = list(
            zip(
                blocks.user_ids[blocks.user].tolist(),
                blocks.history.tolist(),
                blocks.items.tolist(),
                blocks.labels.tolist(),
                strict=True,
            )
        )
        assert got == expected
        of_split = [r for r in rows if r["split"] == split]
        owners = [row for row, _, _ in blocks_in_plain_python(of_split)]
        assert blocks.session.tolist() == [of_split.index(row) for row in owners]
        assert blocks.place.tolist() == [owners[:n].count(row) for n, row in enumerate(owners)]
        assert blocks.date.tolist() == [row["session_date"] for row in owners]
        clock = [row["started_at"] for row in owners]
        assert blocks.hour.tolist() == pytest.approx([t.hour + t.minute / 60 for t in clock])
        assert len(blocks) == len(expected) > 0
        assert blocks.thresholds.mean_watch_seconds == median


def test_given_thresholds_are_used(tmp_path: Path, catalogue: SemanticIds) -> None:
    write_session_dataset(tmp_path, random_rows(0))
    never = RewardThresholds(mean_watch_seconds=1e9)
    blocks = load_reward_blocks(
        tmp_path, "valid", catalogue, history_length=H, block_items=M, thresholds=never
    )
    assert blocks.labels[:, 0].sum() == 0
    assert blocks.thresholds == never


def test_unwatched_blocks_are_no_long_sessions(tmp_path: Path, catalogue: SemanticIds) -> None:
    """With a median of zero seconds, `swt` still needs some watching."""
    rows = random_rows(0, num=20)
    for n, row in enumerate(rows):
        row["split"] = "train"
        row["watch_seconds"] = [5.0 if n == 0 else 0.0] * len(row["item_ids"])
    write_session_dataset(tmp_path, rows)
    labels = load_reward_blocks(
        tmp_path, "train", catalogue, history_length=H, block_items=M
    ).labels
    assert 0 < labels[:, 0].sum() <= 3
    assert labels[:, 0].sum() < len(labels)


def write_declared(directory: Path, rows: list[Row], feedback: Feedback) -> None:
    write_session_dataset(directory, rows)
    manifest = {"config": {"feedback": feedback.model_dump(mode="json")}}
    (directory / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("seed", [0, 1])
def test_labels_of_declared_signals_match_plain_python(
    tmp_path: Path, catalogue: SemanticIds, seed: int
) -> None:
    """A shop: purchases and carts; a third signal that never occurs, a fourth that always does."""
    rng = random.Random(seed)
    rows = random_rows(seed)
    for row in rows:
        row["signals"] = [
            [rng.random() < 0.2, rng.random() < 0.5, False, True] for _ in row["item_ids"]
        ]
    shop = DeclaredFeedback.model_validate(
        {
            "signals": {
                "purchase": {"event_type": "purchase"},
                "carts": {"when": {"event_type": "cart"}, "of_block": "half", "weight": 3},
                "never": {"event_type": "gift"},
                "always": {"every_event": True},
            }
        }
    ).resolve("shop")
    write_declared(tmp_path, rows, shop)
    blocks = load_reward_blocks(tmp_path, "valid", catalogue, history_length=H, block_items=M)
    expected = []
    for row in (r for r in rows if r["split"] == "valid"):
        shown = [s for s, i in zip(row["signals"], row["item_ids"], strict=True) if index(i) >= 0]
        for start in range(0, len(shown), M):
            part = shown[start : start + M]
            half = 2 * sum(s[1] for s in part) >= len(part)
            expected.append([float(any(s[0] for s in part)), float(half)])
    assert blocks.labels.tolist() == expected
    assert [signal.name for signal in blocks.signals] == ["purchase", "carts"]
    assert blocks.thresholds.missing == ("never", "always")
    assert tower_weights(RewardConfig(), blocks.signals) == [1.0, 3.0]


def test_purchases_only_are_distinguished_by_how_sessions_go_on(
    tmp_path: Path, catalogue: SemanticIds
) -> None:
    rows = random_rows(0)
    for row in rows:
        row["signals"] = [[False, False] for _ in row["item_ids"]]
    write_declared(tmp_path, rows, FEEDBACK["actions"])
    blocks = load_reward_blocks(tmp_path, "train", catalogue, history_length=H, block_items=M)
    assert blocks.signals == (CONTINUED,)
    expected = []
    for row in (r for r in rows if r["split"] == "train"):
        num_blocks = -(-len(known(row["item_ids"])) // M)
        expected += [[float(n + 1 < num_blocks)] for n in range(num_blocks)]
    assert blocks.labels.tolist() == expected
    with pytest.raises(ValueError, match=r"several, liked: none of them .* feedback\.signals"):
        load_reward_blocks(tmp_path, "train", catalogue, history_length=H, block_items=9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_eval_users_match_plain_python(tmp_path: Path, catalogue: SemanticIds, seed: int) -> None:
    rows = random_rows(seed, num=200)
    write_session_dataset(tmp_path, rows)
    targets: dict[str, list[int]] = defaultdict(list)
    history: dict[str, list[int]] = {}
    for row in rows:
        if row["split"] != "test":
            continue
        user = row["user_id"]
        history.setdefault(user, known(row["history_item_ids"])[-H:])
        for item, watched in zip(row["item_ids"], row["is_watched"], strict=True):
            if watched and 0 <= index(item) < 20 and index(item) not in targets[user]:
                targets[user].append(index(item))
    users = sorted(user for user, items in targets.items() if items)
    widest = max(len(targets[user]) for user in users)

    rankable = catalogue.known_before(TEST_DAY)
    cases = load_eval_users(tmp_path, "test", catalogue, history_length=H, rankable=rankable)
    assert cases.user_ids.tolist() == users
    assert cases.history.tolist() == [padded(history[user], H) for user in users]
    assert cases.targets.tolist() == [padded(targets[user], widest) for user in users]
    assert len(cases) == len(users) > 3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_serving_histories_match_plain_python(
    tmp_path: Path, catalogue: SemanticIds, seed: int
) -> None:
    rows = random_rows(seed)
    write_session_dataset(tmp_path, rows)
    expected: dict[str, list[int]] = {}
    for row in rows:  # in time order: a later session replaces an earlier one
        shown = [i for i, p in zip(row["item_ids"], row["is_positive"], strict=True) if p]
        expected[row["user_id"]] = (known(row["history_item_ids"]) + known(shown))[-H:]
    user_ids, history = load_serving_histories(tmp_path, catalogue, history_length=H)
    assert user_ids.tolist() == sorted(expected)
    assert history.tolist() == [padded(expected[user], H) for user in sorted(expected)]


def test_a_split_without_sessions_is_empty(tmp_path: Path, catalogue: SemanticIds) -> None:
    write_session_dataset(tmp_path, [r for r in random_rows(0) if r["split"] == "train"])
    tensors = load_session_tensors(
        tmp_path, "valid", catalogue, history_length=H, session_items=M, good_only=True
    )
    assert len(tensors) == 0
    assert tensors.history.shape == (0, H)
    assert tensors.targets.shape == (0, M)
    assert len(load_eval_users(tmp_path, "test", catalogue, history_length=H)) == 0


def test_a_catalogue_that_knows_nothing(tmp_path: Path, catalogue: SemanticIds) -> None:
    rows = random_rows(0, num=10)
    for row in rows:
        row["split"] = "train"
        row["item_ids"] = [f"other-{i}" for i in row["item_ids"]]
        row["target_item_ids"] = ["other"]
    write_session_dataset(tmp_path, rows)
    tensors = load_session_tensors(
        tmp_path, "train", catalogue, history_length=H, session_items=M, good_only=False
    )
    assert len(tensors) == 0
    with pytest.raises(ValueError, match="no exposure of an item with a semantic ID"):
        load_reward_blocks(tmp_path, "train", catalogue, history_length=H, block_items=M)


def test_several_shards_are_read_in_order(tmp_path: Path, catalogue: SemanticIds) -> None:
    rows = [{**r, "signals": video_signals(r)} for r in random_rows(1) if r["split"] == "train"]
    write_session_dataset(tmp_path / "one", rows)
    shards = tmp_path / "many" / "split=train"
    shards.mkdir(parents=True)
    for n, start in enumerate(range(0, len(rows), 7)):
        table = pa.Table.from_pylist(rows[start : start + 7], schema=SESSION_DATASET)
        pq.write_table(table, shards / f"part-{n:05d}.parquet")
    one, many = (
        load_reward_blocks(tmp_path / d, "train", catalogue, history_length=H, block_items=M)
        for d in ("one", "many")
    )
    assert torch.equal(one.items, many.items)
    assert torch.equal(one.labels, many.labels)
    assert torch.equal(one.history, many.history)


def test_errors_name_what_is_wrong(tmp_path: Path, catalogue: SemanticIds) -> None:
    def load(directory: Path, split: str) -> None:
        load_session_tensors(
            directory, split, catalogue, history_length=H, session_items=M, good_only=True
        )

    with pytest.raises(ValueError, match="this is no session_dataset"):
        load(tmp_path, "train")
    rows = random_rows(0)
    write_session_dataset(tmp_path / "whole", rows)
    with pytest.raises(ValueError, match="split='all': use one of train, valid, test"):
        load(tmp_path / "whole", "all")
    old = tmp_path / "old" / "split=train"
    old.mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=SESSION_DATASET).drop_columns(["target_item_ids"])
    pq.write_table(table, old / "part-00000.parquet")
    with pytest.raises(ValueError, match="columns target_item_ids are missing"):
        load(tmp_path / "old", "train")
    rows[0]["watch_seconds"] = [1.0] * (len(rows[0]["item_ids"]) + 1)
    write_session_dataset(tmp_path / "uneven", rows)
    with pytest.raises(ValueError, match="watch_seconds and item_ids differ in length"):
        load_reward_blocks(
            tmp_path / "uneven", rows[0]["split"], catalogue, history_length=H, block_items=M
        )


@pytest.mark.parametrize("seed", range(4))
def test_sessions_are_sorted_only_where_they_are_out_of_order(seed: int) -> None:
    rng = random.Random(seed)
    ordered = sorted((rng.randrange(3), f"s{number}") for number in range(rng.randrange(9)))
    rows = [{"started_at": time, "session_id": name} for time, name in ordered]
    kind = pa.schema([("started_at", pa.int64()), ("session_id", pa.string())])
    table = pa.concat_tables([pa.Table.from_pylist(part, kind) for part in (rows[:4], rows[4:])])
    assert sorted_by_time(table) is table
    mixed = pa.Table.from_pylist(rng.sample(rows, len(rows)), kind)
    assert sorted_by_time(mixed).to_pylist() == rows
