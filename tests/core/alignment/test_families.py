"""Every method trains: it moves everything, learns the planted order, and repeats itself."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from onerec.alignment.preferences import Preferences
from onerec.alignment.train import AlignmentData, AlignmentReport, fit_alignment
from onerec.config import GROUP_METHODS, PAIR_METHODS, AlignmentConfig
from tests.core.alignment.world import (
    CATALOGUE,
    generator,
    good_sessions,
    planted_groups,
    planted_pairs,
)

TRAJECTORIES = Path(__file__).with_name("family_trajectories.json")
METHODS = (*PAIR_METHODS, *GROUP_METHODS)
CONFIG = AlignmentConfig(
    batch_size=16, epochs=3, learning_rate=3e-3, ntp_sessions_per_pair=1, dpo_weight=1.0
)
# IPO's margin per token is 1 / (2 beta): 5 nats a token at .1 is out of reach of a small model.
SETTINGS = {"ipo": {"beta": 1.0}, "simpo": {"beta": 2.5}, "grpo": {"kl_weight": 0.04}}


def preferences(method: str, num: int = 80) -> Preferences:
    if method in GROUP_METHODS:
        return planted_groups(num, 5)
    return planted_groups(num, 5, best_first=True) if method == "sdpo" else planted_pairs(num, 5)


def data(preferences: Preferences) -> AlignmentData:
    return AlignmentData(
        preferences=preferences,
        train=good_sessions(60, 6),
        valid=good_sessions(20, 7),
        codes=CATALOGUE,
    )


def fit(method: str, out: Path, **changes) -> AlignmentReport:
    out.mkdir(exist_ok=True)
    settings = SETTINGS.get(method, {}) | changes
    return fit_alignment(
        generator(),
        data(preferences(method)),
        dataclasses.replace(CONFIG, method=method, **settings),
        out,
        tokenizer_version="g",
    )


@pytest.mark.parametrize("method", METHODS)
def test_moves_everything_and_learns_the_order(method: str, tmp_path: Path):
    before = generator().state_dict()
    report = fit(method, tmp_path)
    first, last = report.epochs[0], report.epochs[-1]
    assert first["margin"] == pytest.approx(0.0, abs=1e-5)
    assert last["margin"] > 0.5
    assert last["accuracy"] > 0.8
    assert first["kl_to_start"] == pytest.approx(0.0, abs=1e-6)
    assert last["kl_to_start"] > 1e-3
    assert 0 < last["legal_mass"] <= 1
    for name, parameter in report.model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("method", METHODS)
def test_first_ten_steps(method: str, tmp_path: Path):
    report = fit(method, tmp_path)
    kept = [[s[n] for n in ("loss", "preference_loss", "margin")] for s in report.steps[:10]]
    assert len(kept) == 10
    for got, expected in zip(kept, json.loads(TRAJECTORIES.read_text())[method], strict=True):
        assert got == pytest.approx(expected, abs=1e-4)


def test_spread_of_rewards_is_tracked(tmp_path: Path):
    """Rewards 1, 2/3, 1/3, 0: deviation sqrt(5)/sqrt(36) = .3727; a tenth of groups has none."""
    groups = planted_groups(80, 5)
    report = fit("grpo", tmp_path, holdout_share=0.0)
    epoch = report.epochs[0]
    assert epoch["zero_spread_share"] == pytest.approx(0.1)
    assert epoch["reward_spread"] == pytest.approx(0.9 * (5 / 36) ** 0.5)
    assert len(groups) == 80


def test_at_its_start_a_group_loss_is_nothing_and_dpo_ln_two(tmp_path: Path):
    assert fit("grpo", tmp_path).epochs[0]["preference_loss"] == pytest.approx(0.0, abs=1e-6)
    assert fit("dpo", tmp_path).epochs[0]["preference_loss"] == pytest.approx(0.693147, abs=1e-5)


def test_ipa_is_dpo_on_beams(tmp_path: Path):
    ipa, dpo = fit("ipa", tmp_path), fit("dpo", tmp_path)
    assert ipa.steps == dpo.steps


def test_without_the_log_the_imitation_loss_has_no_say(tmp_path: Path):
    report = fit("dpo", tmp_path, ntp_weight=0.0)
    for step in report.steps:
        assert step["loss"] == pytest.approx(step["preference_loss"])


def test_what_a_method_cannot_learn_from_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="method='grpo' learns from groups of draws"):
        fit_alignment(
            generator(), data(planted_pairs(8, 0)),
            dataclasses.replace(CONFIG, method="grpo"), tmp_path, tokenizer_version="g",
        )  # fmt: skip
