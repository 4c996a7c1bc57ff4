"""Training with Lightning. Importing this package imports Lightning."""

from onerec.training.fit_module import FitModule
from onerec.training.fit_settings import FitSettings
from onerec.training.generator import PretrainingData, fit_generator
from onerec.training.job import TrainingJob, known_values, train, why_not_start_from
from onerec.training.progress import TrainingProgress
from onerec.training.report import TrainingReport, read_report
from onerec.training.runtime import Runtime, reproducible
from onerec.training.scratch import Scratch
from onerec.training.trainer import FitResult, TrainingDivergedError, fit

__all__ = [
    "FitModule",
    "FitResult",
    "FitSettings",
    "PretrainingData",
    "Runtime",
    "Scratch",
    "TrainingDivergedError",
    "TrainingJob",
    "TrainingProgress",
    "TrainingReport",
    "fit",
    "fit_generator",
    "known_values",
    "read_report",
    "reproducible",
    "train",
    "why_not_start_from",
]
