"""The protocol of an evaluation, by which runs are known to be comparable.

Two runs are comparable when they evaluate on the same users, histories and targets, the same
candidates, and for rewards the same reward models.

Shapes: C cases, H history items, N items.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from onerec.artifacts import read_json, write_json
from onerec.evaluation.data import EvaluationData
from onerec.reward.model import RewardModel
from onerec.reward.scoring import reward_terms

PROTOCOL_FILE = "protocol.json"


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """Contents of `protocol.json`.

    Attributes:
        test_day: Day D.
        tokenizer_version: Of the day's semantic IDs.
        users: C.
        mean_targets: Items per case that are to be found.
        candidate_items: Items that may be listed.
        bootstrap_confidence: Of the intervals.
        cases: Hash of the users with their histories and targets, by the items' ids.
        candidates: Hash of the candidates' ids.
        reward_models: By name, a hash of its weights and trees.
        scalar_reward: Its terms, in words.
        missing_signals: Declared signals that the reward models have no tower for: training blocks
            of one class only.
        filter_seen: Whether the lists as they are served leave out items of a history.
    """

    test_day: str
    tokenizer_version: str
    users: int
    mean_targets: float
    candidate_items: int
    bootstrap_confidence: float
    cases: str
    candidates: str
    reward_models: Mapping[str, str]
    scalar_reward: Sequence[str] = ()
    missing_signals: Sequence[str] = ()
    filter_seen: bool = True

    @staticmethod
    def of(data: EvaluationData, *, filter_seen: bool = True) -> "EvaluationProtocol":
        """The protocol of an evaluation, whose served lists were decoded with `filter_seen`."""
        ids = data.semantic_ids.item_ids
        evaluator = data.reward_models["evaluator"]
        histories, targets = _names(data.histories, ids), _names(data.targets, ids)
        return EvaluationProtocol(
            test_day=data.test_day.isoformat(),
            tokenizer_version=data.semantic_ids.tokenizer_version,
            users=len(data.user_ids),
            mean_targets=float((data.targets >= 0).sum() / max(len(data.targets), 1)),
            candidate_items=int(data.candidates.sum()),
            bootstrap_confidence=data.config.confidence,
            cases=_digest(data.user_ids, histories, targets),
            candidates=_digest(np.sort(ids[data.candidates].astype(str))),
            reward_models={name: _hash_of(model) for name, model in data.reward_models.items()},
            scalar_reward=reward_terms(data.reward, evaluator.signals),
            missing_signals=list(evaluator.shape.missing),
            filter_seen=filter_seen,
        )

    def save(self, directory: Path) -> None:
        """Write `protocol.json`."""
        write_json(directory / PROTOCOL_FILE, asdict(self))

    @staticmethod
    def load(directory: Path) -> "EvaluationProtocol":
        """Read what `save` wrote."""
        return EvaluationProtocol(**read_json(directory / PROTOCOL_FILE))


def _names(items: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The items' ids, which unlike their rows mean the same in every table; padding trails off."""
    width = int((items >= 0).any(0).sum())  # the width of the padding is not hashed
    return np.append(ids.astype(str), "")[items[:, :width]]  # -1 finds the last one


def _hash_of(model: RewardModel) -> str:
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    digest.update(model.boosting.text().encode() if model.boosting else b"")
    return digest.hexdigest()[:16]


def _digest(*parts: np.ndarray) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update("\n".join(part.astype(str).ravel().tolist()).encode())
        digest.update(str(part.shape).encode())
    return digest.hexdigest()[:16]
