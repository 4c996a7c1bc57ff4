"""One small training loop: epochs in a seeded order, the best one on validation counts.

It is what baselines and experiments need and no more; the generator of a night is trained by
`onerec.training`. With a `state` file a killed run goes on after its last whole epoch.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

CHOOSES = "ndcg@10"
"""The number of an epoch's validation that says which epoch is best."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a model learns.

    Attributes:
        epochs: Passes over the rows, at most.
        learning_rate: Peak rate of AdamW.
        weight_decay: AdamW's, on everything.
        patience: Epochs without a better score before stopping; None never stops early.
        warmup_steps: Of a linear warm-up.
        cosine: The rate falls to zero over all epochs, which early stopping would cut off.
        gradient_clip: Largest gradient norm.
    """

    epochs: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    patience: int | None = 5
    warmup_steps: int = 0
    cosine: bool = False
    gradient_clip: float = 1.0

    def rate_share(self, done: float, step: int) -> float:
        """Share of the peak rate when `done` of all epochs are over, at the step counted from 0."""
        share = 0.5 * (1 + math.cos(math.pi * min(done, 1.0))) if self.cosine else 1.0
        return share * min(1.0, (step + 1) / (self.warmup_steps + 1))


@dataclass
class Progress:
    """Where a training stands.

    Attributes:
        epoch: Epochs that are over.
        step: Steps that are over.
        seconds: Spent on training, without validation.
        best_epoch: The one whose weights count.
        log: Numbers of every epoch.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    best_score: float = -1.0
    log: list[dict[str, float]] = field(default_factory=list)


def fit_epochs(
    model: nn.Module,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    batches: Callable[[torch.Generator], Iterable[Tensor]],
    plan: Plan,
    *,
    seed: int,
    score: Callable[[], Mapping[str, float]] | None,
    on_epoch: Callable[[dict[str, float]], None] = lambda numbers: None,
    state: Path | None = None,
) -> Progress:
    """Train in place; the model ends in evaluation mode with the weights of the best epoch.

    Dropout and the like draw from the global RNG, which the caller seeds and forks.

    Args:
        model: What is trained.
        loss: From row numbers of a batch and a source of randomness to a scalar.
        batches: Row numbers of every batch of an epoch.
        plan: Budget and rates.
        seed: Of the order and the losses' draws.
        score: Numbers of the model in evaluation mode, `ndcg@10` among them; None: the last epoch
            counts.
        on_epoch: Called with `epoch`, `loss`, `seconds` and what `score` gave.
        state: File to go on from and to keep after every epoch.
    """
    draws = torch.Generator().manual_seed(seed)
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=plan.weight_decay)
    best, at = copy.deepcopy(model.state_dict()), Progress()
    if state is not None and state.exists():
        best, at = _resume(state, model, optimiser, draws)
    while at.epoch < plan.epochs and not _gave_up(at, plan):
        model.train()
        began, total, rows_seen = time.perf_counter(), 0.0, 0
        order = list(batches(draws))
        for number, rows in enumerate(order):
            done = (at.epoch + number / len(order)) / plan.epochs
            for group in optimiser.param_groups:
                group["lr"] = plan.learning_rate * plan.rate_share(done, at.step)
            value = loss(rows, draws)
            optimiser.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, plan.gradient_clip)
            optimiser.step()
            at.step += 1
            total += value.item() * len(rows)
            rows_seen += len(rows)
        at.epoch += 1
        spent = time.perf_counter() - began
        at.seconds += spent
        model.eval()
        found = dict(score()) if score is not None else {}
        numbers = {"epoch": at.epoch, "loss": total / rows_seen, **found, "seconds": spent}
        at.log.append(numbers)
        if score is None or found[CHOOSES] > at.best_score:
            best = copy.deepcopy(model.state_dict())
            at.best_score, at.best_epoch = found.get(CHOOSES, float("nan")), at.epoch
        if state is not None:
            _keep(state, model, best, optimiser, draws, at)
        on_epoch(numbers)
    model.load_state_dict(best)
    model.eval()
    return at


def alike_batches(lengths: Tensor, places: int, draws: torch.Generator) -> list[Tensor]:
    """Rows in batches of like length, so that little is padding and every batch says as much.

    Args:
        lengths: (R,) items of each row.
        places: Items of a batch, about.
        draws: Order of equal rows and of the batches.

    Returns:
        Row numbers of every batch; each row once.
    """
    shuffled = torch.randperm(len(lengths), generator=draws)
    rows = shuffled[lengths[shuffled].argsort(stable=True)]
    batch = (lengths[rows].cumsum(0) - 1) // places
    counts = torch.unique_consecutive(batch, return_counts=True)[1].tolist()
    parts = rows.split(counts)
    return [parts[i] for i in torch.randperm(len(parts), generator=draws).tolist()]


def _gave_up(at: Progress, plan: Plan) -> bool:
    return plan.patience is not None and at.epoch - at.best_epoch >= plan.patience


def _keep(
    file: Path,
    model: nn.Module,
    best: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
    draws: torch.Generator,
    at: Progress,
) -> None:
    """Write aside and put in place at once, so that a kill leaves the old state or the new."""
    tensors = {f"now.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"best.{k}": v for k, v in best.items()}
    for number, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": v for name, v in moments.items()}
    tensors |= {"rng.draws": draws.get_state(), "rng.global": torch.get_rng_state()}
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(".part")
    whole = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
    save_file(whole, str(aside), metadata={"progress": json.dumps(vars(at))})
    aside.replace(file)


def _resume(
    file: Path, model: nn.Module, optimiser: torch.optim.Optimizer, draws: torch.Generator
) -> tuple[dict[str, Tensor], Progress]:
    """Put everything where `_keep` found it; the best weights and the progress.

    Raises:
        ValueError: The file is of another model.
    """
    parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "optimiser": {}, "rng": {}}
    with safe_open(str(file), framework="pt") as stored:
        progress = Progress(**json.loads(stored.metadata()["progress"]))
        for key in stored.keys():
            part, name = key.split(".", 1)
            parts[part][name] = stored.get_tensor(key)
    try:
        model.load_state_dict(parts["now"])
    except RuntimeError as error:
        raise ValueError(
            f"{file} is of a model of another shape; delete it to train from the start"
        ) from error
    moments: dict[int, dict[str, Any]] = {}
    for key, value in parts["optimiser"].items():
        number, name = key.split(".", 1)
        moments.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    draws.set_state(parts["rng"]["draws"])
    torch.set_rng_state(parts["rng"]["global"])
    return parts["best"], progress
