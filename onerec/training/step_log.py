"""Records the scalars of every optimiser step; stops when a loss becomes NaN or inf."""

import time
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


class NonFiniteError(RuntimeError):
    """A loss, metric or weight became NaN or inf; the message says which and where."""

    def __init__(self, what: str, trainer: L.Trainer, step: int) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        super().__init__(
            f"{what} at epoch {trainer.current_epoch + 1}, step {step} (learning rate {rate:.3g})"
        )


class StepLog(L.Callback):
    """Records every scalar of every optimiser step; stops when a loss becomes NaN or inf.

    Values are read from the device in blocks (`flush`), since every read synchronises it.

    Attributes:
        steps: Name of a scalar -> its value at every step, `loss` among the names.
        epoch_start: Steps before the current epoch.
        seconds: Time of this run's steps, without validation.
        steps_timed: Number of these steps.
        earlier_seconds: Time of the steps of the runs that this one resumes.
    """

    def __init__(self, accumulation: int) -> None:
        self.accumulation = accumulation
        self.steps: dict[str, list[float]] = {"loss": []}
        self.epoch_start = 0
        self.seconds = 0.0
        self.steps_timed = 0
        self.earlier_seconds = 0.0
        self._unread: list[dict[str, Tensor]] = []
        self._clock = 0.0

    @property
    def epoch_losses(self) -> list[float]:
        """Losses of the current epoch that have been read from the device."""
        return self.steps["loss"][self.epoch_start :]

    def state_dict(self) -> dict[str, Any]:
        seconds = self.earlier_seconds + self.seconds
        return {"steps": self.steps, "epoch_start": self.epoch_start, "seconds": seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = {name: list(values) for name, values in state_dict["steps"].items()}
        self.epoch_start = state_dict["epoch_start"]
        self.earlier_seconds = state_dict["seconds"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._clock = time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epoch_start = len(self.steps["loss"])
        self._clock = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._unread.append({name: value.detach() for name, value in outputs.items()})

    def flush(self, trainer: L.Trainer) -> None:
        """Read the steps since the last call.

        Raises:
            NonFiniteError: A loss is NaN or inf.
        """
        if not self._unread:
            return
        read = {name: torch.stack([p[name] for p in self._unread]) for name in self._unread[0]}
        self._unread = []
        if trainer.world_size > 1:
            for name, values in read.items():
                reduced = trainer.strategy.reduce(values, reduce_op="mean")
                assert isinstance(reduced, Tensor)
                read[name] = reduced
        # Lightning divides each loss by the number of accumulation steps
        pieces = {name: t.cpu().double().view(-1, self.accumulation) for name, t in read.items()}
        losses = pieces["loss"].sum(1)
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            step = len(self.epoch_losses) + int(bad[0]) + 1
            raise NonFiniteError(f"training loss is {float(losses[bad[0]])}", trainer, step)
        for name, values in pieces.items():
            per_step = losses if name == "loss" else values.mean(1)
            self.steps.setdefault(name, []).extend(per_step.tolist())
        now = time.perf_counter()
        self.seconds += now - self._clock
        self.steps_timed += len(losses)
        self._clock = now

    def check_weights(self, trainer: L.Trainer) -> None:
        """Check weights: with a finite loss and an infinite gradient they diverge one step earlier.

        Raises:
            NonFiniteError: A weight is NaN or inf.
        """
        weights = trainer.lightning_module.state_dict().values()
        own = [t.to_local() if isinstance(t, DTensor) else t for t in weights]
        finite = torch.stack([t.isfinite().all() for t in own]).all().float()
        if trainer.world_size > 1:  # with shards, only one process may see it
            finite = trainer.strategy.reduce(finite, reduce_op="mean")
        if float(finite) < 1:
            what = "training loss is finite but a weight became NaN or inf"
            raise NonFiniteError(what, trainer, len(self.epoch_losses))
