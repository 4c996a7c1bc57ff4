"""Training of a dense head with its own encoder, which goes its own way.

It has the generator's sessions, but another learning rate and epoch: learned in the generator's
steps it was much worse than SASRec (docs/log.md, 2026-11-28). Its epoch is the one with the best
lists, as SASRec's is among the baselines.

Shapes: B sessions, H history items, M items of a session, C users, N items.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Sampler

from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.evaluation.recency import CUTOFF, MONITOR, RecencyCases
from onerec.model import Histories, items_of
from onerec.model.dense_head import DenseHead
from onerec.training.batches import Rows
from onerec.training.fit_module import FitModule
from onerec.training.fit_settings import FitSettings
from onerec.training.progress import TrainingProgress
from onerec.training.runtime import Runtime
from onerec.training.scratch import Scratch
from onerec.training.trainer import FitResult, fit

PATIENCE = 5
"""Epochs without a better NDCG@10 before stopping, as SASRec's among the baselines: it is noisy."""
SCORES_AT_ONCE = 2**24
"""Scores of all items for users of the validation day, 64 MiB."""


class DenseHeadModule(FitModule):
    """Trains a `DenseHead` on shares (history (B, H), targets (B, M), weight) of item indices."""

    model: DenseHead
    shard_methods = ("session_logits", "sampled_logits", "next_item_logits")

    def __init__(self, head: DenseHead, cases: RecencyCases | None = None) -> None:
        """Wrap a head.

        Args:
            head: With its own encoder.
            cases: Users of the validation day, whose NDCG@10 is measured after every epoch; None:
                no validation.
        """
        super().__init__(head)
        self.cases = cases

    def training_step(self, batch: tuple[Histories, Tensor, Tensor], batch_idx: int) -> Tensor:
        history, targets, weight = batch
        return next_item_loss(self.model, items_of(history), targets) * weight

    def validation_metrics(self) -> dict[str, Any]:
        """`ndcg@10` of the items with the highest scores."""
        if self.cases is None:
            return {}
        return {MONITOR: ndcg_of(self.model, self.cases)}


def next_item_loss(head: DenseHead, history: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-probability of an item of the sessions (B, M), given the histories (B, H)
    and the items before it; an estimate where the head draws negatives."""
    learned = targets[targets >= 0].long()
    if head.draws_negatives:
        logits, learned = head.sampled_logits(history, targets), torch.zeros_like(learned)
    else:
        logits = head.session_logits(history, targets)
    return F.cross_entropy(logits, learned, reduction="sum") / max(len(learned), 1)


@torch.no_grad()
def ndcg_of(head: DenseHead, cases: RecencyCases) -> float:
    """Mean NDCG@10 over the users (C) of the head's best candidates, without a prior."""
    device = head.vectors.device
    barred = ~torch.from_numpy(cases.candidates).to(device)
    users_at_once = max(SCORES_AT_ONCE // head.num_items, 1)
    best = []
    # in float32, as lists are made: bfloat16 has too many ties
    with torch.autocast(device.type, enabled=False):
        for history in torch.from_numpy(cases.users.history).split(users_at_once):
            scores = head.next_item_logits(history.to(device)).masked_fill(barred, -torch.inf)
            best.append(scores.topk(min(CUTOFF, scores.shape[1])).indices.cpu())
    lists = torch.cat(best).numpy()
    return float(per_case_metrics(lists, cases.users.targets, (CUTOFF,))[MONITOR].mean())


def fit_dense_head(
    head: DenseHead,
    rows: Rows,
    batches: Sampler[Tensor],
    settings: FitSettings,
    *,
    cases: RecencyCases | None,
    runtime: Runtime,
    scratch: Scratch,
    on_progress: Callable[[TrainingProgress], None] | None = None,
) -> FitResult:
    """Train a head in place on the sessions that the generator learns; see `fit`.

    Args:
        head: With its own encoder.
        rows: Sessions.
        batches: Row numbers of global batches.
        settings: Budget and optimiser; with `cases` the rate is constant after warming up.
        cases: Users whose NDCG@10 chooses the epoch; None keeps the last one.
        runtime: Hardware.
        scratch: Directory to resume from.
        on_progress: Called with the progress every so many steps.
    """
    if cases is not None:  # the rate stays: how many epochs there are is not known before
        settings = dataclasses.replace(
            settings, schedule="constant", monitor=MONITOR, mode="max", patience=PATIENCE
        )
    else:
        settings = dataclasses.replace(settings, monitor=None, patience=0)
    report = on_progress and (
        lambda made: on_progress(dataclasses.replace(made, part="dense head"))
    )
    head.requires_grad_(True).train()  # the generator's training has left it in evaluation mode
    try:
        return fit(
            DenseHeadModule(head, cases),
            rows,
            batches,
            settings,
            runtime=runtime,
            scratch=scratch,
            on_progress=report,
        )
    finally:
        head.requires_grad_(False)
