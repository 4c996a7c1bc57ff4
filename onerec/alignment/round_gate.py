"""The check of an alignment round on the validation day; if it fails, the round's start is kept.

Both models are measured on the validation day, never on day D: a choice made on the test day would
be part of the training. A round is published when

1. the evaluator's reward of the best session rises significantly, and
2. Recall@10 has not significantly fallen by more than the allowed share (none by default),

each by the paired bootstrap interval over users. The reward is the evaluator's, whose users the
reward model has never seen, for users without a preference in the round. Recall is that of the
held-out users, all of them up to a limit: of the others the start has learned the very items that
are to be found (`onerec.session_dataset.holdout`). The lists are made as on the test day, with the
recency prior. A gate without a user is left out.

A thousand users show a loss of a tenth of the Recall; smaller ones are left to the promotion rule,
which compares the two models on the test day (`onerec.promotion.rule.choose_challenger`).

Shapes: C cases of the reward, U held-out users, H history items, M items of a session, N items.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from onerec.artifacts import read_json, write_json
from onerec.config import AlignmentConfig, EvaluationConfig
from onerec.evaluation.generated_sessions import session_rewards
from onerec.evaluation.generators import SessionGenerator
from onerec.evaluation.metric_table import Metric
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.evaluation.recency import RecencyCases
from onerec.generation import Trie
from onerec.model import OneRec
from onerec.reward.ensemble import RewardEnsemble
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.statistics import NO_VALUE, Interval, paired_difference

ROUND = "round.json"
REWARD_WEIGHT = "reward_weight.json"
"""NDCG@10 of served lists by weight of the reward, on the held-out users of the validation day."""
LENGTH = 10
WEIGHTS = ("model.safetensors", "config.json")
"""What a refused round takes over from its start."""

Values = Mapping[str, np.ndarray]
"""`reward` (C,) and `recall` (U,) of one model."""


def refusal(checkpoint: Path) -> str:
    """Why the last round of an aligned checkpoint was refused; empty where it was published.

    A refused round publishes the generator that it started from.
    """
    file = checkpoint / ROUND
    return "; ".join(read_json(file)["reasons"]) if file.exists() else ""


@dataclass(frozen=True, kw_only=True)
class GateCases:
    """What a round and its start are measured on.

    Attributes:
        contexts: One good session of the validation day of each of C users; histories alone count.
        held_out: Held-out users with what they watched on the validation day, and what a recency
            prior counts before it; None where no day validates.
    """

    contexts: SessionTensors
    held_out: RecencyCases | None


@dataclass(frozen=True)
class RoundDecision:
    """What `round.json` says.

    Attributes:
        published: Every gate that could be measured passed.
        gates: Name of each of them, and whether it passed.
        reasons: Why not, one sentence per failed gate.
        numbers: What was measured; the differences with `_low` and `_high`.
        findings: A sentence per gate with its users, the difference, its interval and the limit.
    """

    published: bool
    gates: dict[str, bool]
    reasons: list[str]
    numbers: dict[str, float]
    findings: list[str] = field(default_factory=list)


def measure_round(
    generator: SessionGenerator, evaluator: RewardEnsemble, cases: GateCases
) -> Values:
    """Evaluator reward of the best session of every context, and Recall@10 of the held-out users.

    As in the offline metrics, items of the history are not left out, and lists have the generator's
    recency prior.
    """
    reward, recall = np.zeros(0), np.zeros(0)
    if len(cases.contexts):
        history = cases.contexts.history.numpy().astype(np.int64)
        evaluator = evaluator.to(generator.model.device)
        scored = session_rewards(
            evaluator.models[0],
            evaluator.vectors,
            torch.from_numpy(history),
            generator.sessions(
                history, attributes=cases.contexts.attributes_of(torch.arange(len(history)))
            ),
            evaluator.config,
            name="evaluator",
        )
        reward = scored[Metric("evaluator_reward")]
    if cases.held_out is not None and len(cases.held_out.users):
        model, users = generator.model, cases.held_out.users
        prior = model.recency_prior.of(cases.held_out.watches)
        trie = Trie.build(generator.codes, model.codebook_size, prior=prior)
        ranker = replace(generator, trie=trie)
        lists = ranker.rank(
            users.history,
            LENGTH,
            candidates=cases.held_out.candidates,
            attributes=users.attributes,
        )
        found = per_case_metrics(lists.items, users.targets, (LENGTH,))
        recall = found[f"recall@{LENGTH}"]
    return {"reward": reward, "recall": recall}


def why_without_effect(start: OneRec) -> str:
    """Why lists and sessions stay as they are whatever a round learns; empty where they need not.

    Alignment trains the generator. Where a dense head with its own encoder has all of the share,
    the generator's probabilities count with 0 (`onerec.generation.beam.generated_share`).
    """
    head = start.dense
    if head is None or head.encoder is None or start.dense_share < 1:
        return ""
    return (
        f"the start has dense_share={start.dense_share:g}: its lists and sessions are those of the "
        "dense head with its own encoder alone, which no round trains. Set "
        "model.dense_encoder_layers=0, where the head reads the generator's encoder, or "
        "model.dense_head=false; or leave it, since the next pretraining chooses the share anew"
    )


def decide_round(
    before: Values,
    after: Values,
    alignment: AlignmentConfig,
    evaluation: EvaluationConfig,
    without_effect: str = "",
) -> RoundDecision:
    """Apply the two gates of this module's description.

    Args:
        before: The start's values, case by case.
        after: The trained model's, of the same cases.
        alignment: `recall_tolerance`.
        evaluation: Confidence, resamples and seed of the intervals.
        without_effect: See `why_without_effect`.
    """
    reward, recall = (
        paired_difference(
            after[name],
            before[name],
            samples=evaluation.bootstrap_samples,
            confidence=evaluation.confidence,
            seed=evaluation.seed,
        )
        if len(before[name])
        else NO_VALUE
        for name in ("reward", "recall")
    )
    start_reward, start_recall = (
        float(np.nanmean(before[name])) if len(before[name]) else math.nan
        for name in ("reward", "recall")
    )
    cases, held_out = len(before["reward"]), len(before["recall"])
    gates = [_reward_gate(reward, cases, without_effect)] if cases else []
    if held_out:
        gates.append(_recall_gate(recall, start_recall, held_out, alignment.recall_tolerance))
    measured = {
        f"start_recall@{LENGTH}": start_recall,
        "start_reward": start_reward,
        **reward.flat("evaluator_reward_difference"),
        **recall.flat(f"recall@{LENGTH}_difference"),
    }
    numbers: dict[str, float] = {
        "cases": cases,
        "held_out_cases": held_out,
        **{name: value for name, value in measured.items() if not math.isnan(value)},
    }
    reasons = [gate.reason for gate in gates if not gate.passed]
    return RoundDecision(
        published=not reasons,
        gates={gate.name: gate.passed for gate in gates},
        reasons=reasons,
        numbers=numbers,
        findings=[gate.finding for gate in gates],
    )


class _Gate(NamedTuple):
    name: str
    passed: bool
    finding: str
    reason: str
    """Why not, if it is not passed."""


def _reward_gate(gain: Interval, users: int, without_effect: str) -> _Gate:
    shown = gain.text(signed=True)
    cause = f", since {without_effect}" if without_effect else ""
    return _Gate(
        "evaluator_reward_rises",
        gain.low > 0,
        f"evaluator reward of {users} users: {shown}; limit: a lower confidence bound above 0",
        f"the evaluator's reward of the best session does not rise significantly ({shown}){cause}",
    )


def _recall_gate(gain: Interval, start: float, users: int, tolerance: float) -> _Gate:
    shown, lowest = gain.text(signed=True), 0 - tolerance * start
    of_users = f"Recall@{LENGTH} of {users} held-out users"
    return _Gate(
        "recall_within_tolerance",
        gain.high >= lowest,
        f"{of_users}: {shown}; limit: an upper confidence bound of at least {lowest:.4f}",
        f"{of_users} falls significantly from {start:.4f} by more than the allowed "
        f"{tolerance:.0%} ({shown})",
    )


def apply_decision(decision: RoundDecision, *, start: Path, out_dir: Path) -> None:
    """Write `round.json`; a refused round gets the weights of its start.

    Args:
        decision: About the round.
        start: Checkpoint of the start.
        out_dir: Checkpoint of the round.
    """
    if not decision.published:
        for name in WEIGHTS:
            shutil.copyfile(start / name, out_dir / name)
    write_json(out_dir / ROUND, asdict(decision))
