"""A round is published when it proves itself, and leaves its start behind when it does not."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from onerec.alignment.round_gate import (
    WEIGHTS,
    GateCases,
    RoundDecision,
    apply_decision,
    decide_round,
    measure_round,
    why_without_effect,
)
from onerec.config import AlignmentConfig, BeamConfig, EvaluationConfig
from onerec.evaluation.recency import RecencyCases
from onerec.generation import generate_sessions, rank_items
from onerec.model import OneRec, save_model
from onerec.model.recency_prior import RecencyPrior
from onerec.reward.scoring import scalar_reward, score_sessions
from onerec.session_dataset.eval_users import EvalUsers
from tests.core.alignment.world import (
    CATALOGUE,
    CODES,
    HISTORY,
    ITEMS,
    REWARD,
    SID_TOKENS,
    TRIE,
    ensemble,
    generator,
    good_sessions,
    reward_model,
    session_generator,
)

EVALUATION = EvaluationConfig(bootstrap_samples=200)
DECODING = BeamConfig(beam=8, batch_size=8)
CONFIG = AlignmentConfig(gate_cases=12)


def values(reward: float, recall: float, num: int = 400) -> dict[str, np.ndarray]:
    """The same cases for everyone, moved by as much as is said."""
    rng = np.random.default_rng(0)
    return {
        "reward": rng.normal(2.0, 0.3, num) + reward,
        "recall": (rng.random(num) < 0.5) * 0.2 + recall,
    }


def gate_cases(*, contexts: int, held_out: int) -> GateCases:
    watched = good_sessions(held_out, 4)
    users = EvalUsers(
        user_ids=np.arange(held_out),
        history=watched.history.numpy().astype(np.int64),
        targets=watched.targets.numpy().astype(np.int64),
    )
    return GateCases(
        contexts=good_sessions(contexts, 3),
        held_out=RecencyCases(
            users=users,
            watches=np.where(np.arange(len(CATALOGUE)) < 10, 100.0, 0.0),
            candidates=np.ones(len(CATALOGUE), dtype=bool),
        ),
    )


def decide(reward: float, recall: float, **changes) -> RoundDecision:
    config = dataclasses.replace(CONFIG, **changes)
    return decide_round(values(0, 0), values(reward, recall), config, EVALUATION)


def test_published_when_the_reward_rises_and_recall_holds():
    decision = decide(0.05, -0.005, recall_tolerance=0.1)  # of a recall of .1: within a tenth
    assert decision.published
    assert decision.reasons == []
    assert all(decision.gates.values())
    assert decision.numbers["evaluator_reward_difference"] == pytest.approx(0.05)
    assert decision.numbers["recall@10_difference_high"] == pytest.approx(-0.005)


@pytest.mark.parametrize(
    ("reward", "recall", "gate"),
    [
        (0.0, 0.0, "evaluator_reward_rises"),
        (-0.05, 0.0, "evaluator_reward_rises"),
        (0.05, -0.005, "recall_within_tolerance"),
    ],
)
def test_refused_by_one_gate_that_says_why(reward: float, recall: float, gate: str):
    decision = decide(reward, recall)
    assert not decision.published
    assert [name for name, passed in decision.gates.items() if not passed] == [gate]
    assert len(decision.reasons) == 1


def test_a_larger_share_may_be_allowed():
    assert decide(0.05, -0.02, recall_tolerance=0.3).published


def test_a_rise_inside_the_noise_is_no_rise():
    before, after = values(0, 0, 50), values(0, 0, 50)
    after["reward"] = after["reward"] + np.random.default_rng(1).normal(0.01, 0.5, 50)
    assert not decide_round(before, after, CONFIG, EVALUATION).gates["evaluator_reward_rises"]


def test_values_are_those_of_the_model():
    model, (evaluator, vectors) = generator(), reward_model()
    cases = gate_cases(contexts=9, held_out=7)
    measured = measure_round(session_generator(model, decoding=DECODING), ensemble(), cases)
    assert cases.held_out is not None
    users = cases.held_out.users
    asked = torch.from_numpy(users.history)
    items, _ = rank_items(model, asked, CATALOGUE, TRIE, top_k=10, beam=10)
    hits = (items[:, :, None] == torch.from_numpy(users.targets)[:, None]).any(1)
    assert measured["recall"].tolist() == pytest.approx(hits.double().mean(1).tolist())
    history = cases.contexts.history.long()
    beams = generate_sessions(model, history, CATALOGUE, TRIE, num_items=ITEMS, beam=DECODING.beam)
    best = scalar_reward(score_sessions(evaluator, vectors, history, beams.items[:, 0]), REWARD)
    assert measured["reward"].tolist() == pytest.approx(best.tolist(), abs=1e-6)


def test_recall_is_that_of_lists_with_the_recency_prior():
    model = generator()
    model.recency_prior = RecencyPrior(weight=1000.0)
    cases = gate_cases(contexts=0, held_out=7)
    assert cases.held_out is not None
    measured = measure_round(session_generator(model, decoding=DECODING), ensemble(), cases)
    targets = cases.held_out.users.targets  # the ten items that were watched at all are listed
    found = [[item < 10 for item in row if item >= 0] for row in targets.tolist()]
    assert measured["recall"].tolist() == pytest.approx([np.mean(hits) for hits in found])


def test_findings_name_users_difference_interval_and_limit():
    decision = decide(0.05, -0.005, recall_tolerance=0.1)
    assert decision.findings == [
        "evaluator reward of 400 users: +0.0500 [+0.0500, +0.0500]; limit: a lower confidence "
        "bound above 0",
        "Recall@10 of 400 held-out users: -0.0050 [-0.0050, -0.0050]; limit: an upper confidence "
        f"bound of at least {-0.1 * values(0, 0)['recall'].mean():.4f}",
    ]
    refused = decide(0.05, -0.005)
    assert "Recall@10 of 400 held-out users falls significantly" in refused.reasons[0]


def test_a_gate_without_users_is_left_out():
    generators = session_generator(decoding=DECODING)
    measured = measure_round(generators, ensemble(), gate_cases(contexts=0, held_out=7))
    assert (len(measured["reward"]), len(measured["recall"])) == (0, 7)
    decision = decide_round(measured, measured, CONFIG, EVALUATION)
    assert decision.gates == {"recall_within_tolerance": True}
    nobody = measure_round(generators, ensemble(), gate_cases(contexts=0, held_out=0))
    decision = decide_round(nobody, nobody, CONFIG, EVALUATION)
    assert decision == RoundDecision(True, {}, [], {"cases": 0, "held_out_cases": 0})


def settle(tmp_path: Path, trained: OneRec, decision: RoundDecision) -> None:
    for name, model in (("start", generator(0)), ("out", trained)):
        (tmp_path / name).mkdir()
        save_model(model, tmp_path / name, tokenizer_version="g")
    apply_decision(decision, start=tmp_path / "start", out_dir=tmp_path / "out")


def is_start(tmp_path: Path) -> bool:
    return all(
        (tmp_path / "start" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
        for name in WEIGHTS
    )


def test_the_start_is_kept_when_nothing_was_gained(tmp_path: Path):
    trained = generator(0)
    with torch.no_grad():
        trained.start.add_(1e-4)  # another checkpoint that recommends the same
    cases = gate_cases(contexts=60, held_out=60)
    before, after = (
        measure_round(session_generator(model, decoding=DECODING), ensemble(), cases)
        for model in (generator(0), trained)
    )
    decision = decide_round(before, after, CONFIG, EVALUATION)
    assert not decision.published
    assert decision.gates == {"evaluator_reward_rises": False, "recall_within_tolerance": True}
    settle(tmp_path, trained, decision)
    assert is_start(tmp_path)
    assert json.loads((tmp_path / "out" / "round.json").read_text())["published"] is False


@pytest.mark.parametrize("own_layers", [1, 0])
def test_a_round_that_nobody_hears_says_why(own_layers: int):
    """Another generator beside the same dense head, which has all of the share."""
    start, trained = (with_dense_head(seed, own_layers) for seed in (0, 1))
    cases = gate_cases(contexts=60, held_out=60)
    before, after = (
        measure_round(session_generator(model, decoding=DECODING), ensemble(), cases)
        for model in (start, trained)
    )
    same = {name: bool((before[name] == after[name]).all()) for name in before}
    assert same == dict.fromkeys(before, own_layers > 0)
    decision = decide_round(before, after, CONFIG, EVALUATION, why_without_effect(start))
    said = [
        f"{setting}" in " ".join(decision.reasons)
        for setting in ("dense_share=1:", "model.dense_encoder_layers=0", "model.dense_head=false")
    ]
    assert said == [own_layers > 0] * 3
    if own_layers:
        assert "(+0.0000 [+0.0000, +0.0000]), since the start has" in decision.reasons[0]
    start.dense_share = 0.8
    assert why_without_effect(start) == ""


def with_dense_head(seed: int, own_layers: int) -> OneRec:
    """A generator of a seed, and a dense head that is the same for all, with all of the share."""
    shape = dataclasses.replace(
        generator().config, dense_head=True, dense_encoder_layers=own_layers
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = OneRec(
            shape,
            codebook_size=CODES,
            num_sid_tokens=SID_TOKENS,
            history_length=HISTORY,
            session_items=ITEMS,
        )
        torch.manual_seed(7)
        head = model.add_dense_head(len(CATALOGUE), 4)
        torch.nn.init.normal_(head.items.weight)
    model.dense_share = 1.0
    return model.eval()


def test_a_published_round_keeps_its_weights(tmp_path: Path):
    settle(tmp_path, generator(1), decide(0.05, 0.0))
    assert not is_start(tmp_path)
    assert json.loads((tmp_path / "out" / "round.json").read_text())["published"] is True
