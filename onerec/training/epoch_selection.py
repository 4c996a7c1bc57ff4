"""Chooses the epoch whose weights are kept, and stops a training early."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from onerec.training.fit_module import FitModule
from onerec.training.fit_settings import FitSettings
from onerec.training.sharding import whole_weights
from onerec.training.step_log import NonFiniteError, StepLog


class EpochSelection(L.Callback):
    """Measures the model after every epoch, keeps the best weights, stops without improvement.

    Attributes:
        history: An entry per epoch: `epoch` (from 1), `train_loss`, `learning_rate` and the
            module's validation metrics; with `measure_start` an entry of epoch 0 is the first.
    """

    def __init__(
        self,
        settings: FitSettings,
        steps: StepLog,
        directory: Path,
        on_epoch: Callable[[dict[str, Any]], None],
    ) -> None:
        """Set up.

        Args:
            settings: `monitor`, `mode`, `patience` and `measure_start`.
            steps: Losses of the epoch.
            directory: Gets the best weights, `best-<epoch>.safetensors`.
            on_epoch: Called with each entry of the history.
        """
        self.settings = settings
        self.steps = steps
        self.directory = directory
        self.on_epoch = on_epoch
        self.history: list[dict[str, Any]] = []

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The history without the entry of epoch 0."""
        return [entry for entry in self.history if entry["epoch"] > 0]

    @property
    def best_epoch(self) -> int:
        """The first epoch with the best monitored metric, or the last without one; 0 before any."""
        monitor = self.settings.monitor
        if not self.epochs or monitor is None:
            return len(self.epochs)
        choose = min if self.settings.mode == "min" else max
        return choose(self.epochs, key=lambda entry: entry[monitor])["epoch"]

    @property
    def best_weights(self) -> Path:
        return self.directory / f"best-{self.best_epoch}.safetensors"

    @property
    def out_of_patience(self) -> bool:
        waited = len(self.epochs) - self.best_epoch
        return self.settings.monitor is not None and waited >= self.settings.patience > 0

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.settings.measure_start and not self.history:
            self._add({"epoch": 0, **self._measure(trainer)})
        if self.out_of_patience:  # resumed after the last epoch, before its result was returned
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.steps.flush(trainer)
        losses = self.steps.epoch_losses
        entry = {
            "epoch": trainer.current_epoch + 1,
            "train_loss": math.fsum(losses) / len(losses),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            **self._measure(trainer),
        }
        for name, value in scalars(entry).items():
            if not math.isfinite(value):
                raise NonFiniteError(f"{name} is {value}", trainer, len(losses))
        self.steps.check_weights(trainer)
        self._add(entry)
        if self.settings.monitor is None:
            return
        if self.best_epoch == entry["epoch"]:
            weights = whole_weights(_model(trainer))
            if trainer.is_global_zero:
                save_weights(weights, self.best_weights)
        trainer.should_stop |= self.out_of_patience

    def _add(self, entry: dict[str, Any]) -> None:
        self.history.append(entry)
        self.on_epoch(entry)

    def _measure(self, trainer: L.Trainer) -> dict[str, Any]:
        module = trainer.lightning_module
        assert isinstance(module, FitModule)
        with (
            torch.no_grad(),
            evaluation_mode(module),
            trainer.precision_plugin.forward_context(),
        ):
            return module.validation_metrics()


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; then every submodule's mode is restored."""
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        yield
    finally:
        for m in training:
            m.training = True


def scalars(entry: Mapping[str, Any]) -> dict[str, float]:
    """The scalar entries."""
    return {name: value for name, value in entry.items() if isinstance(value, int | float)}


def save_weights(weights: Mapping[str, Tensor], file: Path) -> None:
    """Write weights and buffers in safetensors."""
    save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, file)


def _model(trainer: L.Trainer) -> nn.Module:
    module = trainer.lightning_module
    assert isinstance(module, FitModule)
    return module.model
