"""Training with Lightning. Importing this package imports Lightning."""

from onerec.training.bookkeeping import Bookkeeping, Progress, TrainingDivergedError
from onerec.training.generator import TrainingReport, fit_generator, read_report
from onerec.training.job import TrainingJob, train, why_not_start_from
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
    "read_report",
    "reproducible",
    "train",
    "why_not_start_from",
]
