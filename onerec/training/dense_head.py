"""Training of a dense head with its own encoder, which goes its own way.

It has the generator's sessions, but another learning rate and epoch: learned in the generator's
steps it was much worse than SASRec (docs/log.md, 2026-11-28).

Shapes: B sessions, H history items, M items of a session.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Sampler

from onerec.model import Histories, items_of
from onerec.model.dense_head import DenseHead
from onerec.training.batches import OrderedBatches, Rows, loader_of
from onerec.training.distributed_batches import DistributedBatches
from onerec.training.fit_module import FitModule
from onerec.training.fit_settings import FitSettings
from onerec.training.progress import TrainingProgress
from onerec.training.runtime import Runtime
from onerec.training.scratch import Scratch
from onerec.training.trainer import FitResult, fit


class DenseHeadModule(FitModule):
    """Trains a `DenseHead` on shares (history (B, H), targets (B, M), weight) of item indices."""

    model: DenseHead
    shard_methods = ("session_logits",)

    def __init__(self, head: DenseHead, valid: Rows | None = None, *, batch_size: int) -> None:
        """Wrap a head.

        Args:
            head: With its own encoder.
            valid: Sessions whose loss is measured after every epoch; None: no validation.
            batch_size: Validation sessions per batch.
        """
        super().__init__(head)
        self.valid = valid
        self.batch_size = batch_size

    def training_step(self, batch: tuple[Histories, Tensor, Tensor], batch_idx: int) -> Tensor:
        history, targets, weight = batch
        return session_nll(self.model, items_of(history), targets) * weight

    def validation_metrics(self) -> dict[str, Any]:
        """`valid_loss` in nats per item."""
        if self.valid is None:
            return {}
        losses, items = [], 0
        every = OrderedBatches(len(self.valid), self.batch_size)
        order = DistributedBatches(every, rank=0, world_size=1)  # every process measures all
        for history, targets, _ in self.on_device(loader_of(order, self.valid)):
            number = int((targets >= 0).sum())
            losses.append(float(session_nll(self.model, items_of(history), targets)) * number)
            items += number
        return {"valid_loss": math.fsum(losses) / items}


def session_nll(head: DenseHead, history: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-probability of an item of the sessions (B, M), given the histories (B, H)
    and the items before it."""
    learned = targets[targets >= 0].long()
    logits = head.session_logits(history, targets)
    return F.cross_entropy(logits, learned, reduction="sum") / max(len(learned), 1)


def fit_dense_head(
    head: DenseHead,
    rows: Rows,
    batches: Sampler[Tensor],
    settings: FitSettings,
    *,
    valid: Rows | None,
    batch_size: int,
    runtime: Runtime,
    scratch: Scratch,
    on_progress: Callable[[TrainingProgress], None] | None = None,
) -> FitResult:
    """Train a head in place on the sessions that the generator learns; see `fit`.

    Args:
        head: With its own encoder.
        rows: Sessions.
        batches: Row numbers of global batches.
        settings: Budget and optimiser.
        valid: Sessions whose loss chooses the epoch; None keeps the last one.
        batch_size: Validation sessions per batch.
        runtime: Hardware.
        scratch: Directory to resume from.
        on_progress: Called with the progress every so many steps.
    """
    head.requires_grad_(True)
    module = DenseHeadModule(head, valid, batch_size=batch_size)
    try:
        return fit(
            module,
            rows,
            batches,
            settings,
            runtime=runtime,
            scratch=scratch,
            on_progress=on_progress,
        )
    finally:
        head.requires_grad_(False)
