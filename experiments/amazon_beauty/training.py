"""What the systems of the Amazon Beauty table share: data, budget, training, results.

Shapes: U users, N items, H history items, W windows.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from experiments.amazon_beauty.reviews import HISTORY_LENGTH, AmazonReviews, LeaveOneOutCases
from onerec.artifacts import read_json, write_json
from onerec.config import Runtime
from onerec.evaluation.baselines.sequence_training import (
    CPU,
    MONITOR,
    Recipe,
    WindowModule,
    fit_windows,
)
from onerec.evaluation.baselines.sequences import cut_windows
from onerec.evaluation.metric_table import (
    CaseValues,
    Metric,
    read_case_metrics,
    write_case_metrics,
)
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.training import FitSettings, Scratch

CUTOFFS = (5, 10)
TOP_K = max(CUTOFFS)
UNSEEN = "unseen_items"
"""Slice of the metrics of lists without what the user had chosen before."""
RESULTS = "results.json"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a system may spend, and its shape. Chosen on validation users, never on test users.

    Attributes:
        epochs: Passes over all sequences; the rate falls to zero over them.
        width: D.
        layers: Blocks of the encoder, and as many of the decoder.
        heads: Attention heads.
        dropout: Dropout.
        learning_rate: Peak.
        weight_decay: AdamW's.
        batch_items: Items of a batch of sequences of similar length.
        crop_share: Of the sequences that begin at a random item, so that every contiguous
            sub-sequence is a history some time.
        valid_users: Users of the validation after every epoch.
        beam: Beams of a generator.
        warmup_steps: Of a linear warm-up.
        history: H, the most items that are read.
        schedule: Of the learning rate after the warm-up.
        patience: Epochs without a better NDCG@10 before it stops; 0 takes every epoch.
    """

    epochs: int
    width: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.2
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    batch_items: int = 512
    crop_share: float = 0.5
    valid_users: int = 1000
    beam: int = 50
    warmup_steps: int = 200
    history: int = HISTORY_LENGTH
    schedule: Literal["cosine", "constant"] = "cosine"
    patience: int = 0

    def settings(self) -> FitSettings:
        """The trainer's settings; the best epoch by validation is kept."""
        return FitSettings(
            max_epochs=self.epochs,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup_steps=self.warmup_steps,
            schedule=self.schedule,
            monitor=MONITOR,
            mode="max",
            patience=self.patience,
        )


@dataclass(frozen=True)
class SystemRun:
    """One system on the data.

    Attributes:
        reviews: The data.
        scratch: Directory of unfinished work; a killed run is resumed from it.
        seed: Of weights and orders.
        on_progress: Called with messages, a line at a time.
        runtime: Hardware of training and ranking.
    """

    reviews: AmazonReviews
    scratch: Path
    seed: int = 0
    on_progress: Callable[[str], None] = lambda message: None
    runtime: Runtime = CPU

    def windows(self, history: int = HISTORY_LENGTH) -> Tensor:
        """(W, H + 1) all that may be learned from, in windows that share one item."""
        items, users = self.reviews.learned()
        return torch.from_numpy(cut_windows(items, users, history + 1)).long()

    def validation_sample(self, users: int, history: int = HISTORY_LENGTH) -> LeaveOneOutCases:
        """A seeded sample of the validation cases."""
        cases = self.reviews.cases("valid", history)
        return cases.of(np.random.default_rng(0).permutation(len(cases.targets))[:users])


@dataclass(frozen=True)
class BeautyResult:
    """One row of the table.

    Attributes:
        values: (U,) of the test users by metric.
        seconds: Training time, without evaluation.
        facts: What was chosen and how training went.
    """

    values: CaseValues
    seconds: float
    facts: Mapping[str, object]


def save_results(directory: Path, results: Mapping[str, BeautyResult]) -> None:
    """Write `case_metrics.parquet` of all rows, and `results.json` with seconds and facts."""
    num_users = len(next(iter(next(iter(results.values())).values.values())))
    values = {name: result.values for name, result in results.items()}
    write_case_metrics(directory, np.arange(num_users).astype(str), values)
    facts = {n: {"seconds": r.seconds, "facts": dict(r.facts)} for n, r in results.items()}
    write_json(directory / RESULTS, facts)


def load_results(directory: Path) -> dict[str, BeautyResult]:
    """Every row that `save_results` wrote, by name."""
    table = read_case_metrics(directory, slice=None).to_pandas()
    found: dict[str, dict[Metric, np.ndarray]] = {}
    keys = ["system", "metric", "slice"]
    for (system, metric, part), rows in table.groupby(keys, observed=True, sort=False):
        found.setdefault(str(system), {})[Metric(metric, part)] = rows["value"].to_numpy()
    stored = read_json(directory / RESULTS)
    return {name: BeautyResult(values, **stored[name]) for name, values in found.items()}


def metrics_of(ranked: np.ndarray, cases: LeaveOneOutCases) -> dict[str, np.ndarray]:
    """Recall and NDCG of every user at both cutoffs."""
    found = per_case_metrics(ranked, cases.targets, CUTOFFS)
    return {k: v for k, v in found.items() if k.startswith(("recall", "ndcg"))}


def both_protocols(
    everything: np.ndarray, unseen: np.ndarray, cases: LeaveOneOutCases
) -> CaseValues:
    """`metrics_of` lists of all items, and of lists without seen ones as the slice `UNSEEN`."""
    return {Metric(name): values for name, values in metrics_of(everything, cases).items()} | {
        Metric(name, UNSEEN): values for name, values in metrics_of(unseen, cases).items()
    }


def mean_metrics(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean over users."""
    return {name: float(value.mean()) for name, value in values.items()}


def cropped(windows: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """Let some windows (B, L) begin at a random item; at least two items stay."""
    count = (windows >= 0).sum(1)
    uniform, crop = torch.rand(2, len(windows), generator=draws).to(windows.device)
    start = (uniform * (count - 1)).long() * (crop < share)
    place = torch.arange(windows.shape[1], device=windows.device) + start[:, None]
    moved = windows.gather(1, place.clamp(max=windows.shape[1] - 1))
    return moved.masked_fill(place >= count[:, None], -1)


def train_within_budget(
    run: SystemRun,
    model: torch.nn.Module,
    budget: Budget,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    rank: Callable[[LeaveOneOutCases], np.ndarray],
) -> tuple[dict[str, object], float]:
    """Train within the budget; facts about it, and its seconds without validation.

    Args:
        run: Data, seed and scratch.
        model: Trained in place; it ends with the weights of the best epoch on validation.
        budget: What it may spend.
        loss: From windows (B, L) and a source of randomness to a scalar.
        rank: (U, top) lists of the present model.
    """
    valid = run.validation_sample(budget.valid_users, budget.history)

    def on_epoch(numbers: dict[str, Any]) -> None:
        run.on_progress(", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))

    module = WindowModule(
        model,
        lambda rows, _, draws: loss(cropped(rows, budget.crop_share, draws), draws),
        seed=run.seed,
        measure=lambda: mean_metrics(metrics_of(rank(valid), valid)),
    )
    result = fit_windows(
        module,
        run.windows(budget.history),
        Recipe(batch_items=budget.batch_items),
        budget.settings(),
        runtime=run.runtime,
        on_epoch=on_epoch,
        scratch=Scratch(directory=run.scratch / "training"),
    )
    model.to(run.runtime.torch_device())  # the trainer left it on the CPU
    facts = {
        "budget": asdict(budget),
        "parameters": sum(p.numel() for p in model.parameters()),
        "best epoch": result.best_epoch,
        "epochs": result.history,
    }
    return facts, result.total_seconds
