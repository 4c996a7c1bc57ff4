"""A dense head with its own encoder is trained beside the generator, and shares nothing with it."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from onerec.evaluation.recency import RecencyCases
from onerec.model import OneRec, load_model
from onerec.session_dataset.eval_users import EvalUsers
from onerec.training import TrainingProgress
from onerec.training.dense_head import DenseHeadModule, ndcg_of, next_item_loss
from onerec.training.generator_module import GeneratorModule
from onerec.training.list_weights import DENSE_SHARES
from tests.core.training.small import MODEL, NUM_ITEMS, TRAINING, patterned_sessions
from tests.core.training.test_fit import VALID, Killed, fit, hashes

VECTORS = torch.eye(NUM_ITEMS)
HEAD = dataclasses.replace(MODEL, d_model=32, dense_head=True, dense_encoder_layers=2)
CONFIG = dataclasses.replace(TRAINING, max_epochs=6, dense_learning_rate=1e-2)
CASES = RecencyCases(
    users=EvalUsers(
        np.array([f"u{n}" for n in range(len(VALID))], object),
        VALID.history.numpy(),
        VALID.targets[:, :1].numpy(),
    ),
    watches=np.zeros(NUM_ITEMS),
    candidates=np.arange(NUM_ITEMS) != 9,
)
NEWEST = patterned_sessions(64, seed=3)


def checkpoint(directory: Path) -> OneRec:
    return load_model(directory / "out", expected_tokenizer_version=None)[0]


def loss(model: OneRec) -> float:
    assert model.dense is not None
    model.dense.negatives = 0
    with torch.no_grad():
        return float(next_item_loss(model.dense, VALID.history.long(), VALID.targets.long()))


def ndcg(model: OneRec) -> float:
    assert model.dense is not None
    return ndcg_of(model.dense, CASES)


@pytest.mark.parametrize("negatives", [0, 4])
def test_it_learns_what_follows_and_gets_a_share(tmp_path: Path, negatives: int) -> None:
    shape = dataclasses.replace(HEAD, dense_negatives=negatives)
    report = fit(tmp_path / "a", CONFIG, shape, list_cases=CASES, vectors=VECTORS)
    model = checkpoint(tmp_path / "a")
    assert loss(model) < 0.7 * math.log(NUM_ITEMS)
    best = max(entry["ndcg@10"] for entry in report.dense_history)
    assert ndcg(model) == pytest.approx(best, rel=1e-5), "it has the weights of its best epoch"
    assert tuple(report.dense_ndcg.ndcg) == DENSE_SHARES
    assert report.dense_ndcg.ndcg[model.dense_share] == max(report.dense_ndcg.ndcg.values())
    once = dataclasses.replace(CONFIG, max_epochs=1, dense_learning_rate=1e-3)
    fit(tmp_path / "b", once, shape, initial=model, vectors=VECTORS, list_cases=CASES)
    assert loss(checkpoint(tmp_path / "b")) < 1.1 * loss(model), "a warm start goes on with it"


def test_ndcg_is_that_of_the_best_candidates() -> None:
    torch.manual_seed(0)
    model = OneRec(HEAD, codebook_size=4, num_sid_tokens=3, history_length=8, session_items=4)
    head = model.add_dense_head(*VECTORS.shape)
    head.vectors.copy_(VECTORS)
    head.eval()
    few = dataclasses.replace(CASES, candidates=np.arange(NUM_ITEMS) % 2 == 0)
    measured = 0.0
    for history, target in zip(few.users.history, few.users.targets, strict=True):
        with torch.no_grad():
            scores = head(head.state_after(torch.from_numpy(history)[None]))[0].tolist()
        best = sorted(np.flatnonzero(few.candidates), key=lambda i: -scores[i])[:10]
        gain = [1 / math.log2(place + 2) for place, item in enumerate(best) if item in target]
        wanted = min(10, int((target >= 0).sum()))
        measured += sum(gain) / sum(1 / math.log2(place + 2) for place in range(wanted))
    assert ndcg_of(head, few) == pytest.approx(measured / len(few.users), rel=1e-6)


def test_the_generator_is_the_one_without_it(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, max_epochs=2)
    fit(tmp_path / "with", config, HEAD, vectors=VECTORS, newest=NEWEST, list_cases=CASES)
    alone = dataclasses.replace(HEAD, dense_head=False, dense_encoder_layers=0)
    fit(tmp_path / "alone", config, alone, vectors=VECTORS, newest=NEWEST)
    weights = load_file(tmp_path / "with" / "out" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "alone" / "out" / "model.safetensors").items():
        assert torch.equal(weights[name], tensor), name


def test_every_weight_of_it_moves_in_the_last_phase_too(tmp_path: Path) -> None:
    once = dataclasses.replace(CONFIG, max_epochs=1, fresh_epochs=1)
    fit(tmp_path / "before", once, HEAD, vectors=VECTORS, list_cases=CASES)
    fit(tmp_path / "after", once, HEAD, vectors=VECTORS, list_cases=CASES, newest=NEWEST)
    before, after = (checkpoint(tmp_path / name).state_dict() for name in ("before", "after"))
    own = {name for name in before if name.startswith("dense.") and name != "dense.vectors"}
    assert [name for name in sorted(own) if torch.equal(before[name], after[name])] == []


@pytest.mark.parametrize("own_encoder", [True, False])
def test_what_the_validation_day_chooses_has_not_seen_its_co_watching(
    tmp_path: Path, own_encoder: bool
) -> None:
    shape = HEAD if own_encoder else dataclasses.replace(HEAD, dense_encoder_layers=0)
    before = VECTORS.roll(1, dims=0)
    night = {"model": shape, "list_cases": CASES, "newest": NEWEST}
    learns_newest = dataclasses.replace(CONFIG, max_epochs=2, fresh_epochs=1)
    both = {"vectors": VECTORS, "vectors_before_validation": before}
    report = fit(tmp_path / "night", learns_newest, **both, **night)
    blind = fit(tmp_path / "blind", learns_newest, vectors=before, **night)
    assert report.dense_ndcg == blind.dense_ndcg
    assert report.dense_history == blind.dense_history
    assert report.history == blind.history
    # the last phase has the newest vectors, as lists will
    model, other = checkpoint(tmp_path / "night"), checkpoint(tmp_path / "blind")
    assert model.dense is not None
    assert torch.equal(model.dense.vectors, VECTORS)
    assert other.dense is not None
    assert not torch.equal(model.dense.known.weight, other.dense.known.weight)
    # so does a warm start, which chooses by the checkpoint as it served
    fit(tmp_path / "warm", learns_newest, initial=other, **both, **night)
    model = checkpoint(tmp_path / "warm")
    assert model.dense is not None
    assert torch.equal(model.dense.vectors, VECTORS)


NOBODY = dataclasses.replace(CASES, users=CASES.users.rows(np.zeros(0, dtype=int)))


@pytest.mark.parametrize("cases", [None, NOBODY])
def test_it_is_left_as_it_starts_where_nobody_can_choose_its_share(
    tmp_path: Path, cases: RecencyCases | None
) -> None:
    once = dataclasses.replace(CONFIG, max_epochs=1, fresh_epochs=1)
    fit(tmp_path / "first", once, HEAD, vectors=VECTORS, list_cases=CASES)
    learned = checkpoint(tmp_path / "first")
    seen: list[TrainingProgress] = []
    again = {"newest": NEWEST, "list_cases": cases, "on_progress": seen.append}
    report = fit(tmp_path / "again", once, HEAD, vectors=VECTORS, initial=learned, **again)
    assert report.dense_history == []
    assert not any(progress.part for progress in seen)
    model = checkpoint(tmp_path / "again")
    for name, tensor in learned.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor) == name.startswith("dense."), name
    assert model.dense_share == 0
    assert ndcg(model) == pytest.approx(ndcg(learned))
    # and the next night goes on with it
    report = fit(tmp_path / "next", once, HEAD, vectors=VECTORS, initial=model, list_cases=CASES)
    assert len(report.dense_history) == 1
    assert loss(checkpoint(tmp_path / "next")) < loss(learned)


def test_every_phase_has_dropout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: dict[str, list[bool]] = {}
    for kind in (GeneratorModule, DenseHeadModule):
        step = kind.training_step

        def recorded(self, batch, batch_idx, step=step):
            part = modes.setdefault(type(self).__name__, [])
            part.append(all(module.training for module in self.model.modules()))
            return step(self, batch, batch_idx)

        monkeypatch.setattr(kind, "training_step", recorded)
    once = dataclasses.replace(CONFIG, max_epochs=1, fresh_epochs=1)
    fit(
        tmp_path,
        once,
        HEAD,
        vectors=VECTORS,
        list_cases=CASES,
        newest=NEWEST,
        newest_before=NEWEST,
    )
    assert set(modes) == {"GeneratorModule", "DenseHeadModule"}
    for mode in modes.values():
        assert len(mode) > 2 * len(NEWEST) / once.batch_size
        assert all(mode)


def test_killed_while_it_learns_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, max_epochs=2)
    fit(tmp_path / "whole", config, HEAD, vectors=VECTORS, list_cases=CASES)
    epochs = 0

    def kill_in_the_fourth_epoch(progress: TrainingProgress) -> None:
        nonlocal epochs
        epochs += progress.step == progress.epoch_steps and bool(progress.metrics)
        if epochs == 3 and progress.step < progress.epoch_steps:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onerec.training.trainer.REPORT_EVERY", 1)
        with pytest.raises(Killed):
            fit(
                tmp_path / "cut",
                config,
                HEAD,
                vectors=VECTORS,
                list_cases=CASES,
                on_progress=kill_in_the_fourth_epoch,
            )
    assert not (tmp_path / "cut" / "out").exists()
    seen: list[TrainingProgress] = []
    fit(tmp_path / "cut", config, HEAD, vectors=VECTORS, list_cases=CASES, on_progress=seen.append)
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")
    assert len({progress.epoch for progress in seen}) == 1, "one epoch was left to learn"
    assert all(str(progress).startswith("dense head, epoch 2/2") for progress in seen)
