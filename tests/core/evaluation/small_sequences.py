"""Sequences in which one item follows another, and small models of them."""

import numpy as np
import torch

from onerec.config import EvaluationConfig, TrainingConfig
from onerec.evaluation.baselines.sequences import WindowData
from onerec.evaluation.baselines.transformer import SequenceModel, SequenceShape
from onerec.session_dataset.eval_users import EvalUsers

NUM, LENGTH = 12, 5


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(*, causal: bool = True, seed: int = 0) -> SequenceModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape = SequenceShape(num_items=NUM, length=LENGTH, width=8, dropout=0.0, causal=causal)
        return SequenceModel(shape)


MANY = 40
CYCLE = np.stack([(start + np.arange(LENGTH + 1)) % MANY for start in range(MANY)] * 8)
"""What follows item i is item i + 1."""
CONFIG = EvaluationConfig(baseline_epochs=30, baseline_width=32)
HISTORY = np.full((MANY, LENGTH + 2), -1)
HISTORY[:, :4] = (np.arange(MANY)[:, None] + np.arange(4)) % MANY
TARGETS = ((np.arange(MANY) + 4) % MANY)[:, None]
DATA = WindowData(
    windows=CYCLE,
    valid=EvalUsers(np.arange(MANY), HISTORY, TARGETS),
    candidates=np.ones(MANY, dtype=bool),
)
NOBODY = EvalUsers(np.zeros(0, dtype=int), np.zeros((0, 3), dtype=int), np.zeros((0, 1), dtype=int))
PHASE = TrainingConfig(fresh_days=2, fresh_epochs=8, fresh_learning_rate=1e-2)
