"""The one training loop on a small network: which epoch is kept, when it stops, where it starts."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onerec.training import (
    FitModule,
    FitResult,
    FitSettings,
    Runtime,
    Scratch,
    fit,
    reproducible,
)
from onerec.training.batches import Rows, ShuffledBatches, length_buckets
from onerec.training.resume import RESUME
from onerec.training.scratch import digest

RUNTIME = Runtime(accelerator="cpu", threads=1)
INPUTS = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS @ torch.tensor([1.0, -2.0, 0.5])


class Regression(FitModule):
    """Least squares; its validation metric is read from a list."""

    def __init__(self, model: nn.Module, scores: Iterator[float] = iter(())) -> None:
        super().__init__(model)
        self.scores = scores
        self.seen: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, targets = batch
        return (self.model(inputs).squeeze(1) - targets).square().mean()

    def validation_metrics(self) -> dict[str, float]:
        assert not self.model.training
        assert not torch.is_grad_enabled()
        self.seen.append(next(self.model.parameters()).detach().clone())
        score = next(self.scores, None)
        return {} if score is None else {"score": score}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 1))


def train(
    module: Regression, scratch: Path | None = None, runtime: Runtime = RUNTIME, **settings: Any
) -> FitResult:
    settings = {"max_epochs": 5, "learning_rate": 0.05} | settings
    with reproducible(runtime):
        torch.manual_seed(1)
        return fit(
            module,
            Rows(INPUTS, TARGETS),
            ShuffledBatches(40, 8, seed=3),
            FitSettings(**settings),
            runtime=runtime,
            scratch=Scratch(directory=scratch) if scratch else None,
        )


@pytest.mark.parametrize(
    ("mode", "scores", "best"),
    [
        ("max", [0.1, 0.3, 0.2, 0.25, 0.9], 2),
        ("min", [0.5, 0.4, 0.4, 0.6, 0.1], 2),  # of two equal epochs the first
    ],
)
def test_the_best_epoch_counts_and_patience_ends(mode: str, scores: list, best: int) -> None:
    module = Regression(network(), iter(scores))
    result = train(module, monitor="score", mode=mode, patience=2)
    assert [entry["epoch"] for entry in result.history] == [1, 2, 3, 4]
    assert result.best_epoch == best
    kept = next(module.model.parameters())
    assert torch.equal(kept, module.seen[best - 1])
    assert not torch.equal(kept, module.seen[3])
    assert not module.model.training


def test_without_a_monitored_metric_the_last_epoch_counts() -> None:
    """As when the newest days are learned: from given weights, without validation."""
    start = network(seed=7)
    before = {name: value.clone() for name, value in start.state_dict().items()}
    module = Regression(start)
    result = train(module, max_epochs=2, learning_rate=1e-3)
    assert (result.best_epoch, len(result.history)) == (2, 2)
    assert len(result.steps["loss"]) == 2 * 5
    assert result.history[-1]["train_loss"] == pytest.approx(sum(result.steps["loss"][5:]) / 5)
    for name, value in module.model.state_dict().items():
        assert not torch.equal(value, before[name]), name
        assert torch.allclose(value, before[name], atol=0.02), "ten steps of at most 1e-3 each"


def test_the_start_is_measured_when_wanted() -> None:
    module = Regression(network(), iter([0.3, 0.2, 0.1]))
    result = train(module, max_epochs=2, measure_start=True, monitor="score", mode="max")
    assert [(e["epoch"], e["score"]) for e in result.history] == [(0, 0.3), (1, 0.2), (2, 0.1)]
    assert result.best_epoch == 1, "the start is no epoch that could be kept"
    assert torch.equal(module.seen[0], next(network().parameters()))


def test_work_of_another_training_is_not_resumed(tmp_path: Path) -> None:
    train(Regression(network()), tmp_path)
    written = (tmp_path / RESUME).stat().st_mtime_ns
    assert train(Regression(network()), tmp_path).rows_per_second is None
    assert (tmp_path / RESUME).stat().st_mtime_ns == written
    fresh = Regression(network())
    other = Regression(network(seed=2))
    assert train(other, tmp_path).rows_per_second is not None
    train(fresh)
    assert not torch.equal(fresh.model[0].weight, other.model[0].weight)


def test_what_other_stages_run_on_does_not_throw_work_away(tmp_path: Path) -> None:
    train(Regression(network(), iter([0.1, 0.2, 0.3])), tmp_path, max_epochs=3, monitor="score")
    state = (tmp_path / RESUME).stat()
    other = dataclasses.replace(RUNTIME, workers="ray", num_workers=5, shard_rows=7)
    again = Regression(network())
    train(again, tmp_path, runtime=other, max_epochs=3, monitor="score")
    assert not again.seen, "no epoch was trained again"
    assert (tmp_path / RESUME).stat() == state


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_the_model_ends_in_the_type_that_it_had(tmp_path: Path, precision: Any) -> None:
    """A further phase, which starts from its weights, hashes them."""
    runtime, model = dataclasses.replace(RUNTIME, precision=precision), network()
    for phase in ("first", "second"):
        before = model[0].weight.detach().clone()
        train(Regression(model), tmp_path / phase, runtime=runtime, max_epochs=1)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert not torch.equal(model[0].weight, before)


def test_tensors_of_every_type_are_hashed() -> None:
    kinds = (torch.bfloat16, torch.float64, torch.int32, torch.bool)
    tensors = [torch.tensor([0, 1]).to(kind) for kind in kinds]
    assert len({digest([t]) for t in tensors}) == len(kinds)
    assert digest([torch.empty(0, 2), torch.tensor(1.0)])


def test_buckets_hold_rows_of_similar_length_once_each() -> None:
    lengths = torch.randint(2, 22, (500,), generator=torch.Generator().manual_seed(0))
    batches = length_buckets(lengths, 100, torch.Generator().manual_seed(1))
    assert sorted(torch.cat(batches).tolist()) == list(range(500))
    assert all(int(lengths[rows].max() - lengths[rows].min()) <= 2 for rows in batches)
    assert all(int(lengths[rows].sum()) <= 121 for rows in batches)
    again = length_buckets(lengths, 100, torch.Generator().manual_seed(2))
    assert [b.tolist() for b in batches] != [b.tolist() for b in again]
