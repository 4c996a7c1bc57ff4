"""Checkpoints to resume a killed training; the result equals an uninterrupted run byte by byte."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from onerec.training.batches import epoch_seed
from onerec.training.distributed_batches import DistributedBatches
from onerec.training.epoch_selection import EpochSelection
from onerec.training.step_log import StepLog

RESUME = "resume.ckpt"


class RandomState(L.Callback):
    """Seeds every epoch if a seed is given, and saves every process's random state."""

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self._to_restore: dict[str, Tensor] | None = None

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["random_states"] = _random_states(trainer)

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._to_restore = checkpoint["random_states"][trainer.global_rank]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()
        if self.seed is not None:
            stream = 1 + trainer.global_rank
            torch.manual_seed(epoch_seed(self.seed, trainer.current_epoch, stream=stream))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._restore()  # Lightning skips on_train_epoch_start when resuming inside an epoch

    def _restore(self) -> None:
        if self._to_restore is not None:
            torch.set_rng_state(self._to_restore["cpu"].cpu())
            if "cuda" in self._to_restore:
                torch.cuda.set_rng_state(self._to_restore["cuda"].cpu())
            self._to_restore = None


class ResumeCheckpoint(L.Callback):
    """Writes `resume.ckpt` atomically every `every` steps and at the end of each epoch.

    It holds weights, optimiser, schedule, random states, the position in the epoch and the losses
    so far. A training killed at any moment resumes from it, takes the same steps and ends with the
    same bytes as an uninterrupted one.
    """

    def __init__(
        self,
        scratch: Path,
        *,
        every: int,
        order: DistributedBatches,
        steps: StepLog,
        selection: EpochSelection,
    ) -> None:
        """Set up.

        Args:
            scratch: Directory that survives a killed run.
            every: Steps between checkpoints inside an epoch; 0 writes only at the end of epochs.
            order: Order of the training rows, which a resumed epoch continues.
            steps: Losses to save.
            selection: Best epoch to save; weights that are no longer the best are deleted.
        """
        self.scratch = scratch
        self.every = every
        self.order = order
        self.steps = steps
        self.selection = selection
        self.last_written = ""
        self._inside_epoch = False

    def state_dict(self) -> dict[str, Any]:
        return {"inside_epoch": self._inside_epoch, "place": self._place()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._inside_epoch = state_dict["inside_epoch"]
        self.last_written = state_dict["place"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._inside_epoch:
            self.order.start_at(len(self.steps.epoch_losses))

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step, remaining = divmod(batch_idx + 1, self.steps.accumulation)
        # the state after an epoch's last step is written after validation, with its metrics
        if self.every and not remaining and not step % self.every and step < self.order.steps:
            self._write(trainer, inside_epoch=True)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, inside_epoch=False)
        if trainer.is_global_zero:
            for old in self.scratch.glob("best-*"):
                if old != self.selection.best_weights:
                    old.unlink()

    def _write(self, trainer: L.Trainer, *, inside_epoch: bool) -> None:
        self.steps.flush(trainer)
        self.steps.check_weights(trainer)
        self._inside_epoch = inside_epoch
        aside = self.scratch / f"{RESUME}.aside"
        trainer.save_checkpoint(aside)  # the first process writes, the others wait
        if trainer.is_global_zero:
            os.replace(aside, self.scratch / RESUME)
        self.last_written = self._place()

    def _place(self) -> str:
        epochs = len(self.selection.epochs)
        if self._inside_epoch:
            return f"epoch {epochs + 1}, step {len(self.steps.epoch_losses)}"
        return f"epoch {epochs}"


def _random_states(trainer: L.Trainer) -> list[dict[str, Tensor]]:
    """The random state of every process, by rank."""
    mine = {"cpu": torch.get_rng_state()}
    if trainer.strategy.root_device.type == "cuda":
        mine["cuda"] = torch.cuda.get_rng_state(trainer.strategy.root_device)
    if trainer.world_size == 1:
        return [mine]
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, mine)
    return everyone
