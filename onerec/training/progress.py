"""Progress of a training: epoch, loss, remaining time."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L

from onerec.training.epoch_selection import EpochSelection, scalars
from onerec.training.step_log import StepLog


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """Progress of a running training.

    Attributes:
        epoch: Current epoch, from 1.
        max_epochs: Maximum number of epochs.
        step: Optimiser steps done in this epoch.
        epoch_steps: Optimiser steps per epoch.
        loss: Mean training loss since the last report.
        metrics: Scalar validation metrics at the end of an epoch, otherwise empty.
        rows_per_second: Training rows per second of all processes.
        seconds_left: Upper bound on the remaining time; less with early stopping.
        part: What is trained, where it is a part of a model with epochs of its own.
    """

    epoch: int
    max_epochs: int
    step: int
    epoch_steps: int
    loss: float
    metrics: Mapping[str, float]
    rows_per_second: float
    seconds_left: float
    part: str = ""

    def __str__(self) -> str:
        metrics = "".join(f", {name} {value:.4f}" for name, value in self.metrics.items())
        part = f"{self.part}, " if self.part else ""
        return (
            f"{part}epoch {self.epoch}/{self.max_epochs}, step {self.step}/{self.epoch_steps}: "
            f"loss {self.loss:.4f}{metrics}, {self.rows_per_second:,.0f} rows/s, "
            f"at most {self.seconds_left:,.0f} s left"
        )


class ProgressReport(L.Callback):
    """Reports progress every `every` steps and at the end of each epoch."""

    def __init__(
        self,
        report: Callable[[TrainingProgress], None] | None,
        *,
        every: int,
        num_rows: int,
        steps: StepLog,
        selection: EpochSelection,
    ) -> None:
        """Set up.

        Args:
            report: Called in the first process; None disables reports.
            every: Steps between reports; each report synchronises the device.
            num_rows: Number of training rows, for the throughput.
            steps: Source of the losses.
            selection: Source of the validation metrics.
        """
        self.report = report
        self.every = every
        self.num_rows = num_rows
        self.steps = steps
        self.selection = selection

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step, remaining = divmod(batch_idx + 1, self.steps.accumulation)
        if remaining == 0 and step % self.every == 0:
            self.steps.flush(trainer)
            self._report(trainer, step, {})

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        entry = self.selection.history[-1]
        shown = ("epoch", "train_loss", "learning_rate")
        metrics = {name: value for name, value in scalars(entry).items() if name not in shown}
        self._report(trainer, len(self.steps.epoch_losses), metrics)

    def _report(self, trainer: L.Trainer, step: int, metrics: Mapping[str, float]) -> None:
        if self.report is None or not trainer.is_global_zero:
            return
        recent = self.steps.epoch_losses[-self.every :]
        epoch_steps = int(trainer.num_training_batches) // self.steps.accumulation
        max_epochs = trainer.max_epochs or 0
        steps_left = (max_epochs - trainer.current_epoch) * epoch_steps - step
        self.report(
            TrainingProgress(
                epoch=trainer.current_epoch + 1,
                max_epochs=max_epochs,
                step=step,
                epoch_steps=epoch_steps,
                loss=math.fsum(recent) / len(recent),
                metrics=metrics,
                rows_per_second=self.rows_per_second(epoch_steps),
                seconds_left=steps_left * self.steps.seconds / max(self.steps.steps_timed, 1),
            )
        )

    def rows_per_second(self, epoch_steps: int) -> float:
        """Training rows per second of all processes, over the steps of this run."""
        rows = self.steps.steps_timed * self.num_rows / epoch_steps
        return rows / max(self.steps.seconds, 1e-9)
