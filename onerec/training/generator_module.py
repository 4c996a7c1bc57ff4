"""Lightning module of the generator: training loss, and validation loss per token."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onerec.model import Histories, Memory, OneRec, encoder_input, lookup, session_nll
from onerec.model.blocks import EncoderBlock
from onerec.model.moe import SparseMoE
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.training.batches import OrderedBatches, SessionRows, loader_of
from onerec.training.distributed_batches import DistributedBatches
from onerec.training.fit_module import FitModule


def next_token_loss(model: OneRec, history: Histories, targets: Tensor, codes: Tensor) -> Tensor:
    """L_NTP of a batch (OneRec v1, Eq. 4): mean negative log-probability of a target's token.

    The loss of a dense head without its own encoder is added, with equal weight per target.

    Args:
        model: The generator.
        history: (B, H) item indices, -1 padded; `UserHistories` where users are known.
        targets: (B, M) item indices, -1 padded; padding carries no loss.
        codes: (N, T) semantic IDs.

    Returns:
        A scalar.
    """
    session_codes, session_mask = lookup(codes, targets)
    memory = model.encode(*encoder_input(model, history, codes))
    loss = session_nll(model.decode(memory, session_codes), session_codes, session_mask)
    if model.dense is None or model.dense.encoder is not None:
        return loss
    return loss + dense_nll(model, memory, targets) / model.num_sid_tokens


def dense_nll(model: OneRec, memory: Memory, targets: Tensor) -> Tensor:
    """Mean negative log-probability of the targets (B, M), -1 padded, under the dense head."""
    logp = model.dense_logits(memory).log_softmax(-1)
    there = targets >= 0
    chosen = logp.gather(1, targets.clamp(min=0).long())
    return -(chosen * there).sum() / there.sum().clamp(min=1)


def token_nll(model: OneRec, history: Histories, targets: Tensor, codes: Tensor) -> Tensor:
    """Negative log-probabilities summed over a batch, for each token of a semantic ID.

    Args:
        model: The generator.
        history: (B, H) item indices, -1 padded; `UserHistories` where users are known.
        targets: (B, M) item indices, -1 padded.
        codes: (N, T) semantic IDs.

    Returns:
        (T + 1,) float64 on the CPU: T sums, then the number of items they are over.
    """
    session_codes, session_mask = lookup(codes, targets)
    memory = model.encode(*encoder_input(model, history, codes))
    logits = model.decode(memory, session_codes)
    nll_BMT = F.cross_entropy(
        logits.float().flatten(0, 2), session_codes.flatten(), reduction="none"
    ).view_as(session_codes)
    sums = (nll_BMT * session_mask.unsqueeze(-1)).sum((0, 1))
    # float64 on the CPU: not every accelerator supports it
    return torch.cat([sums, session_mask.sum().to(sums).unsqueeze(0)]).cpu().double()


def _losses_per_token(sums: Tensor) -> dict[str, Any]:
    """Validation metrics of the sums of `token_nll` over all sessions."""
    *token_sums, items = sums.tolist()
    losses = [total / items for total in token_sums]
    return {"valid_loss": math.fsum(losses) / len(losses), "valid_token_losses": losses}


@torch.no_grad()
def validation_losses(
    model: OneRec, codes: Tensor, valid: SessionTensors, *, batch_size: int
) -> dict[str, Any]:
    """The metrics of `GeneratorModule.validation_metrics`, outside of a training.

    Args:
        model: The generator; is left in evaluation mode.
        codes: (N, T) semantic IDs.
        valid: Sessions.
        batch_size: Sessions per batch.
    """
    model.eval()
    rows, codes = SessionRows.of(model, valid), codes.long().to(model.device)
    sums = torch.zeros(codes.shape[1] + 1, dtype=torch.float64)
    order = DistributedBatches(OrderedBatches(len(valid), batch_size), rank=0, world_size=1)
    for history, targets, _ in loader_of(order, rows):
        sums += token_nll(model, history.to(model.device), targets.to(model.device), codes)
    return _losses_per_token(sums)


class GeneratorModule(FitModule):
    """Trains a `OneRec` on shares (history (B, H), targets (B, M), weight) of item indices."""

    codes: Tensor
    model: OneRec
    shard_methods = ("encode", "decode", "dense_logits", "item_vectors")

    def __init__(
        self, model: OneRec, codes: Tensor, valid: SessionTensors | None = None, *, batch_size: int
    ) -> None:
        """Wrap a model.

        Args:
            model: The generator.
            codes: (N, T) semantic IDs.
            valid: Sessions whose loss is measured after every epoch; None: no validation.
            batch_size: Validation sessions per batch of all processes.
        """
        super().__init__(model)
        self.register_buffer("codes", codes.long(), persistent=False)
        self.valid = None if valid is None else SessionRows.of(model, valid)
        self.batch_size = batch_size

    def shard_units(self) -> list[nn.Module]:
        """Encoder blocks, and the experts of the decoder, which are most of a large model."""
        kinds = (EncoderBlock, SparseMoE)
        return [part for part in self.model.modules() if isinstance(part, kinds)]

    def training_step(self, batch: tuple[Histories, Tensor, Tensor], batch_idx: int) -> Tensor:
        history, targets, weight = batch
        return next_token_loss(self.model, history, targets, self.codes) * weight

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        # here and not in on_train_batch_end: callbacks run before that hook, and the state they
        # save must be that after the whole step
        super().optimizer_step(*args, **kwargs)
        self.model.update_expert_bias()

    def validation_metrics(self) -> dict[str, Any]:
        """`valid_loss` in nats per token, and the loss at each token position."""
        if self.valid is None:
            return {}
        rank, processes = self.trainer.global_rank, self.trainer.world_size
        order = DistributedBatches(
            OrderedBatches(len(self.valid), self.batch_size), rank=rank, world_size=processes
        )
        sums = torch.zeros(self.codes.shape[1] + 1, dtype=torch.float64)
        for history, targets, _ in self.on_device(loader_of(order, self.valid)):
            sums += token_nll(self.model, history, targets, self.codes)
        if processes > 1:
            sums = sums.to(self.device)
            torch.distributed.all_reduce(sums)
        return _losses_per_token(sums)
