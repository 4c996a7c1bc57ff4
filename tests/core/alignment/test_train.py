"""A round of alignment: it starts at nothing, learns the order, leaves its start alone."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from onerec.alignment.train import AlignmentData, AlignmentReport, fit_alignment, split_pairs
from onerec.config import AlignmentConfig
from onerec.model import OneRec, load_model, session_logp
from onerec.training import TrainingDivergedError
from tests.core.alignment.world import CATALOGUE, generator, good_sessions, planted_pairs

TRAJECTORY = Path(__file__).with_name("trajectory.json")
CONFIG = AlignmentConfig(
    batch_size=16, epochs=2, learning_rate=3e-3, ntp_sessions_per_pair=1, dpo_weight=0.3
)


def _fit(out: Path, start: OneRec | None = None, num: int = 80, **changes) -> AlignmentReport:
    out.mkdir(exist_ok=True)
    return fit_alignment(
        start or generator(),
        AlignmentData(
            preferences=planted_pairs(num, 5),
            train=good_sessions(60, 6),
            valid=good_sessions(30, 7),
            codes=CATALOGUE,
        ),
        dataclasses.replace(CONFIG, **changes),
        out,
        tokenizer_version="g",
    )


def test_first_thirty_steps(tmp_path: Path):
    report = _fit(tmp_path, num=160, epochs=4)
    kept = [
        [step[name] for name in ("loss", "ntp_loss", "preference_loss", "margin")]
        for step in report.steps[:30]
    ]
    assert len(kept) == 30
    for got, expected in zip(kept, json.loads(TRAJECTORY.read_text()), strict=True):
        assert got == pytest.approx(expected, abs=1e-4)


def test_margins_start_at_nothing(tmp_path: Path):
    report = _fit(tmp_path)
    assert report.epochs[0]["margin"] == pytest.approx(0.0, abs=1e-5)
    assert report.epochs[0]["preference_loss"] == pytest.approx(0.693147, abs=1e-5)
    assert report.steps[0]["margin"] == pytest.approx(0.0, abs=1e-5)


def test_it_learns_the_order_and_moves_everything_but_the_start(tmp_path: Path):
    start = generator()
    before = {name: p.clone() for name, p in start.state_dict().items()}
    report = _fit(tmp_path, start, dpo_weight=1.0, epochs=3)
    last = report.epochs[-1]
    assert last["accuracy"] > 0.9
    assert last["margin"] > 1.0
    assert last["chosen_logp_change"] > last["rejected_logp_change"]
    for name, value in start.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, parameter in report.model.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    assert not report.model.training


def test_the_checkpoint_is_what_was_measured(tmp_path: Path):
    report = _fit(tmp_path)
    model, tokenizer_version = load_model(tmp_path, expected_tokenizer_version="g")
    assert tokenizer_version == "g"
    pairs = planted_pairs(80, 5)
    held_out, _ = split_pairs(80, CONFIG.holdout_share, CONFIG.seed)
    with torch.no_grad():
        logp = session_logp(model, pairs.history[held_out], pairs.chosen[held_out], CATALOGUE)
    assert float(logp.mean()) == pytest.approx(report.epochs[-1]["chosen_logp"], abs=1e-4)


def test_without_preference_weight_it_is_plain_next_token_training(tmp_path: Path):
    report = _fit(tmp_path, dpo_weight=0.0)
    for step in report.steps:
        assert step["loss"] == pytest.approx(step["ntp_loss"])
    assert report.epochs[-1]["valid_ntp_loss"] < report.epochs[0]["valid_ntp_loss"]


def test_the_same_bytes_again(tmp_path: Path):
    for name in ("a", "b"):
        _fit(tmp_path / name, epochs=1)
    for file in ("model.safetensors", "config.json", "history.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_displacement_is_reported(tmp_path: Path):
    report = _fit(tmp_path)
    assert not report.chosen_displaced
    assert json.loads((tmp_path / "history.json").read_text())["chosen_displaced"] is False
    fallen = {**report.epochs[-1], "chosen_logp_change": -0.5}
    assert dataclasses.replace(report, epochs=[report.epochs[0], fallen]).chosen_displaced


def test_pairs_held_out_and_learned_from_are_all_of_them():
    held_out, learned = split_pairs(50, 0.1, 0)
    assert len(held_out) == 5
    assert sorted([*held_out.tolist(), *learned.tolist()]) == list(range(50))


def test_few_pairs_and_no_validation_day_still_work(tmp_path: Path):
    report = fit_alignment(
        generator(),
        AlignmentData(
            preferences=planted_pairs(3, 5),
            train=good_sessions(5, 6),
            valid=good_sessions(0, 7),
            codes=CATALOGUE,
        ),
        dataclasses.replace(CONFIG, epochs=1, ntp_sessions_per_pair=0),
        tmp_path,
        tokenizer_version="g",
    )
    assert "valid_ntp_loss" not in report.epochs[-1]


def test_clear_errors(tmp_path: Path):
    with pytest.raises(ValueError, match="0 preference pairs"):
        _fit(tmp_path, num=0)
    broken = generator()
    with torch.no_grad():
        broken.start.fill_(torch.nan)
    with pytest.raises(TrainingDivergedError, match="training loss is nan at epoch 1, step 1 "):
        _fit(tmp_path, broken)
    with pytest.raises(ValueError, match=r"holdout_share=1\.0"):
        AlignmentConfig(holdout_share=1.0)
