"""SASRec and BERT4Rec learn, choose their settings, and go on where they were killed."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from onerec.config import EvaluationConfig, TrainingConfig
from onerec.evaluation.baselines.sequence_losses import (
    LOSSES,
    MaskedItems,
    NextItem,
    NextItemOneNegative,
)
from onerec.evaluation.baselines.sequence_training import (
    TRIALS,
    Recipe,
    Trial,
    WindowModule,
    best_trial,
    fit_sequence_model,
    fit_windows,
    validation,
)
from onerec.evaluation.baselines.sequences import NewestWindows
from onerec.evaluation.baselines.transformer import SequenceModel, SequenceRanker, SequenceShape
from onerec.evaluation.recency import RecencyCases
from onerec.session_dataset.eval_users import EvalUsers
from onerec.training import FitSettings, Scratch
from tests.core.evaluation.small_sequences import (
    CONFIG,
    CYCLE,
    DATA,
    HISTORY,
    LENGTH,
    MANY,
    NOBODY,
    PHASE,
    TARGETS,
)


@pytest.mark.parametrize("name", LOSSES)
def test_learns_what_follows_and_moves_everything(name: str) -> None:
    seen: list[dict] = []
    recipe = Recipe(learning_rate=1e-2, batch_size=64, patience=30)
    ranker = fit_sequence_model(LOSSES[name], DATA, CONFIG, recipe=recipe, on_epoch=seen.append)
    assert (ranker.rank(HISTORY, 1).items == TARGETS).mean() > 0.4  # by chance 1 / 40
    assert seen[-1]["train_loss"] < seen[0]["train_loss"]
    start = SequenceModel(ranker.model.shape).state_dict()
    for key, value in ranker.model.state_dict().items():
        assert not torch.equal(value, start[key]), key


def test_the_same_seed_the_same_model() -> None:
    quick = dataclasses.replace(CONFIG, baseline_epochs=2)
    unmeasured = dataclasses.replace(DATA, valid=NOBODY)

    def fitted(config: EvaluationConfig) -> dict[str, torch.Tensor]:
        return fit_sequence_model(NextItemOneNegative(), unmeasured, config).model.state_dict()

    first, again = fitted(quick), fitted(quick)
    assert all(torch.equal(first[k], again[k]) for k in first)
    other = fitted(dataclasses.replace(quick, seed=9))
    assert not torch.equal(first["items.weight"], other["items.weight"])


def test_the_best_trial_by_the_validation_day_counts() -> None:
    seen = []

    def fitted(trials: int) -> SequenceRanker:
        config = dataclasses.replace(CONFIG, baseline_epochs=8, baseline_trials=trials)
        return fit_sequence_model(NextItem(), DATA, config, on_epoch=seen.append)

    usual = fitted(1)
    assert {numbers["trial"] for numbers in seen} == {1}
    seen.clear()
    best = fitted(3)
    by_trial = {n: max(e["ndcg@10"] for e in seen if e["trial"] == n) for n in (1, 2, 3)}
    assert validation(best, DATA.valid)["ndcg@10"] == max(by_trial.values())
    assert validation(usual, DATA.valid)["ndcg@10"] == by_trial[1]
    assert by_trial[3] > by_trial[1], "three times the rate learns more in eight epochs"


def test_what_could_not_be_listed_on_the_validation_day_chooses_no_epoch() -> None:
    listed = np.arange(MANY) % 2 == 0
    ranker = SequenceRanker(
        SequenceModel(SequenceShape(num_items=MANY, length=LENGTH, width=8)).eval(), DATA.candidates
    )
    lists = ranker.rank(DATA.valid.history, 10, candidates=listed)
    assert listed[lists.items].all()
    seen: list[dict[str, float]] = []
    config = dataclasses.replace(CONFIG, baseline_epochs=2)
    data = dataclasses.replace(DATA, valid_candidates=listed)
    best = fit_sequence_model(NextItem(), data, config, on_epoch=seen.append)
    measured = validation(best, data.valid, listed)["ndcg@10"]
    assert measured == max(entry["ndcg@10"] for entry in seen)
    assert measured != validation(best, data.valid)["ndcg@10"]


def test_without_a_validation_day_only_the_usual_settings_are_tried() -> None:
    tried = []

    def build(trial: Trial):
        tried.append(trial)
        shape = SequenceShape(num_items=MANY, length=LENGTH, width=8)
        one = SequenceModel(shape)
        return SequenceRanker(one, DATA.candidates), one, lambda *batch: NextItem()(one, *batch)

    config = EvaluationConfig(baseline_trials=4, baseline_epochs=1)
    for data in (dataclasses.replace(DATA, valid=NOBODY), DATA):
        best_trial(build, data, config, Recipe(), lambda entry: None)
    assert tried == [Trial(), *TRIALS]


@pytest.mark.parametrize("name", LOSSES)
def test_the_newest_days_are_learned_when_the_epoch_is_chosen(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the newest days what follows item i is item i + 2; older items are only read."""
    seen: list[dict] = []
    with_dropout: list[bool] = []
    step = WindowModule.training_step

    def recorded(module: WindowModule, batch: Sequence[torch.Tensor], batch_idx: int):
        with_dropout.append(all(part.training for part in module.model.modules()))
        return step(module, batch, batch_idx)

    monkeypatch.setattr(WindowModule, "training_step", recorded)
    last = HISTORY[:, 3:4]
    items = np.concatenate([HISTORY[:, :4], (last + 2) % MANY, np.full((MANY, 1), -1)], 1)
    learned = np.tile(np.arange(LENGTH + 1) == 4, (MANY, 1))
    newest = NewestWindows(items=np.tile(items, (8, 1)), learned=np.tile(learned, (8, 1)))
    data = dataclasses.replace(DATA, newest=newest)
    recipe = Recipe(learning_rate=1e-2, batch_size=64)

    def fitted(phase: TrainingConfig | None) -> SequenceRanker:
        return fit_sequence_model(
            LOSSES[name], data, CONFIG, recipe=recipe, newest=phase, on_epoch=seen.append
        )

    without = fitted(None)
    chosen = len(seen)
    ranker = fitted(PHASE)
    assert seen[:chosen] == seen[chosen:], "the epoch is chosen before"
    before, after = (
        (system.rank(HISTORY, 1).items == (last + 2) % MANY).mean() for system in (without, ranker)
    )
    assert after > before + 0.15
    assert all(with_dropout), "in the last phase, too"
    again = fitted(PHASE).model.state_dict()
    assert all(torch.equal(again[key], value) for key, value in ranker.model.state_dict().items())


