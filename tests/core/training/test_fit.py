"""What a training does, keeps and refuses."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from onerec.config import ModelConfig, TrainingConfig
from onerec.evaluation.ndcg_by_weight import NOT_MEASURED, Earlier, NdcgByWeight
from onerec.evaluation.recency import PRIOR_WEIGHTS, RecencyCases
from onerec.model import OneRec, encode_items, load_model
from onerec.model.item_neighbours import ItemNeighbours
from onerec.session_dataset.eval_users import EvalUsers
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.training import (
    PretrainingData,
    Runtime,
    TrainingDivergedError,
    TrainingProgress,
    TrainingReport,
    fit_generator,
    read_report,
)
from onerec.training.generator_module import dense_nll
from onerec.training.list_weights import DENSE_SHARES, NEIGHBOUR_WEIGHTS
from onerec.training.resume import RESUME
from tests.core.training.small import (
    HISTORY,
    ITEMS,
    MODEL,
    NUM_CODES,
    NUM_ITEMS,
    NUM_SID_TOKENS,
    TRAINING,
    catalogue,
    no_sessions,
    patterned_sessions,
)

TRAIN, VALID = patterned_sessions(400, seed=1), patterned_sessions(80, seed=2)


def fit(
    directory: Path,
    config: TrainingConfig = TRAINING,
    model: ModelConfig = MODEL,
    train: SessionTensors = TRAIN,
    valid: SessionTensors = VALID,
    initial: OneRec | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    list_cases: RecencyCases | None = None,
    vectors: torch.Tensor | None = None,
    vectors_before_validation: torch.Tensor | None = None,
    earlier: Earlier | None = None,
    newest: SessionTensors | None = None,
    newest_before: SessionTensors | None = None,
    item_neighbours: Callable[[Sequence[str]], ItemNeighbours] | None = None,
) -> TrainingReport:
    return fit_generator(
        config,
        model,
        PretrainingData(
            train=train,
            valid=valid,
            semantic_ids=catalogue(),
            list_cases=list_cases,
            vectors=vectors,
            vectors_before_validation=vectors_before_validation,
            earlier=earlier or {},
            newest=newest,
            newest_before=newest_before,
            item_neighbours=item_neighbours,
        ),
        out_dir=directory / "out",
        scratch=directory / "scratch",
        initial=initial,
        on_progress=on_progress,
        runtime=Runtime(accelerator="cpu", threads=1),
    )


def hashes(directory: Path) -> dict[str, str]:
    return {
        f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in (directory / "out").iterdir()
    }


def test_learns_the_pattern(tmp_path: Path) -> None:
    config = dataclasses.replace(TRAINING, max_epochs=8, learning_rate=1e-2)
    report = fit(tmp_path, config, dataclasses.replace(MODEL, dropout=0.0, d_model=32))
    assert report.uniform_loss == pytest.approx(math.log(NUM_CODES))
    assert report.best_valid_loss < 0.5 * report.uniform_loss
    model, tokenizer_version = load_model(tmp_path / "out", expected_tokenizer_version="a-version")
    assert tokenizer_version == "a-version"
    assert report.num_parameters == sum(p.numel() for p in model.parameters())


def cases_of_recency(weight_pays: bool) -> RecencyCases:
    """Everybody watches item 7: it was watched a hundred times, or never."""
    users = 40
    watches = np.zeros(NUM_ITEMS)
    watches[7 if weight_pays else 8] = 100.0
    return RecencyCases(
        users=EvalUsers(
            np.array([f"u{n}" for n in range(users)], object),
            np.full((users, HISTORY), -1),
            np.full((users, 1), 7),
        ),
        watches=watches,
        candidates=np.arange(NUM_ITEMS) != 9,
        days=2,
    )


@pytest.mark.parametrize("weight_pays", [True, False])
def test_the_weight_of_the_recency_prior_is_chosen_and_kept(
    tmp_path: Path, weight_pays: bool
) -> None:
    config = dataclasses.replace(TRAINING, max_epochs=1)
    plain = fit(tmp_path / "plain", config)
    report = fit(tmp_path / "chosen", config, list_cases=cases_of_recency(weight_pays))
    assert report.history == plain.history, "choosing it changes no training"
    best = max(report.recency_ndcg.ndcg, key=report.recency_ndcg.ndcg.__getitem__)
    assert report.recency_ndcg.users == 40
    model, _ = load_model(tmp_path / "chosen" / "out", expected_tokenizer_version=None)
    assert (model.recency_prior.weight, model.recency_prior.days) == (best, 2)
    assert (model.recency_prior.weight > 0) == weight_pays
    assert read_report(tmp_path / "chosen" / "out").recency_ndcg == report.recency_ndcg
    of_plain, of_chosen = (hashes(tmp_path / name) for name in ("plain", "chosen"))
    assert of_plain["model.safetensors"] == of_chosen["model.safetensors"]


def test_the_weight_is_chosen_by_a_model_that_has_learned_the_newest_days_before(
    tmp_path: Path,
) -> None:
    """Who has learned that everybody watches item 7 needs no prior for it; the last phase itself
    begins where the chosen epoch ended."""
    config = dataclasses.replace(
        TRAINING, max_epochs=1, fresh_epochs=20, fresh_learning_rate=3e-2, recency_prior=True
    )
    sevens = dataclasses.replace(
        VALID,
        history=torch.full_like(VALID.history, -1),
        targets=torch.full_like(VALID.targets, -1),
    )
    sevens.targets[:, 0] = 7
    cases = cases_of_recency(weight_pays=True)
    found = {}
    for name, before in (("not", None), ("learned", sevens)):
        found[name] = fit(
            tmp_path / name, config, list_cases=cases, newest=VALID, newest_before=before
        )
    plain, learned = found["not"].recency_ndcg.ndcg, found["learned"].recency_ndcg.ndcg
    assert plain[0.0] < 0.9 < plain[1.0]
    assert learned[0.0] > 0.99
    assert found["not"].newest_history == found["learned"].newest_history
    weights = [hashes(tmp_path / name)["model.safetensors"] for name in found]
    assert weights[0] == weights[1]
    model, _ = load_model(tmp_path / "learned" / "out", expected_tokenizer_version=None)
    assert model.recency_prior.weight == 0


def test_many_users_of_earlier_days_outvote_those_of_this_one(tmp_path: Path) -> None:
    config = dataclasses.replace(TRAINING, max_epochs=1)
    shape = dataclasses.replace(MODEL, dense_head=True)
    cases, vectors = cases_of_recency(weight_pays=True), torch.eye(NUM_ITEMS)
    alone = fit(tmp_path / "alone", config, shape, list_cases=cases, vectors=vectors)
    model, _ = load_model(tmp_path / "alone" / "out", expected_tokenizer_version=None)
    share = 0.2 if model.dense_share != 0.2 else 0.8
    earlier = {
        "dense": (NdcgByWeight(10**6, {s: float(s == share) for s in DENSE_SHARES}),),
        "recency": (NdcgByWeight(10**6, {w: float(w == 0) for w in PRIOR_WEIGHTS}),),
    }
    report = fit(tmp_path / "b", config, shape, list_cases=cases, vectors=vectors, earlier=earlier)
    after, _ = load_model(tmp_path / "b" / "out", expected_tokenizer_version=None)
    assert report.dense_ndcg == alone.dense_ndcg, "what is measured is of this day alone"
    assert (model.recency_prior.weight > 0, after.recency_prior.weight) == (True, 0.0)
    assert after.dense_share == share


def neighbours_of(item: int, before: int) -> Callable[[Sequence[str]], ItemNeighbours]:
    """Item 3 has one neighbour, and another one without the validation day."""

    def count(splits: Sequence[str]) -> ItemNeighbours:
        near = item if "valid" in splits else before
        return ItemNeighbours.of(sp.csr_array(([1.0], ([3], [near])), shape=(NUM_ITEMS, NUM_ITEMS)))

    return count


def test_the_weight_of_item_neighbours_is_chosen_by_those_without_the_validation_day(
    tmp_path: Path,
) -> None:
    config = dataclasses.replace(TRAINING, max_epochs=1)
    cases = cases_of_recency(weight_pays=False)
    cases.users.history[:, 0] = 3
    counted = neighbours_of(6, before=7)
    report = fit(tmp_path / "a", config, list_cases=cases, item_neighbours=counted)
    assert tuple(report.neighbour_ndcg.ndcg) == NEIGHBOUR_WEIGHTS
    model, _ = load_model(tmp_path / "a" / "out", expected_tokenizer_version=None)
    best = max(report.neighbour_ndcg.ndcg.values())
    assert report.neighbour_ndcg.ndcg[0.0] < best
    assert report.neighbour_ndcg.ndcg[model.neighbour_weight] == best
    assert model.neighbours is not None
    assert torch.equal(model.neighbours.item, counted(("train", "valid")).item), "of all days"
    assert read_report(tmp_path / "a" / "out").neighbour_ndcg == report.neighbour_ndcg
    misleading = neighbours_of(7, before=6)
    fit(tmp_path / "b", config, initial=model, list_cases=cases, item_neighbours=misleading)
    later, _ = load_model(tmp_path / "b" / "out", expected_tokenizer_version=None)
    assert (later.neighbour_weight, later.neighbours) == (0.0, None), "a warm start has its own"
    many = {"neighbours": (NdcgByWeight(10**6, {w: float(w == 0.5) for w in NEIGHBOUR_WEIGHTS}),)}
    fit(tmp_path / "c", config, list_cases=cases, earlier=many, item_neighbours=misleading)
    outvoted, _ = load_model(tmp_path / "c" / "out", expected_tokenizer_version=None)
    assert outvoted.neighbour_weight == 0.5


def test_a_generator_without_a_recency_prior_gets_no_weight(tmp_path: Path) -> None:
    config = dataclasses.replace(TRAINING, max_epochs=1, recency_prior=False)
    report = fit(tmp_path, config, list_cases=cases_of_recency(weight_pays=True))
    model, _ = load_model(tmp_path / "out", expected_tokenizer_version=None)
    assert (report.recency_ndcg, model.recency_prior.weight) == (NOT_MEASURED, 0.0)


def test_a_dense_head_is_learned_beside_the_generator_and_gets_a_share(tmp_path: Path) -> None:
    """The head alone learns what follows a history; a warm start goes on with it."""
    config = dataclasses.replace(TRAINING, max_epochs=8, learning_rate=1e-2)
    shape = dataclasses.replace(MODEL, dropout=0.0, d_model=32, dense_head=True)
    vectors = torch.nn.functional.one_hot(torch.arange(NUM_ITEMS)).float()
    cases = cases_of_recency(True)
    report = fit(tmp_path / "a", config, shape, list_cases=cases, vectors=vectors)
    assert tuple(report.dense_ndcg.ndcg) == DENSE_SHARES
    model, _ = load_model(tmp_path / "a" / "out", expected_tokenizer_version=None)
    assert report.dense_ndcg.ndcg[model.dense_share] == max(report.dense_ndcg.ndcg.values())

    @torch.no_grad()
    def loss(model: OneRec) -> float:
        codes = catalogue().codes.long()
        memory = model.encode(*encode_items(model, VALID.history, codes))
        return float(dense_nll(model, memory, VALID.targets.long()))

    first = loss(model)
    assert first < 0.8 * math.log(NUM_ITEMS)
    once = dataclasses.replace(config, max_epochs=1, learning_rate=1e-3)
    fit(tmp_path / "b", once, shape, initial=model, vectors=vectors)
    assert (
        loss(load_model(tmp_path / "b" / "out", expected_tokenizer_version=None)[0]) < 1.1 * first
    )
    with pytest.raises(ValueError, match="dense_head: the semantic IDs have no vectors"):
        fit(tmp_path / "c", once, shape)


def test_reports_and_writes_the_same_numbers(tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    report = fit(tmp_path, on_progress=seen.append)
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == [
        "config.json",
        "history.json",
        "model.safetensors",
    ]
    written = json.loads((tmp_path / "out" / "history.json").read_text())
    assert written["epochs"] == report.history
    assert [e["epoch"] for e in report.history] == [1, 2, 3, 4]
    assert written["summary"]["best_valid_loss"] == report.best_valid_loss
    assert report.best_valid_loss == min(e["valid_loss"] for e in report.history)
    product = math.prod(report.token_perplexity) ** (1 / NUM_SID_TOKENS)
    assert math.log(product) == pytest.approx(report.best_valid_loss)
    assert all(sum(layer) == pytest.approx(1) for layer in report.expert_load)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model"] == dataclasses.asdict(MODEL)
    assert (config["history_length"], config["session_items"]) == (HISTORY, ITEMS)
    assert "per_second" not in json.dumps(written)
    assert "loading_share" not in written["summary"], "a clock decides nothing that is kept"
    assert 0 < written["summary"]["padding_waste"] == report.padding_waste < 1
    assert report.loading_share is not None
    assert 0 < report.loading_share < 1
    last = seen[-1]
    assert (last.epoch, last.step, last.epoch_steps) == (4, 13, 13)
    assert last.metrics["valid_loss"] == report.history[-1]["valid_loss"]
    assert str(last).startswith("epoch 4/4, step 13/13: loss ")


@pytest.mark.parametrize(
    "shape",
    [
        {"history_tokens": "items"},
        {"history_tokens": "sid_tokens"},
        {"architecture": "lazy_decoder", "context_values": True},
    ],
)
def test_every_parameter_moves(tmp_path: Path, shape: dict[str, Any]) -> None:
    config = dataclasses.replace(TRAINING, max_epochs=1)
    model_config = dataclasses.replace(MODEL, **shape)
    torch.manual_seed(config.seed)
    before = OneRec(
        model_config,
        codebook_size=NUM_CODES,
        num_sid_tokens=NUM_SID_TOKENS,
        history_length=HISTORY,
        session_items=ITEMS,
    ).state_dict()
    fit(tmp_path, config, model_config)
    after = load_model(tmp_path / "out", expected_tokenizer_version=None)[0].state_dict()
    assert before.keys() == after.keys()
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert still == []


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    config = dataclasses.replace(TRAINING, max_epochs=2)
    before = torch.get_rng_state()
    fit(tmp_path / "a", config)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(12345)
    fit(tmp_path / "b", config)
    fit(tmp_path / "c", dataclasses.replace(config, seed=1))
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert (
        hashes(tmp_path / "a")["model.safetensors"] != hashes(tmp_path / "c")["model.safetensors"]
    )


class Killed(BaseException):
    """Nothing catches it."""


@pytest.mark.parametrize("steps", [3, 16, 35])
def test_interrupted_anywhere_ends_in_the_same_bytes(tmp_path: Path, steps: int) -> None:
    """Cut off in the first, second and third epoch, and then again in the last."""
    fit(tmp_path / "whole")

    def cut(at_epoch: int, at_step: int) -> Callable[[TrainingProgress], None]:
        def kill(progress: TrainingProgress) -> None:
            if (progress.epoch, progress.step) >= (at_epoch, at_step):
                raise Killed

        return kill

    epoch, step = divmod(steps, 13)
    for cut_at in (cut(epoch + 1, step), cut(4, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("onerec.training.trainer.REPORT_EVERY", 1)
            with pytest.raises(Killed):
                fit(tmp_path / "cut", on_progress=cut_at)
        assert not (tmp_path / "cut" / "out").exists()
    fit(tmp_path / "cut")
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


def test_a_finished_training_is_only_picked_up(tmp_path: Path) -> None:
    """Killed between the last epoch and publishing: nothing is trained again."""
    config = dataclasses.replace(TRAINING, learning_rate=1.0, max_epochs=12, patience=1)
    first = fit(tmp_path, config)
    assert first.stopped_early
    before = hashes(tmp_path)
    seen: list[TrainingProgress] = []
    again = fit(tmp_path, config, on_progress=seen.append)
    assert seen == []
    assert again.tokens_per_second is None
    assert again.history == first.history
    assert hashes(tmp_path) == before


def test_scratch_of_another_training_is_thrown_away(tmp_path: Path) -> None:
    config = dataclasses.replace(TRAINING, max_epochs=2)
    fit(tmp_path / "fresh", config, train=VALID)
    fit(tmp_path / "used", config, train=TRAIN)
    fit(tmp_path / "used", config, train=VALID)
    assert hashes(tmp_path / "used") == hashes(tmp_path / "fresh")


def test_stops_early_and_keeps_the_best_weights(tmp_path: Path) -> None:
    """With far too high a rate the loss goes up and down; the kept weights are the best epoch's."""
    config = dataclasses.replace(
        TRAINING,
        max_epochs=12,
        patience=2,
        learning_rate=0.2,
        schedule="constant",
        warmup_share=0.0,  # a share of max_epochs, which the second training changes
    )
    report = fit(tmp_path, config)
    losses = [e["valid_loss"] for e in report.history]
    assert report.stopped_early
    assert len(losses) == report.best_epoch + 2
    assert losses[report.best_epoch - 1] == min(losses)
    until_best = dataclasses.replace(config, max_epochs=report.best_epoch)
    fit(tmp_path / "until", until_best)
    weights = [hashes(d)["model.safetensors"] for d in (tmp_path, tmp_path / "until")]
    assert weights[0] == weights[1]


