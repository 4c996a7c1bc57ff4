"""What the systems of a nightly run are evaluated on: cases, candidates, baselines, reward models.

A case is a user with a watched item on day D; candidates are all items first seen before D that
were not withdrawn before it.

Shapes: C cases, H history items, T_max targets, N items, Dv vector width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors.torch import load_file
from torch import Tensor

from onerec.config import EvaluationConfig, RewardConfig
from onerec.evaluation.baselines import FittedBaselines, load_baselines
from onerec.model.checkpoint import read_config
from onerec.reward.model import RewardModel, load_reward
from onerec.reward.user_split import check_evaluator
from onerec.session_dataset.eval_users import load_eval_users
from onerec.session_dataset.newest_watches import WatchesBefore
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids


@dataclass(frozen=True, kw_only=True)
class EvaluationData:
    """Everything that the systems of a nightly run are evaluated with.

    Attributes:
        test_day: Day D.
        user_ids: (C,) whose cases.
        histories: (C, H) item indices.
        targets: (C, T_max) item indices.
        semantic_ids: The catalogue of day D.
        candidates: (N,) booleans: first seen before D and in the catalogue at its beginning.
        vectors: (N, Dv) item vectors.
        baselines: Fitted on the window.
        reward_models: Reward models by name: `evaluator`, and `training` beside it.
        config: Cutoffs and intervals.
        reward: Weights of the scalar reward.
        session_items: M, items of a session.
        watches: What lists of day D may know of the newest days; None where recency priors are left
            out.
        attributes: C rows, what is known of the users; None where nothing is.
    """

    test_day: date
    user_ids: np.ndarray
    histories: np.ndarray
    targets: np.ndarray
    semantic_ids: SemanticIds
    candidates: np.ndarray
    vectors: Tensor
    baselines: FittedBaselines
    reward_models: Mapping[str, RewardModel]
    config: EvaluationConfig
    reward: RewardConfig
    session_items: int
    watches: WatchesBefore | None = None
    attributes: pa.Table | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationFiles:
    """Directories of the artifacts that an evaluation reads.

    Attributes:
        session_dataset: Holds the test day.
        semantic_ids: The catalogue of day D.
        baselines: Fitted on the window.
        checkpoint: A generator; says how long histories and sessions are.
        evaluator: Scores every system.
        reward_model: Trained the challenger; reported beside the evaluator.
    """

    session_dataset: Path
    semantic_ids: Path
    baselines: Path
    checkpoint: Path
    evaluator: Path
    reward_model: Path


def load_evaluation_data(
    files: EvaluationFiles,
    test_day: date,
    config: EvaluationConfig,
    reward: RewardConfig,
    *,
    device: str = "cpu",
) -> EvaluationData:
    """Read what the systems of a nightly run are evaluated with.

    Args:
        files: The artifacts.
        test_day: Day D.
        config: Settings of the evaluation.
        reward: Weights of the scalar reward.
        device: Where baselines and reward models run.

    Returns:
        Without a case where nobody watched a candidate on the test day.

    Raises:
        ValueError: The evaluator was trained on the reward model's users.
    """
    check_evaluator(files.evaluator, files.reward_model)
    shape = read_config(files.checkpoint)
    ids = load_semantic_ids(files.semantic_ids)
    candidates = ids.candidates(test_day)
    cases = load_eval_users(
        files.session_dataset,
        "test",
        ids,
        history_length=shape["history_length"],
        rankable=candidates,
    )
    cases = cases.rows(sample_cases(len(cases), config))
    return EvaluationData(
        test_day=test_day,
        user_ids=cases.user_ids,
        histories=cases.history,
        targets=cases.targets,
        semantic_ids=ids,
        candidates=candidates,
        vectors=load_file(files.semantic_ids / "vectors.safetensors")["vectors"],
        baselines=load_baselines(files.baselines, device=device),
        reward_models={
            "evaluator": load_reward(files.evaluator).to(device),
            "training": load_reward(files.reward_model).to(device),
        },
        config=config,
        reward=reward,
        session_items=shape["session_items"],
        watches=WatchesBefore(files.session_dataset, test_day),
        attributes=cases.attributes,
    )


def sample_cases(num_cases: int, config: EvaluationConfig) -> np.ndarray:
    """Rows of the cases that are evaluated: all, or a seeded sample of `max_cases`, in order."""
    if num_cases <= config.max_cases:
        return np.arange(num_cases)
    rng = np.random.default_rng(config.seed)
    return np.sort(rng.choice(num_cases, config.max_cases, replace=False))
