"""The weight of the reward in served lists, by test days before and by the validation day."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onerec.config import AlignmentConfig, BeamConfig
from onerec.evaluation.ndcg_by_weight import NOT_MEASURED, NdcgByWeight
from onerec.evaluation.recency import RecencyCases
from onerec.evaluation.reward_weight import (
    ServingReward,
    choose_reward_weight,
    load_held_out_cases,
    weight_of_test_days,
)
from onerec.model import OneRec
from onerec.serving.recommender import Recommender
from onerec.session_dataset.holdout import held_out_users
from tests.core.training.small import (
    HISTORY,
    ITEMS,
    MODEL,
    NUM_CODES,
    NUM_ITEMS,
    NUM_SID_TOKENS,
    catalogue,
    write_patterned_dataset,
)

DECODING = BeamConfig(beam=16, batch_size=64, filter_seen=False)


@pytest.fixture
def model() -> OneRec:
    torch.manual_seed(0)
    return OneRec(
        MODEL,
        codebook_size=NUM_CODES,
        num_sid_tokens=NUM_SID_TOKENS,
        history_length=HISTORY,
        session_items=ITEMS,
    ).eval()


@pytest.fixture
def cases(tmp_path: Path, model: OneRec) -> RecencyCases:
    directory = write_patterned_dataset(tmp_path, train=50, valid=50)
    found = load_held_out_cases(directory, catalogue(), model, most=500, seed=0)
    assert found is not None
    everyone = np.array([f"u{n}" for n in range(50)], dtype=object)
    expected = everyone[held_out_users(directory, everyone)]
    assert sorted(found.users.user_ids) == sorted(expected)
    assert 0 < len(expected) < 50
    few = load_held_out_cases(directory, catalogue(), model, most=3, seed=0)
    assert few is not None
    assert set(few.users.user_ids) < set(expected)
    assert len(few.users) == 3
    return found


class NoReward(nn.Module):
    """What a reward model is where `Recommender._rewards` is replaced."""


def next_items(history: Tensor, sessions: Tensor) -> Tensor:
    """Reward of the pattern of the data: 1 for a session that begins with the next item."""
    last = history.gather(1, (history >= 0).sum(1, keepdim=True).clamp(min=1) - 1)
    return ((sessions[..., 0] - last) % NUM_ITEMS == 1).double()


@pytest.mark.parametrize(
    ("sign", "tolerance", "chosen"), [(1, 0.05, 100.0), (-1, 0.0, 0.0), (-1, 0.99, 100.0)]
)
def test_a_reward_counts_as_much_as_costs_little_ndcg(
    monkeypatch: pytest.MonkeyPatch,
    model: OneRec,
    cases: RecencyCases,
    sign: int,
    tolerance: float,
    chosen: float,
) -> None:
    def rewards(self: Recommender, history: Tensor, sessions: Tensor) -> Tensor:
        return sign * next_items(history, sessions).to(self.model.dtype)

    monkeypatch.setattr(Recommender, "_rewards", rewards)
    reward = ServingReward(NoReward(), torch.zeros(NUM_ITEMS, 2))  # pyright: ignore[reportArgumentType]
    tried = AlignmentConfig(reward_weights="0,1,100", reward_ndcg_tolerance=tolerance)
    measured = choose_reward_weight(model, catalogue(), reward, cases, DECODING, tried)
    assert measured.users == len(cases.users)
    assert tuple(measured.ndcg) == tried.tried_reward_weights
    assert sign * measured.ndcg[100.0] > sign * measured.ndcg[0.0]
    assert model.reward_weight == chosen
    assert NdcgByWeight.from_json(measured.as_json()) == measured


def test_a_day_without_held_out_users_takes_the_smallest_weight(model: OneRec) -> None:
    reward = ServingReward(NoReward(), torch.zeros(NUM_ITEMS, 2))  # pyright: ignore[reportArgumentType]
    tried = AlignmentConfig(reward_weights="0.5,1,3")
    measured = choose_reward_weight(model, catalogue(), reward, None, DECODING, tried)
    assert measured == NOT_MEASURED
    assert model.reward_weight == 0.5


def test_test_days_before_choose_by_all_their_users() -> None:
    tried = AlignmentConfig(reward_weights="0,1,3", reward_ndcg_tolerance=0.1)
    few, many = (
        NdcgByWeight(10, {0.0: 0.1, 1.0: 0.1, 3.0: 0.2}),
        NdcgByWeight(90, {0.0: 0.1, 1.0: 0.1, 3.0: 0.0}),
    )
    assert weight_of_test_days([few, NOT_MEASURED], tried, without=0.0) == 3.0
    assert weight_of_test_days([few, many], tried, without=0.0) == 1.0


def test_without_a_test_day_the_validation_day_chooses_among_the_weights_that_are_tried() -> None:
    tried = AlignmentConfig(reward_weights="0.5,1,3")
    assert weight_of_test_days([], tried, without=3.0) == 3.0
    assert weight_of_test_days([], tried, without=10.0) == 0.5
    one, day = AlignmentConfig(reward_weights="0"), NdcgByWeight(10, {0.0: 0.1})
    assert weight_of_test_days([], one, without=3.0) == 0.0
    assert weight_of_test_days([day], one, without=3.0) == 0.0


def test_a_single_weight_is_not_tried(model: OneRec, cases: RecencyCases) -> None:
    reward = ServingReward(NoReward(), torch.zeros(NUM_ITEMS, 2))  # pyright: ignore[reportArgumentType]
    one = AlignmentConfig(reward_weights="0.5")
    assert choose_reward_weight(model, catalogue(), reward, cases, DECODING, one).users == 0
    assert model.reward_weight == 0.5


@pytest.mark.parametrize("given", ["", "1,0", "-1,0", "0,0", "0,nan", "0,x", "0,1e99"])
def test_weights_that_are_no_increasing_numbers_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match="reward_weights"):
        AlignmentConfig(reward_weights=given)
    assert AlignmentConfig(reward_weights="0, 0.5,2").tried_reward_weights == (0.0, 0.5, 2.0)
