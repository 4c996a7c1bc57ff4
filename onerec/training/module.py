"""The generator as a Lightning module: loss, optimiser, schedule; nothing is kept here."""

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onerec.config import TrainingConfig
from onerec.model import OneRec, lookup, session_nll
from onerec.training.microbatches import split_rows, summed_loss

FINAL_RATE_SHARE = 0.05
"""Where the cosine ends, as a share of the peak learning rate."""


def next_token_loss(model: OneRec, history: Tensor, targets: Tensor, codes: Tensor) -> Tensor:
    """L_NTP of a batch (OneRec v1, Eq. 4): mean negative log-probability of a target's token.

    Args:
        model: The generator.
        history: (B, H) item indices, -1 padded.
        targets: (B, M) item indices, -1 padded; padding carries no loss.
        codes: (N, T) semantic IDs.

    Returns:
        A scalar.
    """
    history_codes, history_mask = lookup(codes, history)
    session_codes, session_mask = lookup(codes, targets)
    logits = model(history_codes, history_mask, session_codes)
    return session_nll(logits, session_codes, session_mask)


def step_loss(
    model: OneRec, history: Tensor, targets: Tensor, codes: Tensor, *, micro_batch: int
) -> Tensor:
    """`next_token_loss` of a batch, its gradients computed in pieces of `micro_batch` rows.

    A piece counts by its targets, so the pieces' sum is the batch's mean; 0 is one piece.
    """
    if micro_batch == 0 or len(history) <= micro_batch:
        return next_token_loss(model, history, targets, codes)
    pieces = split_rows((history, targets), micro_batch)
    total = (targets >= 0).sum()

    def loss_of(piece: int) -> Tensor:
        history_here, targets_here = pieces[piece]
        loss = next_token_loss(model, history_here, targets_here, codes)
        return loss * (targets_here >= 0).sum() / total

    return summed_loss(model, loss_of, len(pieces))


def token_nll(model: OneRec, history: Tensor, targets: Tensor, codes: Tensor) -> Tensor:
    """Negative log-probabilities summed over a batch, apart for each token of an ID.

    Args:
        model: The generator.
        history: (B, H) item indices, -1 padded.
        targets: (B, M) item indices, -1 padded.
        codes: (N, T) semantic IDs.

    Returns:
        (T + 1,) float64 on the CPU: T sums, then the number of items they are over.
    """
    history_codes, history_mask = lookup(codes, history)
    session_codes, session_mask = lookup(codes, targets)
    logits = model(history_codes, history_mask, session_codes)
    nll_BMT = F.cross_entropy(
        logits.float().flatten(0, 2), session_codes.flatten(), reduction="none"
    ).view_as(session_codes)
    sums = (nll_BMT * session_mask.unsqueeze(-1)).sum((0, 1))
    # float64 off the device: not every accelerator has it
    return torch.cat([sums, session_mask.sum().to(sums).unsqueeze(0)]).cpu().double()


def rate_share(step: int, *, total_steps: int, config: TrainingConfig) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then the schedule."""
    warmup = math.ceil(config.warmup_share * total_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return 1.0
    done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    return FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * done))


class GeneratorModule(L.LightningModule):
    """Trains a `OneRec` on batches (history (B, H), targets (B, M)) of item indices."""

    def __init__(
        self, model: OneRec, codes: Tensor, config: TrainingConfig, *, total_steps: int
    ) -> None:
        """Wrap a model.

        Args:
            model: The generator.
            codes: (N, T) semantic IDs.
            config: Optimiser settings.
            total_steps: Length of the schedule.
        """
        super().__init__()
        self.model = model
        self.config = config
        self.total_steps = total_steps
        self.register_buffer("codes", codes.long(), persistent=False)
        self.valid_sums: Tensor | None = None

    codes: Tensor

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        history, targets = batch
        loss = step_loss(
            self.model, history, targets, self.codes, micro_batch=self.config.micro_batch
        )
        return loss * self._weight(targets) if self.trainer.world_size > 1 else loss

    def _weight(self, targets: Tensor) -> Tensor:
        """What turns the processes' mean of losses into the loss of the whole batch."""
        mine = (targets >= 0).sum().float()
        mean = mine.clone()
        torch.distributed.all_reduce(mean)
        mean /= self.trainer.world_size
        return mine / mean.clamp(min=1e-9)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        # here and not at the end of the batch, which callbacks reach first: the state they write
        # must be that after the whole step
        super().optimizer_step(*args, **kwargs)
        self.model.update_expert_bias()

    def on_validation_epoch_start(self) -> None:
        self.valid_sums = None

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        history, targets = batch
        sums = token_nll(self.model, history, targets, self.codes)
        self.valid_sums = sums if self.valid_sums is None else self.valid_sums + sums

    def on_validation_epoch_end(self) -> None:
        if self.trainer.world_size > 1:
            assert self.valid_sums is not None
            sums = self.valid_sums.to(self.device)
            torch.distributed.all_reduce(sums)
            self.valid_sums = sums.cpu()

    def token_losses(self) -> list[float]:
        """Mean validation loss of each token, after a validation pass."""
        assert self.valid_sums is not None, "no validation pass yet"
        *sums, items = self.valid_sums.tolist()
        return [s / items for s in sums]

    def configure_optimizers(self) -> dict[str, object]:  # pyright: ignore
        optimizer = adamw(self.model, self.config.learning_rate, self.config.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: rate_share(step, total_steps=self.total_steps, config=self.config),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves gains and biases alone."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=learning_rate,
        fused=True,
    )
