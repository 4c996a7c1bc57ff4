"""The check of an alignment round on the validation day; if it fails, the round's start is kept.

Both models are measured on the validation day, never on day D: a choice made on the test day would
be part of the training. A round is published when

1. the evaluator's reward of the best session rises significantly, and
2. Recall@10 has not significantly fallen by more than the allowed share,

each by the paired bootstrap interval over users. The reward is the evaluator's, whose users the
reward model has never seen, for users without a preference in the round. Recall is that of the
held-out users: of the others the start has learned the very items that are to be found
(`onerec.session_dataset.holdout`). A gate without a user is left out.

Shapes: C cases of the reward, U held-out users, H history items, M items of a session, N items.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from onerec.artifacts import read_json, write_json
from onerec.config import AlignmentConfig, EvaluationConfig
from onerec.evaluation.generated_sessions import session_rewards
from onerec.evaluation.generators import SessionGenerator
from onerec.evaluation.metric_table import Metric
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.reward.ensemble import RewardEnsemble
from onerec.session_dataset.eval_users import EvalUsers
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.statistics import NO_VALUE, paired_difference

ROUND = "round.json"
REWARD_WEIGHT = "reward_weight.json"
"""NDCG@10 of served lists on the validation day, by weight of the reward."""
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
        held_out: Held-out users with what they watched on the validation day.
    """

    contexts: SessionTensors
    held_out: EvalUsers


@dataclass(frozen=True)
class RoundDecision:
    """What `round.json` says.

    Attributes:
        published: Every gate that could be measured passed.
        gates: Name of each of them, and whether it passed.
        reasons: Why not, one sentence per failed gate.
        numbers: What was measured; the differences with `_low` and `_high`.
    """

    published: bool
    gates: dict[str, bool]
    reasons: list[str]
    numbers: dict[str, float]


def measure_round(
    generator: SessionGenerator, evaluator: RewardEnsemble, cases: GateCases
) -> Values:
    """Evaluator reward of the best session of every context, and Recall@10 of the held-out users.

    As in the offline metrics, items of the history are not left out.
    """
    reward, recall = np.zeros(0), np.zeros(0)
    if len(cases.contexts):
        history = cases.contexts.history.numpy().astype(np.int64)
        evaluator = evaluator.to(generator.model.device)
        scored = session_rewards(
            evaluator.models[0],
            evaluator.vectors,
            torch.from_numpy(history),
            generator.sessions(history),
            evaluator.config,
            name="evaluator",
        )
        reward = scored[Metric("evaluator_reward")]
    if len(cases.held_out):
        lists = generator.rank(cases.held_out.history, LENGTH)
        found = per_case_metrics(lists.items, cases.held_out.targets, (LENGTH,))
        recall = found[f"recall@{LENGTH}"]
    return {"reward": reward, "recall": recall}


def decide_round(
    before: Values, after: Values, alignment: AlignmentConfig, evaluation: EvaluationConfig
) -> RoundDecision:
    """Apply the two gates of this module's description.

    Args:
        before: The start's values, case by case.
        after: The trained model's, of the same cases.
        alignment: `recall_tolerance`.
        evaluation: Confidence, resamples and seed of the intervals.
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
    allowed = alignment.recall_tolerance * start_recall
    gates, failed = {}, {}
    if len(before["reward"]):
        gates["evaluator_reward_rises"] = reward.low > 0
        failed["evaluator_reward_rises"] = (
            "the evaluator's reward of the best session does not rise significantly "
            f"({reward.text(signed=True)})"
        )
    if len(before["recall"]):
        gates["recall_within_tolerance"] = recall.high >= -allowed
        failed["recall_within_tolerance"] = (
            f"Recall@{LENGTH} falls significantly from {start_recall:.4f} by more than the allowed "
            f"{alignment.recall_tolerance:.0%} ({recall.text(signed=True)})"
        )
    measured = {
        f"start_recall@{LENGTH}": start_recall,
        "start_reward": start_reward,
        **reward.flat("evaluator_reward_difference"),
        **recall.flat(f"recall@{LENGTH}_difference"),
    }
    numbers: dict[str, float] = {
        "cases": len(before["reward"]),
        "held_out_cases": len(before["recall"]),
        **{name: value for name, value in measured.items() if not math.isnan(value)},
    }
    reasons = [failed[name] for name, passed in gates.items() if not passed]
    return RoundDecision(not reasons, gates, reasons, numbers)


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
