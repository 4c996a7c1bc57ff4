"""Training with Lightning. Importing this package imports Lightning; nothing else in the core does."""

from onerec.training.bookkeeping import Bookkeeping, Progress, TrainingDivergedError
from onerec.training.generator import TrainingReport, fit_generator
from onerec.training.job import TrainingJob, train
from onerec.training.runtime import Runtime, quiet_trainer, reproducible

__all__ = [
    "Bookkeeping",
    "Progress",
    "Runtime",
    "TrainingDivergedError",
    "TrainingJob",
    "TrainingReport",
    "fit_generator",
    "quiet_trainer",
    "reproducible",
    "train",
]
