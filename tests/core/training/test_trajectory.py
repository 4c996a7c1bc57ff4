"""The first 30 steps against a committed trajectory.

A change that is meant to leave training alone leaves these losses alone. After one that is meant to
change them: `python -m tests.core.training.test_trajectory` writes the new ones.
"""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from onerec.model import OneRec
from onerec.training import Runtime, fit, reproducible
from onerec.training.batches import SessionRows, ShuffledBatches
from onerec.training.generator import pretraining_settings
from onerec.training.generator_module import GeneratorModule
from tests.core.training.small import (
    HISTORY,
    ITEMS,
    MODEL,
    NUM_CODES,
    NUM_SID_TOKENS,
    TRAINING,
    catalogue,
    patterned_sessions,
)

COMMITTED = Path(__file__).with_name("trajectory.json")


def first_losses() -> list[float]:
    """The first of two epochs, over both of which the rate falls."""
    runtime = Runtime(accelerator="cpu", threads=1)
    sessions = patterned_sessions(30 * TRAINING.batch_size, seed=3)
    with reproducible(runtime):
        torch.manual_seed(0)
        model = OneRec(
            MODEL,
            codebook_size=NUM_CODES,
            num_sid_tokens=NUM_SID_TOKENS,
            history_length=HISTORY,
            session_items=ITEMS,
        )
        settings = dataclasses.replace(
            pretraining_settings(TRAINING, steps=60), max_epochs=2, monitor=None, epoch_seed=None
        )
        result = fit(
            GeneratorModule(model, catalogue().codes, batch_size=TRAINING.batch_size),
            SessionRows(sessions.history, sessions.targets),
            ShuffledBatches(len(sessions), TRAINING.batch_size, seed=0),
            settings,
            runtime=runtime,
        )
    return result.steps["loss"][:30]


def test_first_steps_follow_the_committed_trajectory() -> None:
    losses = first_losses()
    assert len(losses) == 30
    assert losses == pytest.approx(json.loads(COMMITTED.read_text()), abs=1e-4)


if __name__ == "__main__":
    COMMITTED.write_text(json.dumps([round(loss, 6) for loss in first_losses()], indent=1) + "\n")