def test_the_prior_is_chosen_by_a_model_that_has_learned_the_newest_days_before() -> None:
    """There, too, item i + 2 followed; the last phase begins where the chosen epoch ended."""
    last = HISTORY[:, 3:4]
    following = (last + 2) % MANY
    items = np.concatenate([HISTORY[:, :4], following, np.full((MANY, 1), -1)], 1)
    learned = np.tile(np.arange(LENGTH + 1) == 4, (MANY, 1))
    before = NewestWindows(items=np.tile(items, (8, 1)), learned=np.tile(learned, (8, 1)))
    cases = RecencyCases(
        users=EvalUsers(np.array([f"u{n}" for n in range(MANY)], object), HISTORY, following),
        watches=np.zeros(MANY),
        candidates=np.ones(MANY, dtype=bool),
    )
    recipe = Recipe(learning_rate=1e-2, batch_size=64)
    found = {}
    for name, days in (("not", None), ("learned", before)):
        data = dataclasses.replace(DATA, newest=before, newest_before=days, recency=cases)
        found[name] = fit_sequence_model(
            LOSSES["sasrec_ce"], data, CONFIG, recipe=recipe, newest=PHASE
        )
    ndcg = {name: ranker.recency_prior.measured.ndcg[0.0] for name, ranker in found.items()}
    assert ndcg["learned"] > ndcg["not"] + 0.1
    weights = [ranker.model.state_dict() for ranker in found.values()]
    assert all(torch.equal(weights[0][key], value) for key, value in weights[1].items())


def test_the_model_that_could_serve_chooses_the_prior() -> None:
    """It is measured as it is, and the training of the new model stays the same."""
    last = HISTORY[:, 3:4]
    watches = np.where(np.arange(MANY) % 2 == 0, 50.0, 0.0)
    cases = RecencyCases(
        users=EvalUsers(
            np.array([f"u{n}" for n in range(MANY)], object), HISTORY, (last + 1) % MANY
        ),
        watches=watches,
        candidates=np.ones(MANY, dtype=bool),
    )
    config = dataclasses.replace(CONFIG, baseline_epochs=3)
    untrained = SequenceRanker(
        SequenceModel(SequenceShape(num_items=MANY, length=LENGTH, width=8)).eval(), DATA.candidates
    )
    found = [
        fit_sequence_model(
            NextItem(), dataclasses.replace(DATA, recency=cases, served=served), config
        )
        for served in (None, untrained)
    ]
    assert [ranker.recency_prior.measured.as_served for ranker in found] == [False, True]
    measured = found[1].recency_prior.measured.ndcg[0.0]
    assert measured == pytest.approx(validation(untrained, cases.users)["ndcg@10"])
    weights = [ranker.model.state_dict() for ranker in found]
    assert all(torch.equal(weights[0][key], value) for key, value in weights[1].items())


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """Orders and masks come from one stream of randomness, whose state is kept."""
    settings = FitSettings(max_epochs=4, learning_rate=1e-2, warmup_steps=3, schedule="cosine")

    class Killed(Exception):
        pass

    def weights(directory: Path, kill_at: int = 0) -> dict[str, torch.Tensor]:
        def on_epoch(entry: dict) -> None:
            epochs.append(entry["epoch"])
            if entry["epoch"] == kill_at:
                raise Killed

        torch.manual_seed(0)
        shape = SequenceShape(num_items=MANY, length=LENGTH, width=8, causal=False)
        one = SequenceModel(shape)
        fit_windows(
            WindowModule(one, lambda *batch: MaskedItems()(one, *batch), seed=3),
            torch.from_numpy(CYCLE),
            Recipe(batch_items=200),
            settings,
            on_epoch=on_epoch,
            scratch=Scratch(directory=directory),
        )
        return one.state_dict()

    epochs: list[int] = []
    whole = weights(tmp_path / "whole")
    with pytest.raises(Killed):
        weights(tmp_path / "cut", kill_at=3)
    epochs.clear()
    again = weights(tmp_path / "cut")
    assert epochs == [3, 4], "the state is that of epoch 2"
    assert all(torch.equal(whole[name], again[name]) for name in whole)
