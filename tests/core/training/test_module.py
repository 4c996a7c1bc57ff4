"""The loss, its gradient and the schedule."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from onerec.config import TrainingConfig
from onerec.model import OneRec
from onerec.training.module import FINAL_RATE_SHARE, adamw, next_token_loss, rate_share, token_nll
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


def test_a_batch_in_two_halves_gives_the_same_gradient() -> None:
    """Items weigh the same wherever the batch is cut; experts drop no token."""
    codes, sessions = catalogue().codes, patterned_sessions(32, seed=1)
    whole, halves = small_model(), small_model()
    next_token_loss(whole, sessions.history, sessions.targets, codes).backward()
    num_items = int((sessions.targets >= 0).sum())
    for rows in (slice(0, 12), slice(12, 32)):
        share = int((sessions.targets[rows] >= 0).sum()) / num_items
        loss = next_token_loss(halves, sessions.history[rows], sessions.targets[rows], codes)
        (share * loss).backward()
    for (name, a), b in zip(whole.named_parameters(), halves.parameters(), strict=True):
        assert a.grad is not None, name
        assert b.grad is not None, name
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_padding_carries_no_loss() -> None:
    """What stands where the target is padded changes nothing."""
    model, codes, sessions = small_model(), catalogue().codes, patterned_sessions(20, seed=1)
    narrow = sessions.targets.clone()
    narrow[:, 1:] = -1
    loss = next_token_loss(model, sessions.history, narrow, codes)
    torch.testing.assert_close(loss, next_token_loss(model, sessions.history, narrow[:, :1], codes))


def test_learning_rate_schedule() -> None:
    config = TrainingConfig(warmup_share=0.2)

    def shares(config: TrainingConfig) -> list[float]:
        return [rate_share(step, total_steps=10, config=config) for step in range(11)]

    cosine = shares(config)
    assert cosine[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])  # two steps up, then the peak
    half = FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * 4 / 8))
    assert cosine[6] == pytest.approx(half)
    assert cosine[10] == pytest.approx(FINAL_RATE_SHARE)
    assert shares(dataclasses.replace(config, schedule="constant"))[2:] == [1.0] * 9


def test_only_matrices_decay() -> None:
    decayed, free = adamw(small_model(), 1e-3, 0.1).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim < 2 for p in free["params"])


@pytest.mark.parametrize(
    ("name", "value"),
    [("schedule", "linear"), ("max_epochs", 0), ("learning_rate", 0.0), ("warmup_share", 1.5)],
)
def test_wrong_settings_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}="):
        TrainingConfig(**{name: value})
