"""The loss, its gradient and the schedule."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from onerec.alignment import train as alignment
from onerec.config import AlignmentConfig, RewardConfig, TrainingConfig
from onerec.model import OneRec
from onerec.reward import training as reward
from onerec.training import FitSettings
from onerec.training.batches import OrderedBatches, SessionRows, loader_of
from onerec.training.distributed_batches import DistributedBatches
from onerec.training.generator import FINAL_RATE_SHARE, pretraining_settings
from onerec.training.generator_module import next_token_loss, token_nll
from onerec.training.optimizer import adamw, rate_share
from tests.core.training.small import (
    HISTORY,
    ITEMS,
    MODEL,
    NUM_CODES,
    NUM_SID_TOKENS,
    catalogue,
    patterned_sessions,
)


def small_model() -> OneRec:
    torch.manual_seed(0)
    return OneRec(
        dataclasses.replace(MODEL, dropout=0.0),
        codebook_size=NUM_CODES,
        num_sid_tokens=NUM_SID_TOKENS,
        history_length=HISTORY,
        session_items=ITEMS,
    )


def test_validation_sums_are_the_training_loss() -> None:
    model, codes, sessions = small_model(), catalogue().codes, patterned_sessions(20, seed=1)
    *sums, items = token_nll(model, sessions.history, sessions.targets, codes).tolist()
    assert items == (sessions.targets >= 0).sum()
    loss = next_token_loss(model, sessions.history, sessions.targets, codes)
    assert sum(sums) / (items * NUM_SID_TOKENS) == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 3), (2, 1), (2, 2), (40, 1)])
def test_shares_of_a_batch_give_the_gradient_of_the_whole(
    world_size: int, accumulation: int
) -> None:
    """Rows have different numbers of targets; some shares are empty; experts drop no token."""
    codes, sessions = catalogue().codes, patterned_sessions(32, seed=1)
    whole, parts = small_model().double(), small_model().double()
    loss = next_token_loss(whole, sessions.history, sessions.targets, codes)
    loss.backward()
    rows = SessionRows(sessions.history, sessions.targets)
    total = 0.0
    for rank in range(world_size):
        order = DistributedBatches(
            OrderedBatches(32, 32), rank=rank, world_size=world_size, accumulation=accumulation
        )
        for history, targets, weight in loader_of(order, rows):
            # what DDP and Lightning do: a mean over processes, a mean over pieces
            share = next_token_loss(parts, history, targets, codes) * weight.double()
            (share / (world_size * accumulation)).backward()
            total += share.item() / (world_size * accumulation)
    assert total == pytest.approx(loss.item(), rel=1e-6)
    for (name, a), b in zip(whole.named_parameters(), parts.parameters(), strict=True):
        assert a.grad is not None, name
        assert b.grad is not None, name
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-8, msg=name)


def test_padding_carries_no_loss() -> None:
    """What stands where the target is padded changes nothing."""
    model, codes, sessions = small_model(), catalogue().codes, patterned_sessions(20, seed=1)
    narrow = sessions.targets.clone()
    narrow[:, 1:] = -1
    loss = next_token_loss(model, sessions.history, narrow, codes)
    torch.testing.assert_close(loss, next_token_loss(model, sessions.history, narrow[:, :1], codes))


def shares(settings: FitSettings) -> list[float]:
    return [rate_share(step, total_steps=10, settings=settings) for step in range(11)]


def test_learning_rate_schedule() -> None:
    config = TrainingConfig(warmup_share=0.2)
    cosine = shares(pretraining_settings(config, steps=10))
    assert cosine[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])  # two steps up, then the peak
    half = FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * 4 / 8))
    assert cosine[6] == pytest.approx(half)
    assert cosine[10] == pytest.approx(FINAL_RATE_SHARE)
    constant = dataclasses.replace(config, schedule="constant")
    assert shares(pretraining_settings(constant, steps=10))[2:] == [1.0] * 9


def test_the_linear_schedule_falls_to_zero_after_the_warm_up() -> None:
    settings = FitSettings(max_epochs=1, learning_rate=1e-3, warmup_steps=1, schedule="linear")
    # half, the peak twice, then an eighth less every step
    assert shares(settings) == pytest.approx([0.5, 1, *(left / 8 for left in range(8, -1, -1))])


def test_only_matrices_decay() -> None:
    decayed, free = adamw(small_model(), 1e-3, 0.1).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim < 2 for p in free["params"])


@pytest.mark.parametrize(
    "made",
    [
        lambda given: pretraining_settings(TrainingConfig(**given), steps=10),
        lambda given: alignment.alignment_settings(AlignmentConfig(**given), steps=10),
        lambda given: reward.reward_settings(RewardConfig(**given), steps=10, measured=True),
    ],
)
def test_every_model_is_fitted_as_its_stage_says(made: Callable[[dict], FitSettings]) -> None:
    given = {"learning_rate": 0.125, "weight_decay": 0.25, "gradient_clip": 0.5}
    settings = made(given | {"warmup_share": 0.5})
    assert {name: getattr(settings, name) for name in given} == given
    assert settings.warmup_steps in (4, 5)


def test_patience_of_the_reward_model_stops_its_training() -> None:
    settings = reward.reward_settings(RewardConfig(patience=7), steps=10, measured=True)
    assert settings.patience == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [("schedule", "linear"), ("max_epochs", 0), ("learning_rate", 0.0), ("warmup_share", 1.5)],
)
def test_wrong_settings_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}="):
        TrainingConfig(**{name: value})
