"""Beside the steps: progress, the best weights, early stopping, the resume checkpoint."""

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
from onerec.training.distributed_batches import DistributedBatches

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

    Whatever is drawn at random in an epoch is seeded at its start. The state is written every so
    many steps and at the end of an epoch, in one atomic step each: weights, optimiser, schedule,
    the random state of every process, the place in the epoch and its losses so far. So a run killed
    at any moment goes on from the last one written, with the same losses step by step, and ends in
    the same bytes as an undisturbed one.

    Every process of a distributed training has its own; the first one writes.
    """

    def __init__(
        self,
        *,
        scratch: Path,
        seed: int,
        patience: int,
        batch_size: int,
        order: DistributedBatches,
        checkpoint_every_steps: int,
        save_best: Callable[[Path], None],
        token_losses: Callable[[], list[float]],
        on_progress: Callable[[Progress], None] | None = None,
        report_every: int = 50,
    ) -> None:
        """Set up.

        Args:
            scratch: A directory that outlives a killed run.
            seed: Seed of everything random in an epoch.
            patience: Epochs without a better validation loss before stopping.
            batch_size: Rows per step of all processes together, for the rate.
            order: The order of the training rows, told where to go on.
            checkpoint_every_steps: Steps between two states written inside an epoch; 0 writes only
                at the end of an epoch.
            save_best: Writes the current weights into a directory.
            token_losses: The last validation pass: mean loss of each token.
            on_progress: Called every `report_every` steps and at the end of an epoch.
            report_every: Steps between two looks at the loss (each look waits for the device).
        """
        self.scratch = scratch
        self.seed = seed
        self.patience = patience
        self.batch_size = batch_size
        self.order = order
        self.checkpoint_every_steps = checkpoint_every_steps
        self.save_best = save_best
        self.token_losses = token_losses
        self.on_progress = on_progress
        self.report_every = report_every
        self.history: list[dict[str, Any]] = []
        self.steps_done = 0
        self.training_seconds = 0.0
        self._losses: list[Tensor] = []
        self._epoch_losses: list[float] = []
        self._clock = 0.0
        self._last_written = ""
        self._random_states: list[dict[str, Tensor]] = []
        self._random_state_to_restore: dict[str, Tensor] | None = None

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
        return {
            "history": self.history,
            "epoch_losses": self._epoch_losses,  # of the steps before this state, if inside one
            "random_states": self._random_states,  # empty between epochs
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])
        self._epoch_losses = list(state_dict["epoch_losses"])
        self._random_states = list(state_dict["random_states"])
        self._last_written = self._place()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._random_states:  # resumed inside an epoch, whose start is not announced again
            self.order.start_at(len(self._epoch_losses))
            self._random_state_to_restore = self._random_states[trainer.global_rank]
            self._random_states = []
            self._clock = time.perf_counter()
        if self.out_of_patience:  # killed after its last epoch, before its result was taken
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        stream = 1 + trainer.global_rank
        torch.manual_seed(epoch_seed(self.seed, trainer.current_epoch, stream=stream))
        self._losses, self._epoch_losses = [], []
        self._clock = time.perf_counter()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._random_state_to_restore is not None:  # as late as can be: nothing draws after it
            _set_random_state(self._random_state_to_restore)
            self._random_state_to_restore = None

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._losses.append(outputs["loss"].detach())
        step = batch_idx + 1
        if step % self.report_every == 0:
            self._look_at_losses(trainer)
            self._report(trainer, step)
        every = self.checkpoint_every_steps
        # the last step's state is written after the validation, with the epoch's result
        if every and step % every == 0 and step < trainer.num_training_batches:
            self._look_at_losses(trainer)
            self._random_states = _random_states(trainer)
            self._checkpoint(trainer)
            self._random_states = []

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look_at_losses(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        sid_tokens = self.token_losses()
        entry = {
            "epoch": trainer.current_epoch + 1,
            "train_loss": math.fsum(self._epoch_losses) / len(self._epoch_losses),
            "valid_loss": math.fsum(sid_tokens) / len(sid_tokens),
            "valid_token_losses": sid_tokens,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
        }
        if not math.isfinite(entry["valid_loss"]):
            what = f"validation loss is {entry['valid_loss']}"
            raise self._diverged(trainer, what, len(self._epoch_losses))
        self._check_weights(trainer)
        self.history.append(entry)
        if self.best_epoch == entry["epoch"] and trainer.is_global_zero:
            self.save_best(self.best_dir)
        steps, self._epoch_losses = self._epoch_losses, []
        self._checkpoint(trainer)
        self._epoch_losses = steps
        if trainer.is_global_zero:
            for old in self.scratch.glob("best-*"):
                if old != self.best_dir:
                    shutil.rmtree(old)
        self._report(trainer, len(steps), entry["valid_loss"])
        if self.out_of_patience:
            trainer.should_stop = True

    def _checkpoint(self, trainer: L.Trainer) -> None:
        """Write the state; every loss so far has been looked at, and the weights are numbers."""
        assert not self._losses, "a loss was taken but not looked at"
        self._check_weights(trainer)
        aside = self.scratch / f"{RESUME}.aside"
        trainer.save_checkpoint(aside)  # the first process writes, the others wait
        if trainer.is_global_zero:
            os.replace(aside, self.scratch / RESUME)
        self._last_written = self._place()

    def _place(self) -> str:
        """Where the state about to be written, or just read, was taken."""
        inside = f"epoch {len(self.history) + 1}, step {len(self._epoch_losses)}"
        return inside if self._random_states else f"epoch {len(self.history)}"

    def _check_weights(self, trainer: L.Trainer) -> None:
        """A finite loss can have an infinite gradient: the weights show it one step earlier."""
        weights = trainer.lightning_module.state_dict().values()
        if not bool(torch.stack([t.isfinite().all() for t in weights]).all()):
            what = "training loss was a number but left a weight that is none"
            raise self._diverged(trainer, what, len(self._epoch_losses))

    def _look_at_losses(self, trainer: L.Trainer) -> None:
        if not self._losses:
            return
        losses = torch.stack(self._losses).float()
        if trainer.world_size > 1:
            losses = trainer.strategy.reduce(losses, reduce_op="mean")
            assert isinstance(losses, Tensor)
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            step = len(self._epoch_losses) + int(bad[0]) + 1
            raise self._diverged(trainer, f"training loss is {float(losses[bad[0]])}", step)
        self._epoch_losses += losses.tolist()
        self.steps_done += len(self._losses)
        self._losses = []
        now = time.perf_counter()
        self.training_seconds += now - self._clock
        self._clock = now

    def _report(self, trainer: L.Trainer, step: int, valid_loss: float | None = None) -> None:
        if self.on_progress is None or not trainer.is_global_zero:
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

    def _diverged(self, trainer: L.Trainer, what: str, step: int) -> TrainingDivergedError:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        kept = (
            f"the last good checkpoint, of {self._last_written}, is kept in {self.scratch}"
            if self._last_written
            else "there is no good checkpoint yet"
        )
        return TrainingDivergedError(
            f"{what} at epoch {trainer.current_epoch + 1}, step {step} "
            f"(learning rate {rate:.3g}); {kept}. Lower learning_rate or gradient_clip, or "
            "lengthen warmup_share"
        )


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


def _set_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu())
