"""What was watched, cut into sessions: against plain Python."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest

from onerec.session_dataset.generator_sessions import (
    SessionTensors,
    concatenate_sessions,
    load_session_tensors,
)
from onerec.session_dataset.user_sequences import load_user_sequences, sessions_of_sequences
from onerec.tokenizer.semantic_ids import SemanticIds
from tests.core.session_dataset.test_readers import (  # noqa: F401  (a fixture)
    H,
    M,
    catalogue,
    known,
    padded,
    random_rows,
)
from tests.core.training.small import write_session_dataset

Found = list[tuple[str, list[int], list[int]]]


def cut_sequences(directory: Path, catalogue: SemanticIds) -> SessionTensors:  # noqa: F811
    sequences = load_user_sequences(directory, catalogue)
    return sessions_of_sequences(sequences, history_length=H, session_items=M)


def expected(rows: list[dict], history_length: int = H) -> Found:
    found: Found = []
    train = [row for row in rows if row["split"] == "train"]
    for user in sorted({row["user_id"] for row in train}):
        mine = [row for row in train if row["user_id"] == user]
        items = known(mine[0]["history_item_ids"])
        for row in mine:
            liked = zip(row["item_ids"], row["is_watched"], row["is_positive"], strict=True)
            items += known([item for item, *is_liked in liked if any(is_liked)])
        cuts = range(len(items), 0, -M)
        for end in reversed(cuts):
            begin = max(0, end - M)
            before = items[max(0, begin - history_length) : begin]
            found.append((user, padded(before, history_length), padded(items[begin:end], M)))
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_histories_are_cut_backwards(
    tmp_path: Path,
    catalogue: SemanticIds,  # noqa: F811
    seed: int,
) -> None:
    rows = random_rows(seed)
    write_session_dataset(tmp_path, rows)
    cut = sessions_of_sequences(
        load_user_sequences(tmp_path, catalogue), history_length=H, session_items=M
    )
    users = cut.user_ids[cut.user.numpy()].tolist()
    assert expected(rows)
    assert list(zip(users, cut.history.tolist(), cut.targets.tolist(), strict=True)) == expected(
        rows
    )


def test_only_training_days_are_read(
    tmp_path: Path,
    catalogue: SemanticIds,  # noqa: F811
) -> None:
    rows = random_rows(3)
    write_session_dataset(tmp_path / "a", rows)
    changed = [
        row if row["split"] == "train" else row | {"history_item_ids": ["i1", "i2", "i3"]}
        for row in rows
    ]
    write_session_dataset(tmp_path / "b", changed)
    a, b = (
        sessions_of_sequences(
            load_user_sequences(tmp_path / n, catalogue), history_length=H, session_items=M
        )
        for n in "ab"
    )
    assert a.targets.tolist() == b.targets.tolist()
    assert a.history.tolist() == b.history.tolist()


def test_nothing_watched_is_no_session_and_joining_it_changes_nothing(
    tmp_path: Path,
    catalogue: SemanticIds,  # noqa: F811
) -> None:
    nothing = {"history_item_ids": None}
    rows = [
        row | nothing | {n: [False] * len(row["item_ids"]) for n in ("is_watched", "is_positive")}
        for row in random_rows(4)
    ]
    write_session_dataset(tmp_path, rows)
    shape = {"history_length": H, "session_items": M}
    cut = cut_sequences(tmp_path, catalogue)
    assert len(cut) == 0
    sessions = load_session_tensors(tmp_path, "train", catalogue, good_only=True, **shape)
    both = concatenate_sessions(sessions, cut)
    assert both.history.equal(sessions.history)
    assert both.targets.equal(sessions.targets)
    assert both.user.equal(sessions.user)


def test_concatenated_users_keep_their_sessions(
    tmp_path: Path,
    catalogue: SemanticIds,  # noqa: F811
) -> None:
    write_session_dataset(tmp_path, random_rows(5))
    shape = {"history_length": H, "session_items": M}
    parts = [
        load_session_tensors(tmp_path, "train", catalogue, good_only=True, **shape),
        cut_sequences(tmp_path, catalogue),
    ]
    both = concatenate_sessions(*parts)
    apart = [
        (user, row)
        for part in parts
        for user, row in zip(
            part.user_ids[part.user.numpy()].tolist(), part.targets.tolist(), strict=True
        )
    ]
    names = both.user_ids[both.user.numpy()].tolist()
    assert list(zip(names, both.targets.tolist(), strict=True)) == apart
    assert both.user_ids.tolist() == sorted(set(both.user_ids.tolist()))
    known = pa.table({"plan": ["free"] * len(parts[0].user_ids)})
    with pytest.raises(AssertionError, match="known of both or none"):
        concatenate_sessions(dataclasses.replace(parts[0], attributes=known), parts[1])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_only_the_newest_days_are_targets_and_older_ones_are_their_history(
    tmp_path: Path,
    catalogue: SemanticIds,  # noqa: F811
    seed: int,
) -> None:
    rows = random_rows(seed)
    write_session_dataset(tmp_path, rows)
    learned = [row for row in rows if row["split"] != "test"]
    since = sorted({row["session_date"] for row in learned})[-2]
    sequences = load_user_sequences(tmp_path, catalogue, splits=("train", "valid"))
    cut = sessions_of_sequences(sequences, history_length=H, session_items=M, since=since)
    found: Found = []
    for user in sorted({row["user_id"] for row in learned}):
        mine = [row for row in learned if row["user_id"] == user]
        past, fresh = known(mine[0]["history_item_ids"]), []
        for row in mine:
            liked = zip(row["item_ids"], row["is_watched"], row["is_positive"], strict=True)
            watched = known([item for item, *is_liked in liked if any(is_liked)])
            (fresh if row["session_date"] >= since else past).extend(watched)
        items = past + fresh
        for end in reversed(range(len(items), len(past), -M)):
            begin = max(len(past), end - M)
            found.append(
                (user, padded(items[max(0, begin - H) : begin], H), padded(items[begin:end], M))
            )
    users = cut.user_ids[cut.user.numpy()].tolist()
    assert list(zip(users, cut.history.tolist(), cut.targets.tolist(), strict=True)) == found
    assert found
