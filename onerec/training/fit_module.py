"""What `fit` trains: a model with its loss and its validation metrics, as a Lightning module."""

from collections.abc import Iterable, Iterator
from typing import Any

import lightning as L
import torch
from torch import nn

from onerec.training.fit_settings import FitSettings
from onerec.training.optimizer import adamw, rate_share
from onerec.training.sharding import shard


class FitModule(L.LightningModule):
    """Base of the modules: a subclass computes its loss in `training_step`.

    `training_step` returns the loss, or a dict with it as `loss` and further detached scalars,
    which are recorded for every step. State to be moved or saved with the model is a buffer.
    """

    settings: FitSettings
    total_steps: int

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._sharded = False

    def prepare(self, settings: FitSettings, *, total_steps: int) -> None:
        """Set optimiser settings and length of the schedule; called by `fit`."""
        self.settings, self.total_steps = settings, total_steps

    shard_methods: tuple[str, ...] = ()
    """Methods of the model, beside `forward`, that the loss calls, see `shard`."""

    def shard_units(self) -> Iterable[nn.Module]:
        """Parts of the model that a sharded training gathers one at a time, see `shard`."""
        return ()

    def configure_model(self) -> None:
        """Lightning hook, called in every process: shards the model if there is a device mesh."""
        if self.device_mesh is not None and not self._sharded:
            mesh = self.device_mesh["data_parallel"]
            shard(self.model, self.shard_units(), mesh, methods=self.shard_methods)
            self._sharded = True

    def validation_metrics(self) -> dict[str, Any]:
        """Validation metrics, computed in evaluation mode without gradients; none by default.

        In a distributed training every process calls it and must get the same numbers.
        """
        return {}

    def configure_optimizers(self) -> dict[str, object]:  # pyright: ignore
        settings, total = self.settings, self.total_steps
        # Lightning clips no gradients of a fused optimiser in mixed precision
        fused = not str(self.trainer.precision).endswith("mixed")
        optimizer = adamw(self.model, settings.learning_rate, settings.weight_decay, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_share(step, total_steps=total, settings=settings)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_device(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches, moved to the model's device."""
        for batch in batches:
            yield self.trainer.strategy.batch_to_device(batch)
