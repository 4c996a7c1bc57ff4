"""The small training loop: which epoch counts, going on after a kill, batches of like length."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from onerec.evaluation.baselines.loop import CHOOSES, Plan, Progress, alike_batches, fit_epochs

INPUTS = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
WANTED = INPUTS @ torch.tensor([1.0, -2.0, 0.5])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 1))


def fit(model: nn.Module, plan: Plan, **more) -> Progress:
    def loss(rows: Tensor, draws: torch.Generator) -> Tensor:
        noise = torch.rand(len(rows), generator=draws) * 0.01
        return (model(INPUTS[rows]).squeeze(1) - WANTED[rows] + noise).square().mean()

    def batches(draws: torch.Generator) -> tuple[Tensor, ...]:
        return torch.randperm(40, generator=draws).split(8)

    torch.manual_seed(1)
    return fit_epochs(model, loss, batches, plan, seed=3, **({"score": None} | more))


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    plan = Plan(epochs=4, cosine=True, warmup_steps=3, learning_rate=0.05)
    whole = network()
    fit(whole, plan, state=tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill(numbers: dict[str, float]) -> None:
        if numbers["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        fit(network(), plan, state=tmp_path / "cut", on_epoch=kill)
    again = network()
    seen: list[float] = []
    at = fit(again, plan, state=tmp_path / "cut", on_epoch=lambda n: seen.append(n["epoch"]))
    assert seen == [3, 4]
    assert [n["epoch"] for n in at.log] == [1, 2, 3, 4]
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    with pytest.raises(ValueError, match="of a model of another shape"):
        fit(nn.Linear(3, 1), plan, state=tmp_path / "cut")


def test_the_best_epoch_counts_and_patience_ends() -> None:
    model, scores = network(), iter([0.1, 0.3, 0.2, 0.25, 0.9])
    kept: list[Tensor] = []

    def score() -> dict[str, float]:
        kept.append(model[0].weight.detach().clone())
        assert not model.training
        return {CHOOSES: next(scores)}

    at = fit(model, Plan(epochs=5, patience=2), score=score)
    assert (at.epoch, at.best_epoch) == (4, 2)
    assert torch.equal(model[0].weight, kept[1])
    assert not torch.equal(kept[1], kept[3])


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    plan = Plan(epochs=10, warmup_steps=4, cosine=True)
    assert plan.rate_share(0.0, 0) == pytest.approx(1 / 5)
    assert plan.rate_share(0.5, 100) == pytest.approx(0.5)
    assert plan.rate_share(1.0, 100) == pytest.approx(0.0)
    assert Plan(epochs=10).rate_share(0.7, 0) == 1.0


def test_batches_hold_rows_of_like_length_once_each() -> None:
    lengths = torch.randint(2, 22, (500,), generator=torch.Generator().manual_seed(0))
    batches = alike_batches(lengths, 100, torch.Generator().manual_seed(1))
    assert sorted(torch.cat(batches).tolist()) == list(range(500))
    assert all(int(lengths[rows].max() - lengths[rows].min()) <= 2 for rows in batches)
    assert all(int(lengths[rows].sum()) <= 121 for rows in batches)
    again = alike_batches(lengths, 100, torch.Generator().manual_seed(2))
    assert [b.tolist() for b in batches] != [b.tolist() for b in again]
