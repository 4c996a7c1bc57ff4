"""Windows of users' sequences, as SASRec and BERT4Rec learn from them."""

import doctest
import itertools
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from onerec.evaluation.baselines import sequences
from onerec.evaluation.baselines.sequences import cut_windows, load_newest_windows, load_windows
from onerec.session_dataset.eval_users import load_eval_users
from onerec.session_dataset.holdout import held_out_users
from tests.core.evaluation import night as small
from tests.core.evaluation.night import DAY, session


@pytest.mark.parametrize("module", [sequences])
def test_examples(module) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_windows_cover_every_step_once() -> None:
    rng = np.random.default_rng(0)
    owner = np.sort(rng.integers(0, 9, 60))
    items = np.arange(60)  # all different, so that a step says where it came from
    windows = cut_windows(items, owner, 4)
    steps = [(int(a), int(b)) for row in windows for a, b in itertools.pairwise(row) if b >= 0]
    expected = [(i, i + 1) for i in range(59) if owner[i] == owner[i + 1]]
    assert sorted(steps) == expected
    assert (windows[:, :2] >= 0).all()


def test_sequences_begin_with_the_history_and_end_before_the_validation_day(
    tmp_path: Path,
) -> None:
    def day(back: int):
        return DAY - timedelta(days=back)

    rows = [
        session("a", day(3), ["i03", "i04"], history=["i01", "i02"], watched=[True, False]),
        session("a", day(2), ["i05", "i99"], history=["i01", "i02", "i03"]),
        session("a", day(1), ["i06"], history=["i01", "i02", "i03", "i05"]),
        session("b", day(2), ["i07"]),
        session("b", DAY, ["i08"]),
    ]
    ids = small.catalogue()
    directory = small.write_sessions(tmp_path / "s", rows)
    windows = load_windows(directory, ids, history_length=4)
    assert windows.tolist() == [[1, 2, 3, 5, -1]]  # b has one positive; i04 was not watched
    asked = load_eval_users(directory, "valid", ids, history_length=3)
    assert asked.history.tolist() == [[2, 3, 5]]
    assert asked.targets.tolist() == [[6]]
    with pytest.raises(ValueError, match="no user has two positive items"):
        load_windows(small.write_sessions(tmp_path / "t", rows[3:]), ids, history_length=4)


def test_newest_windows_end_with_the_newest_days(tmp_path: Path) -> None:
    def day(back: int):
        return DAY - timedelta(days=back)

    ids = small.catalogue()
    users = np.array([f"u{n}" for n in range(40)], dtype=object)
    out = held_out_users(tmp_path, users)
    known, held = str(users[~out][0]), str(users[out][0])
    rows = [
        session(known, day(4), ["i01", "i02"], history=["i00"]),
        session(known, day(2), ["i03", "i04", "i05"], watched=[True, False, True]),
        session(known, day(1), ["i06", "i07"]),
        session(held, day(3), ["i10", "i11"]),
        session(held, day(2), ["i12"]),
        session(held, day(1), ["i13"]),
        session(known, DAY, ["i08"]),
    ]
    directory = small.write_sessions(tmp_path / "s", rows)
    found = load_newest_windows(directory, ids, history_length=3, days=2)
    read_and_learned = {
        known: [([0, 1, 2, 3], [3]), ([3, 5, 6, 7], [5, 6, 7])],
        held: [([10, 11, 12, -1], [12])],  # the validation day of a held-out user is left out
    }
    assert [
        (row.tolist(), row[learned].tolist())
        for row, learned in zip(found.items, found.learned, strict=True)
    ] == [window for user in sorted(read_and_learned) for window in read_and_learned[user]]
    earlier = load_newest_windows(directory, ids, history_length=3, days=1, splits=("train",))
    windows = {known: ([1, 2, 3, 5], [3, 5]), held: ([10, 11, 12, -1], [12])}
    assert earlier.items.tolist() == [windows[user][0] for user in sorted(windows)]
    assert earlier.items[earlier.learned].tolist() == [
        item for user in sorted(windows) for item in windows[user][1]
    ]
