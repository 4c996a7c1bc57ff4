"""Between epochs: progress, the best weights, early stopping, the resume checkpoint."""

import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from onerec.training.batches import epoch_seed

RESUME = "resume.ckpt"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a training stands.

    Attributes:
        epoch: The epoch under way, from 1.
        max_epochs: Epochs at most.
        step: Steps taken in this epoch.
        epoch_steps: Steps of an epoch.
        loss: Mean training loss since the last report.
        valid_loss: Validation loss, at the end of an epoch.
        rows_per_second: Training rows (sessions) a second in this process, so far.
    """

    epoch: int
    max_epochs: int
    step: int
    epoch_steps: int
    loss: float
    valid_loss: float | None
    rows_per_second: float

    def __str__(self) -> str:
        valid = "" if self.valid_loss is None else f", validation loss {self.valid_loss:.4f}"
        return (
            f"epoch {self.epoch}/{self.max_epochs}, step {self.step}/{self.epoch_steps}: "
            f"loss {self.loss:.4f}{valid}, {self.rows_per_second:,.0f} sessions/s"
        )


class TrainingDivergedError(RuntimeError):
    """A loss stopped being a number; the message says where, and what is kept."""


class Bookkeeping(L.Callback):
    """Keeps `best-<epoch>/` and `resume.ckpt` in a scratch directory.

    Whatever is drawn at random in an epoch is seeded at its start, and the state is written at its
    end in one atomic step; so a run killed at any moment continues from the last finished epoch and
    ends in the same bytes as an undisturbed one.
    """

    def __init__(
        self,
        *,
        scratch: Path,
        seed: int,
        patience: int,
        batch_size: int,
        save_best: Callable[[Path], None],
        digit_losses: Callable[[], list[float]],
        on_progress: Callable[[Progress], None] | None = None,
        report_every: int = 50,
    ) -> None:
        """Set up.

        Args:
            scratch: A directory that outlives a killed run.
            seed: Seed of everything random in an epoch.
            patience: Epochs without a better validation loss before stopping.
            batch_size: Rows per step, for the rate.
            save_best: Writes the current weights into a directory.
            digit_losses: The last validation pass: mean loss of each digit.
            on_progress: Called every `report_every` steps and at the end of an epoch.
            report_every: Steps between two looks at the loss (each look waits for the device).
        """
        self.scratch = scratch
        self.seed = seed
        self.patience = patience
        self.batch_size = batch_size
        self.save_best = save_best
        self.digit_losses = digit_losses
        self.on_progress = on_progress
        self.report_every = report_every
        self.history: list[dict[str, Any]] = []
        self.steps_done = 0
        self.training_seconds = 0.0
        self._losses: list[Tensor] = []
        self._epoch_losses: list[float] = []
        self._clock = 0.0

    @property
    def best_epoch(self) -> int:
        """The epoch (from 1) with the lowest validation loss; 0 before the first."""
        return min(self.history, key=lambda e: e["valid_loss"])["epoch"] if self.history else 0

    @property
    def best_dir(self) -> Path:
        return self.scratch / f"best-{self.best_epoch}"

    @property
    def out_of_patience(self) -> bool:
        return len(self.history) - self.best_epoch >= self.patience > 0

    @property
    def rows_per_second(self) -> float:
        return self.steps_done * self.batch_size / max(self.training_seconds, 1e-9)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.out_of_patience:  # killed after its last epoch, before its result was taken
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        torch.manual_seed(epoch_seed(self.seed, trainer.current_epoch, stream=1))
        self._losses, self._epoch_losses = [], []
        self._clock = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._losses.append(outputs["loss"].detach())
        if len(self._losses) == self.report_every:
            self._look_at_losses(trainer)
            self._report(trainer, batch_idx + 1)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look_at_losses(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        digits = self.digit_losses()
        entry = {
            "epoch": trainer.current_epoch + 1,
            "train_loss": math.fsum(self._epoch_losses) / len(self._epoch_losses),
            "valid_loss": math.fsum(digits) / len(digits),
            "valid_digit_losses": digits,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
        }
        if not math.isfinite(entry["valid_loss"]):
            raise self._diverged(
                trainer, "validation", entry["valid_loss"], len(self._epoch_losses)
            )
        self.history.append(entry)
        if self.best_epoch == entry["epoch"]:
            self.save_best(self.best_dir)
        self._checkpoint(trainer)
        self._report(trainer, len(self._epoch_losses), entry["valid_loss"])
        if self.out_of_patience:
            trainer.should_stop = True

    def _checkpoint(self, trainer: L.Trainer) -> None:
        aside = self.scratch / f"{RESUME}.aside"
        trainer.save_checkpoint(aside)
        os.replace(aside, self.scratch / RESUME)
        for old in self.scratch.glob("best-*"):
            if old != self.best_dir:
                shutil.rmtree(old)

    def _look_at_losses(self, trainer: L.Trainer) -> None:
        if not self._losses:
            return
        losses = torch.stack(self._losses).float()
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            step = len(self._epoch_losses) + int(bad[0]) + 1
            raise self._diverged(trainer, "training", float(losses[bad[0]]), step)
        self._epoch_losses += losses.tolist()
        self.steps_done += len(self._losses)
        self._losses = []
        now = time.perf_counter()
        self.training_seconds += now - self._clock
        self._clock = now

    def _report(self, trainer: L.Trainer, step: int, valid_loss: float | None = None) -> None:
        if self.on_progress is None:
            return
        recent = self._epoch_losses[-self.report_every :]
        self.on_progress(
            Progress(
                epoch=trainer.current_epoch + 1,
                max_epochs=trainer.max_epochs or 0,
                step=step,
                epoch_steps=int(trainer.num_training_batches),
                loss=math.fsum(recent) / len(recent),
                valid_loss=valid_loss,
                rows_per_second=self.rows_per_second,
            )
        )

    def _diverged(
        self, trainer: L.Trainer, which: str, loss: float, step: int
    ) -> TrainingDivergedError:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        kept = (
            f"the last good checkpoint, of epoch {len(self.history)}, is kept in {self.scratch}"
            if self.history
            else "there is no good checkpoint yet"
        )
        return TrainingDivergedError(
            f"{which} loss is {loss} at epoch {trainer.current_epoch + 1}, step {step} "
            f"(learning rate {rate:.3g}); {kept}. Lower learning_rate or gradient_clip, or "
            "lengthen warmup_share"
        )
