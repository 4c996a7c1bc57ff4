"""Pairs of logged sessions: the best and the worst by what the user did, nothing else."""

import numpy as np
import pytest
import torch

from onerec.alignment.logged_pairs import logged_pairs
from onerec.alignment.pairs import PreferencePairs, illegal_sessions
from onerec.config import RewardConfig
from onerec.model import session_logp
from onerec.session_dataset.reward_blocks import RewardBlocks, RewardThresholds
from tests.core.alignment.world import CATALOGUE, HISTORY, NUM_ITEMS, generator, session_generator

ALLOWED = torch.arange(NUM_ITEMS) < 20
WEIGHTS = RewardConfig(weight_swt=1.0, weight_vtr=2.0, weight_wtr=0.0, weight_ltr=0.5)


def blocks(rows: list[tuple[int, list[int], list[int]]]) -> RewardBlocks:
    """(user, items, labels) in time order; block i has a history of item i alone."""
    history = torch.full((len(rows), HISTORY), -1, dtype=torch.int32)
    history[:, 0] = torch.arange(len(rows))
    return RewardBlocks(
        user=torch.tensor([r[0] for r in rows]),
        user_ids=np.array(["a", "b", "c"], dtype=object),
        history=history,
        items=torch.tensor([r[1] for r in rows], dtype=torch.int32),
        watch_seconds=torch.zeros(len(rows), len(rows[0][1])),
        labels=torch.tensor([r[2] for r in rows], dtype=torch.float32),
        session=torch.arange(len(rows)),
        place=torch.zeros(len(rows), dtype=torch.int64),
        date=np.full(len(rows), np.datetime64("2026-06-01")),
        started_at=np.full(len(rows), np.datetime64("2026-06-01", "us")),
        thresholds=RewardThresholds(mean_watch_seconds=1.0),
    )


LOG = [
    (0, [0, 1, 2], [1, 1, 0, 0]),  # 0: a, 3
    (1, [3, 4, 5], [0, 0, 1, 0]),  # 1: b, 0, follow has no weight
    (0, [6, 7, 8], [0, 0, 0, 1]),  # 2: a, .5
    (0, [9, 10, 11], [1, 1, 0, 0]),  # 3: a, 3 again, later
    (1, [12, 13, 14], [0, 1, 0, 0]),  # 4: b, 2
    (1, [12, 13, 23], [1, 1, 1, 1]),  # 5: b, 3.5, but item 23 is not allowed
    (1, [12, 13, -1], [1, 1, 1, 1]),  # 6: short
    (1, [12, 13, 12], [1, 1, 1, 1]),  # 7: a repeat
    (2, [15, 16, 17], [1, 0, 0, 0]),  # 8: c, once only
]


def pairs(log: list[tuple[int, list[int], list[int]]] = LOG, **changes) -> PreferencePairs:
    settings = {"num_users": 10, "seed": 0} | changes
    return logged_pairs(session_generator(), blocks(log), ALLOWED, WEIGHTS, **settings)


def test_best_and_worst_by_hand():
    made = pairs()
    assert made.user_ids.tolist() == ["a", "b"]
    assert made.chosen.tolist() == [[0, 1, 2], [12, 13, 14]]
    assert made.rejected.tolist() == [[6, 7, 8], [3, 4, 5]]
    assert made.rewards.tolist() == [[3.0, 0.5], [2.0, 0.0]]
    assert torch.equal(made.targets, made.chosen)
    assert made.stats["complete_blocks"] == 6
    assert made.stats["skipped_equal_rewards"] == 1  # c has one session
    assert illegal_sessions(made.sessions, ALLOWED) == 0


def test_the_history_is_of_the_earlier_session():
    """a's best came first (block 0), b's worst did (block 1)."""
    assert pairs().history[:, 0].tolist() == [0, 1]


def test_log_probabilities_are_the_starts():
    made = pairs()
    with torch.no_grad():
        logp = session_logp(generator(), made.history, made.sessions, CATALOGUE)
    kept = torch.stack([made.chosen_logp, made.rejected_logp], 1).float()
    torch.testing.assert_close(kept, logp, atol=1e-5, rtol=0)


def test_a_seeded_sample_of_users():
    assert len(pairs(num_users=1)) == 1
    assert {pairs(num_users=1, seed=s).user_ids[0] for s in range(8)} == {"a", "b"}


def test_a_log_without_complete_sessions_is_an_error():
    with pytest.raises(ValueError, match="0 of 1 logged blocks"):
        pairs([(0, [1, -1, -1], [1, 0, 0, 0])])


def test_nobody_with_a_choice_gives_no_pair():
    assert len(pairs([(0, [0, 1, 2], [1, 0, 0, 0])])) == 0
