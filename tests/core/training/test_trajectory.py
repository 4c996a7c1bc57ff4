"""The first 30 steps against a committed trajectory.

A change that is meant to leave training alone leaves these losses alone. After one that is meant to
change them: `python -m tests.core.training.test_trajectory` writes the new ones.
"""

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from onerec.model import OneRec
from onerec.training import Runtime, quiet_trainer, reproducible
from onerec.training.batches import OrderedBatches, ShuffledBatches, loader
from onerec.training.module import GeneratorModule
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


class Losses(L.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any, **__: Any
    ) -> None:
        self.losses.append(outputs["loss"].item())


def first_losses() -> list[float]:
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
        losses = Losses()
        trainer = quiet_trainer(runtime, max_epochs=1, gradient_clip=1.0, callbacks=[losses])
        order = ShuffledBatches(len(sessions), TRAINING.batch_size, seed=0)
        module = GeneratorModule(model, catalogue().codes, TRAINING, total_steps=60)
        rows = sessions.history, sessions.targets
        trainer.fit(module, loader(order, *rows), loader(OrderedBatches(32, 32), *rows))
    return losses.losses


def test_first_steps_follow_the_committed_trajectory() -> None:
    losses = first_losses()
    assert len(losses) == 30
    assert losses == pytest.approx(json.loads(COMMITTED.read_text()), abs=1e-4)


if __name__ == "__main__":
    COMMITTED.write_text(json.dumps([round(loss, 6) for loss in first_losses()], indent=1) + "\n")
