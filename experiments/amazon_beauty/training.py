"""What the systems of the Amazon Beauty table share: data, budget, questions, and where results go.

Shapes: U users, N items, H history items, W windows.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from experiments.amazon_beauty.reviews import HISTORY_LENGTH, AmazonReviews, Questions
from onerec.artifacts import read_json, write_json
from onerec.evaluation.baselines.sequence_training import MONITOR, Recipe, fit_windows
from onerec.evaluation.baselines.sequences import cut_windows
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.training import FitSettings, Scratch

CUTOFFS = (5, 10)
TOP_K = max(CUTOFFS)


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
        valid_users: Users asked after every epoch.
        beam: Beams of a generator.
        warmup_steps: Of a linear warm-up.
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

    def settings(self) -> FitSettings:
        """The trainer's settings; every epoch is taken, the best one by validation is kept."""
        return FitSettings(
            max_epochs=self.epochs,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup_steps=self.warmup_steps,
            schedule="cosine",
            monitor=MONITOR,
            mode="max",
        )


@dataclass(frozen=True)
class Bench:
    """What all systems share in a run.

    Attributes:
        reviews: The data.
        directory: Of the run; everything kept is here.
        seed: Of weights and orders.
        say: Called with messages about progress, a line at a time.
    """

    reviews: AmazonReviews
    directory: Path
    seed: int
    say: Callable[[str], None]

    def windows(self) -> Tensor:
        """(W, H + 1) all that may be learned from, in windows that share one item."""
        items, users = self.reviews.learned()
        return torch.from_numpy(cut_windows(items, users, HISTORY_LENGTH + 1)).long()

    def some_valid(self, users: int) -> Questions:
        """A seeded sample of the validation questions."""
        asked = self.reviews.questions("valid")
        rows = np.random.default_rng(0).permutation(len(asked.targets))[:users]
        return Questions(asked.history[rows], asked.targets[rows])

    def scratch(self, system: str) -> Scratch:
        """Where a killed training of a system is resumed from."""
        return Scratch(directory=self.directory / "states" / f"{system}-{self.seed}")

    def on_epoch(self, system: str) -> Callable[[dict[str, Any]], None]:
        """Says the numbers of every epoch on one line."""

        def say(numbers: dict[str, Any]) -> None:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            self.say(f"{system}: {shown}")

        return say


@dataclass(frozen=True)
class Measured:
    """What the test users got from one system.

    Attributes:
        values: Metric -> (U,).
        seconds: Making it, without asking.
        facts: What was chosen and how training went.
    """

    values: Mapping[str, np.ndarray]
    seconds: float
    facts: Mapping[str, object]

    def save(self, directory: Path, name: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        values = {key: np.ascontiguousarray(value) for key, value in self.values.items()}
        save_file(values, directory / f"{name}.safetensors")
        write_json(directory / f"{name}.json", {"seconds": self.seconds, "facts": dict(self.facts)})


def load_measured(directory: Path, name: str) -> Measured | None:
    """Read what `Measured.save` wrote; None where there is nothing."""
    if not (directory / f"{name}.json").exists():
        return None
    stored = read_json(directory / f"{name}.json")
    values = load_file(directory / f"{name}.safetensors")
    return Measured(values, stored["seconds"], stored["facts"])


def metrics_of(ranked: np.ndarray, asked: Questions) -> dict[str, np.ndarray]:
    """Recall and NDCG of every user at both cutoffs."""
    found = per_case_metrics(ranked, asked.targets, CUTOFFS)
    return {k: v for k, v in found.items() if k.startswith(("recall", "ndcg"))}


def means(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(value.mean()) for name, value in values.items()}


def cropped(windows: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """Let some windows (B, L) begin at a random item; at least two items stay."""
    count = (windows >= 0).sum(1)
    start = (torch.rand(len(windows), generator=draws) * (count - 1)).long()
    start = start * (torch.rand(len(windows), generator=draws) < share)
    place = torch.arange(windows.shape[1]) + start[:, None]
    moved = windows.gather(1, place.clamp(max=windows.shape[1] - 1))
    return moved.masked_fill(place >= count[:, None], -1)


def train(
    bench: Bench,
    name: str,
    model: torch.nn.Module,
    budget: Budget,
    windows: Tensor,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    rank: Callable[[Questions], np.ndarray],
    also: Callable[[], dict[str, float]] = dict,
) -> tuple[dict[str, object], float]:
    """Train within the budget; what to report of it, and its seconds without validation."""
    valid = bench.some_valid(budget.valid_users)
    result = fit_windows(
        model,
        lambda rows, draws: loss(cropped(rows, budget.crop_share, draws), draws),
        windows,
        Recipe(batch_items=budget.batch_items),
        budget.settings(),
        seed=bench.seed,
        measure=lambda: means(metrics_of(rank(valid), valid)) | also(),
        on_epoch=bench.on_epoch(name),
        scratch=bench.scratch(name),
    )
    facts = {
        "budget": asdict(budget),
        "parameters": sum(p.numel() for p in model.parameters()),
        "best epoch": result.best_epoch,
        "epochs": result.history,
    }
    return facts, result.total_seconds