def test_warm_start(tmp_path: Path) -> None:
    fit(tmp_path / "yesterday")
    initial, _ = load_model(tmp_path / "yesterday" / "out", expected_tokenizer_version="a-version")
    config = dataclasses.replace(TRAINING, max_epochs=1)
    cold = fit(tmp_path / "cold", config)
    warm = fit(tmp_path / "warm", config, initial=initial)
    assert warm.best_valid_loss < cold.best_valid_loss
    for change in ({"d_ff": 32}, {"architecture": "lazy_decoder"}):
        other = dataclasses.replace(MODEL, **change)
        with pytest.raises(ValueError, match="has another shape"):
            fit(tmp_path / "other", config, other, initial=initial)


def test_a_loss_that_is_no_number_stops_with_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onerec.training.generator_module as module

    real, calls = module.next_token_loss, [0]

    def breaks_in_epoch_two(*arguments: Any) -> torch.Tensor:
        calls[0] += 1
        loss = real(*arguments)
        return loss * math.nan if calls[0] == 13 + 5 else loss

    monkeypatch.setattr(module, "next_token_loss", breaks_in_epoch_two)
    with pytest.raises(
        TrainingDivergedError, match="training loss is nan at epoch 2, step 5 "
    ) as e:
        fit(tmp_path)
    assert "learning rate 0.00" in str(e.value)
    assert "the last good checkpoint, of epoch 1" in str(e.value)
    assert (tmp_path / "scratch" / RESUME).exists()
    assert (tmp_path / "scratch" / "best-1.safetensors").exists()
    assert not (tmp_path / "out").exists()


def test_no_session_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no training session .* good_min_watched_items"):
        fit(tmp_path, train=no_sessions())
    with pytest.raises(ValueError, match=r"no validation session .* widen window_days"):
        fit(tmp_path, valid=no_sessions())
