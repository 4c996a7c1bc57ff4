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
from torch import Tensor

from onerec.alignment.candidates import sample_contexts
from onerec.artifacts import write_json
from onerec.config import AlignmentConfig, BeamConfig, EvaluationConfig, RewardConfig
from onerec.evaluation.generated_sessions import session_rewards
from onerec.evaluation.generators import SessionGenerator
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.generation import Trie
from onerec.model import OneRec
from onerec.reward.model import RewardModel
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


def gate_round(
    start: OneRec,
    trained: OneRec,
    evaluator: RewardModel,
    vectors: Tensor,
    valid: SessionTensors,
    codes: Tensor,
    trie: Trie,
    *,
    start_files: Path,
    out_dir: Path,
    alignment: AlignmentConfig,
    decoding: BeamConfig,
    evaluation: EvaluationConfig,
    reward: RewardConfig,
    device: str = "cpu",
) -> RoundDecision:
    """Measure a round, decide, and leave in `out_dir` what is to be published.

    Args:
        start: What the round started from.
        trained: What it made.
        evaluator: Reward model of other users.
        vectors: (N, Dv) item vectors for it.
        valid: Good sessions of the validation day; one of each of `gate_cases` users is a case.
        codes: (N, T) semantic IDs.
        trie: Items that may be generated.
        start_files: Checkpoint of the start.
        out_dir: Checkpoint of the round; gets the start's weights when the round is refused, and
            `round.json` in any case.
        alignment: `gate_cases` and `recall_tolerance`.
        decoding: Beam and batch size.
        evaluation: Confidence, resamples and seed of the intervals.
        reward: Weights of the scalar reward.
        device: Where it runs.
    """
    cases = sample_contexts(valid, alignment.gate_cases, alignment.seed)
    if not len(cases):
        decision = RoundDecision(True, {}, [], {"cases": 0})
    else:
        before, after = (
            measure_round(
                model, evaluator, vectors, cases, codes, trie, decoding, reward, device=device
            )
            for model in (start, trained)
        )
        decision = decide_round(before, after, alignment, evaluation)
    if not decision.published:
        for name in WEIGHTS:
            shutil.copyfile(start_files / name, out_dir / name)
    write_json(out_dir / ROUND, asdict(decision))
    return decision


def measure_round(
    model: OneRec,
    evaluator: RewardModel,
    vectors: Tensor,
    cases: SessionTensors,
    codes: Tensor,
    trie: Trie,
    decoding: BeamConfig,
    reward: RewardConfig,
    *,
    device: str = "cpu",
) -> Values:
    """Evaluator reward of the best session, and Recall@10, of every case.

    As in the evaluation of a night, nobody's seen items are left out.
    """
    system = SessionGenerator(model.to(device).eval(), codes.to(device), trie.to(device), decoding)
    history = cases.history.numpy().astype(np.int64)
    lists = system.rank(history, LENGTH)
    targets = cases.targets.numpy().astype(np.int64)
    scored = session_rewards(
        evaluator.to(device),
        vectors,
        torch.from_numpy(history),
        system.sessions(history),
        reward,
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
    said = {
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
    reasons = [said[name] for name, passed in gates.items() if not passed]
    return RoundDecision(not reasons, gates, reasons, numbers)
