"""Is a round worth publishing? If not, the model it started from is kept.

Both are measured on the validation day, never on day D: a choice made on the test day would be part
of the training. The reward is the evaluator's, whose users the reward model has never seen.

A round is published when

1. the evaluator's reward of the best session rises significantly, and
2. Recall@10 has not significantly fallen by more than the allowed share,

each by the paired bootstrap interval over users.

Shapes: C cases, H history items, M items of a session, N items.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from onerec.artifacts import write_json
from onerec.config import AlignmentConfig, EvaluationConfig
from onerec.evaluation.generated_sessions import session_rewards
from onerec.evaluation.generators import SessionGenerator
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.reward.ensemble import RewardEnsemble
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.statistics import paired_difference

ROUND = "round.json"
LENGTH = 10
WEIGHTS = ("model.safetensors", "config.json")
"""What a refused round takes over from its start."""

Values = Mapping[str, np.ndarray]
"""(C,) `reward` and `recall` of one model."""


@dataclass(frozen=True)
class RoundDecision:
    """What `round.json` says.

    Attributes:
        published: Both gates passed, or there was none.
        gates: Name of each gate, and whether it passed; empty without a gate.
        reasons: Why not, one sentence per failed gate.
        numbers: What was measured; the differences with `_low` and `_high`.
    """

    published: bool
    gates: dict[str, bool]
    reasons: list[str]
    numbers: dict[str, float]


def measure_round(
    generator: SessionGenerator, evaluator: RewardEnsemble, cases: SessionTensors
) -> Values:
    """Evaluator reward of the best session, and Recall@10, of every case.

    As in the offline metrics, items of the history are not left out.
    """
    history = cases.history.numpy().astype(np.int64)
    lists = generator.rank(history, LENGTH)
    targets = cases.targets.numpy().astype(np.int64)
    evaluator = evaluator.to(generator.model.device)
    scored = session_rewards(
        evaluator.models[0],
        evaluator.vectors,
        torch.from_numpy(history),
        generator.sessions(history),
        evaluator.config,
        name="evaluator",
    )
    recall = per_case_metrics(lists.items, targets, (LENGTH,))[f"recall@{LENGTH}"]
    return {"reward": scored["evaluator_reward"], "recall": recall}


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
        for name in ("reward", "recall")
    )
    start_recall = float(before["recall"].mean())
    allowed = alignment.recall_tolerance * start_recall
    gates = {
        "evaluator_reward_rises": reward.low > 0,
        "recall_within_tolerance": recall.high >= -allowed,
    }
    failed = {
        "evaluator_reward_rises": "the evaluator's reward of the best session does not rise "
        f"significantly ({reward.text(signed=True)})",
        "recall_within_tolerance": f"Recall@{LENGTH} falls significantly from {start_recall:.4f} "
        f"by more than the allowed {alignment.recall_tolerance:.0%} ({recall.text(signed=True)})",
    }
    numbers = {
        "cases": len(before["reward"]),
        f"start_recall@{LENGTH}": start_recall,
        "start_reward": float(np.nanmean(before["reward"])),
        **reward.flat("evaluator_reward_difference"),
        **recall.flat(f"recall@{LENGTH}_difference"),
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
