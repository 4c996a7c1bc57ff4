"""Comparing systems that were measured in different runs: only where that means something.

Two runs can be compared when they ask the same question: the same users, histories and targets, the
same candidates, the same tokenizer version, and for rewards the same reward_model. What a run asked
is its `protocol.json`; everything else is an error that says what differs.

Shapes: C cases, H history items, N items.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from onerec.artifacts import read_json, write_json
from onerec.config import EvaluationConfig
from onerec.evaluation.bootstrap import Interval, paired_difference
from onerec.evaluation.evaluate import Night

PROTOCOL = "protocol.json"
REMEDIES = {
    "test_day": "compare runs of one test day",
    "tokenizer_version": "train both on one tokenizer version, or evaluate both in one run",
    "cases": "use one session_dataset and one max_cases and seed for both",
    "candidates": "use one catalogue for both",
}
"""Part of a protocol, and what to do when two differ in it."""


def protocol_of(night: Night) -> dict[str, Any]:
    """What a run asks of every system, as JSON.

    Returns:
        `test_day`, `tokenizer_version`; hashes of the `cases` (users with their history and
        targets, by the items' ids) and of the `candidates`; and per reward_model a hash of its
        weights.
    """
    ids = night.semantic_ids.item_ids
    return {
        "test_day": night.test_day.isoformat(),
        "tokenizer_version": night.semantic_ids.tokenizer_version,
        "cases": _digest(night.user_ids, _names(night.history, ids), _names(night.targets, ids)),
        "candidates": _digest(np.sort(ids[night.candidates].astype(str))),
        "reward_models": {
            name: hashlib.sha256(
                b"".join(t.cpu().numpy().tobytes() for t in reward_model.state_dict().values())
            ).hexdigest()[:16]
            for name, reward_model in night.reward_models.items()
        },
    }


def write_protocol(directory: Path, night: Night) -> None:
    """Write `protocol.json` beside a run's metrics."""
    write_json(directory / PROTOCOL, protocol_of(night))


def compare_runs(
    ours: Path,
    theirs: Path,
    *,
    system: str,
    other: str,
    metric: str,
    config: EvaluationConfig,
) -> Interval:
    """Mean of `ours - theirs` over the cases, with its paired interval.

    Args:
        ours: Directory of an `offline_metrics` artifact.
        theirs: Directory of another one.
        system: Name in ours, e.g. `dpo`.
        other: Name in theirs.
        metric: E.g. `recall@10`, `evaluator_reward`.
        config: Confidence, resamples and seed of the interval.

    Raises:
        ValueError: The runs are not comparable, or one has no such system or metric.
    """
    mine, yours = (read_json(directory / PROTOCOL) for directory in (ours, theirs))
    for part, remedy in REMEDIES.items():
        if mine[part] != yours[part]:
            raise ValueError(
                f"{part}={mine[part]!r} in {ours} and {yours[part]!r} in {theirs}: a difference "
                f"between the two would say nothing about the systems; {remedy}"
            )
    reward_model = next(
        (name for name in mine["reward_models"] if metric.startswith(f"{name}_")), None
    )
    if reward_model and mine["reward_models"][reward_model] != yours["reward_models"][reward_model]:
        raise ValueError(
            f"{metric} was given by two different {reward_model} models: score both runs with one"
        )
    a, b = _column(ours, f"{system}_{metric}"), _column(theirs, f"{other}_{metric}")
    return paired_difference(
        a,
        b,
        samples=config.bootstrap_samples,
        confidence=config.confidence,
        seed=config.seed,
    )


def _column(directory: Path, name: str) -> np.ndarray:
    file = directory / "cases.parquet"
    known = pq.read_schema(file).names
    if name not in known:
        suffix = name.split("_", 1)[-1]
        like = [n for n in known if n.endswith(suffix)] or known
        raise ValueError(f"{name}: not in {file}, which has {', '.join(like)}")
    return pq.read_table(file, columns=[name]).column(name).to_numpy()


def _names(items: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The items' ids, which unlike their rows mean the same in every table; padding trails off."""
    width = int((items >= 0).any(0).sum())  # how wide the padding is says nothing
    return np.append(ids.astype(str), "")[items[:, :width]]  # -1 finds the last one


def _digest(*parts: np.ndarray) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update("\n".join(part.astype(str).ravel().tolist()).encode())
        digest.update(str(part.shape).encode())
    return digest.hexdigest()[:16]
