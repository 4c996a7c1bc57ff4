"""The validation day of held-out users is not learned, and nothing else is left out."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from onerec.artifacts import write_json
from onerec.session_dataset.holdout import held_out_users, load_newest_sequences
from onerec.session_dataset.interactions import load_interactions
from onerec.tokenizer.semantic_ids import SemanticIds
from tests.core.session_dataset.test_readers import (  # noqa: F401  (a fixture)
    TEST_DAY,
    catalogue,
    known,
    random_rows,
)
from tests.core.training.small import write_session_dataset

VALIDATION_DAY = TEST_DAY - timedelta(days=1)


def with_share(directory: Path, share: float) -> Path:
    write_json(directory / "manifest.json", {"config": {"window": {"holdout_user_share": share}}})
    return directory


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_against_plain_python(
    tmp_path: Path,
    catalogue: SemanticIds,  # noqa: F811
    share: float,
) -> None:
    rows = random_rows(1)
    directory = with_share(write_session_dataset(tmp_path, rows), share)
    learned = [row for row in rows if row["split"] != "test"]
    users = sorted({row["user_id"] for row in learned})
    held_out = dict(zip(users, held_out_users(directory, np.array(users, object)), strict=True))
    assert any(held_out.values()) == (share > 0)
    expected: list[tuple[str, int]] = []
    for user in users:
        mine = [row for row in learned if row["user_id"] == user]
        expected += [(user, item) for item in known(mine[0]["history_item_ids"])]
        for row in mine:
            if held_out[user] and row["session_date"] == VALIDATION_DAY:
                continue
            liked = zip(row["item_ids"], row["is_watched"], row["is_positive"], strict=True)
            watched = known([item for item, *is_liked in liked if any(is_liked)])
            expected += [(user, item) for item in watched]
    found, since = load_newest_sequences(directory, catalogue, days=2)
    assert since == VALIDATION_DAY - timedelta(days=1)
    names = found.user_ids[found.user].tolist()
    assert list(zip(names, found.item.tolist(), strict=True)) == expected


def test_watches_of_held_out_users_on_the_validation_day_are_not_counted(
    tmp_path: Path,
    catalogue: SemanticIds,  # noqa: F811
) -> None:
    rows = random_rows(2)
    directory = with_share(write_session_dataset(tmp_path, rows), 0.4)
    learned = [row for row in rows if row["split"] != "test"]
    users = sorted({row["user_id"] for row in learned})
    held_out = dict(zip(users, held_out_users(directory, np.array(users, object)), strict=True))

    def watches(counted: list[dict]) -> int:
        return sum(
            len(known([i for i, w in zip(r["item_ids"], r["is_watched"], strict=True) if w]))
            for r in counted
        )

    kept = [r for r in learned if not (held_out[r["user_id"]] and r["split"] == "valid")]
    assert watches(kept) < watches(learned)
    for hold_out, counted in ((True, kept), (False, learned)):
        found = load_interactions(directory, catalogue, test_day=TEST_DAY, hold_out=hold_out)
        assert found.watches.sum() == watches(counted)


def test_a_user_is_held_out_on_every_day_or_on_none(tmp_path: Path) -> None:
    users = np.array([f"u{n}" for n in range(1000)], dtype=object)
    chosen = held_out_users(tmp_path, users)  # without a manifest: the default share
    assert 0.16 < chosen.mean() < 0.24
    assert (held_out_users(tmp_path, users[::7]) == chosen[::7]).all()
    assert not held_out_users(with_share(tmp_path, 0.0), users).any()


def test_a_validation_day_without_a_watch_keeps_the_day_before(
    tmp_path: Path,
    catalogue: SemanticIds,  # noqa: F811
) -> None:
    """Held-out users lose the validation day alone, though it was not the last to hold a watch."""
    nothing = {"is_watched": [], "is_positive": []}
    rows = [
        row | {n: [False] * len(row["item_ids"]) for n in nothing}
        if row["session_date"] == VALIDATION_DAY
        else row
        for row in random_rows(4)
    ]
    directory = with_share(write_session_dataset(tmp_path, rows), 0.4)
    found, since = load_newest_sequences(directory, catalogue, days=1)
    before, _ = load_newest_sequences(directory, catalogue, days=1, splits=("train",))
    assert since == VALIDATION_DAY
    assert np.sum(~np.isnat(found.day)) == np.sum(~np.isnat(before.day))


def test_nothing_watched_is_nothing_to_learn(
    tmp_path: Path,
    catalogue: SemanticIds,  # noqa: F811
) -> None:
    rows = [
        row | {n: [False] * len(row["item_ids"]) for n in ("is_watched", "is_positive")}
        for row in random_rows(4)
    ]
    found, _ = load_newest_sequences(write_session_dataset(tmp_path, rows), catalogue, days=3)
    assert np.isnat(found.day).all()
