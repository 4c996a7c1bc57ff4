"""What every system of a nightly run lists and generates, in shards of users.

Shapes: C cases of a shard, K places of a list, S sessions of a case, M items of a session.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial

import numpy as np
import pyarrow as pa
import torch

from onerec.config import BeamConfig, EvaluationConfig, RewardConfig
from onerec.evaluation.data import EvaluationData, EvaluationFiles, load_evaluation_data
from onerec.evaluation.generated_sessions import GeneratedSessions
from onerec.evaluation.measure import Ranked, rank_cases
from onerec.evaluation.systems import NightlyGenerators, System, nightly_systems
from onerec.ranked_lists import RankedLists
from onerec.shards import (
    ShardFunction,
    ShardPool,
    arrays_of,
    columns_of,
    gathered,
    map_shards,
)


@dataclass(frozen=True, kw_only=True)
class NightlyEvaluation:
    """What a worker loads: the artifacts and settings of an evaluation.

    Attributes:
        files: What the systems are evaluated with.
        generators: Their checkpoints.
        test_day: Day D.
        config: Settings of the evaluation.
        reward: Weights of the scalar reward.
        decoding: Beam and batch size.
        reward_weight: How much the reward counts in served lists.
        device: Where models run.
    """

    files: EvaluationFiles
    generators: NightlyGenerators
    test_day: date
    config: EvaluationConfig
    reward: RewardConfig
    decoding: BeamConfig
    reward_weight: float
    device: str = "cpu"

    def data(self) -> EvaluationData:
        """The cases, and what they are measured with."""
        return load_evaluation_data(
            self.files, self.test_day, self.config, self.reward, device=self.device
        )

    def systems(self, data: EvaluationData) -> dict[str, System]:
        """The systems by name."""
        return nightly_systems(
            data,
            self.generators,
            self.decoding,
            reward_weight=self.reward_weight,
            device=self.device,
        )


def ranked_by_shards(
    evaluation: NightlyEvaluation,
    data: EvaluationData,
    systems: Mapping[str, System],
    pool: ShardPool,
) -> dict[str, Ranked]:
    """Lists and sessions of every system on every case.

    Args:
        evaluation: What a worker loads.
        data: The same, loaded.
        systems: The same.
        pool: How cases are spread over workers.
    """
    if pool.engine == "ray":
        load = partial(load_case_ranker, evaluation)
    else:
        load = partial(_case_ranker, data, systems)
    table = columns_of({"row": np.arange(len(data.user_ids))})
    batch = evaluation.decoding.batch_size
    columns = gathered(map_shards(load, table, pool, multiple_of=batch))
    return {name: _unpacked(columns, name) for name in systems}


def load_case_ranker(evaluation: NightlyEvaluation) -> ShardFunction:
    """The function of a worker: rows of cases -> lists and sessions of every system."""
    data = evaluation.data()
    return _case_ranker(data, evaluation.systems(data))


def _case_ranker(data: EvaluationData, systems: Mapping[str, System]) -> ShardFunction:
    def rank(table: pa.Table) -> pa.Table:
        rows = arrays_of(table)["row"]
        columns: dict[str, np.ndarray] = {}
        for name, system in systems.items():
            columns |= dict(_packed(name, rank_cases(data, system, rows)))
        return columns_of(columns)

    return rank


def _packed(name: str, ranked: Ranked) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{name}/items", ranked.lists.items
    yield f"{name}/scores", ranked.lists.scores
    if ranked.lists.rewards is not None:
        yield f"{name}/rewards", ranked.lists.rewards
    yield f"{name}/sessions", ranked.sessions.items.numpy()
    yield f"{name}/logp", ranked.sessions.logp.numpy()


def _unpacked(columns: Mapping[str, np.ndarray], name: str) -> Ranked:
    lists = RankedLists(
        columns[f"{name}/items"], columns[f"{name}/scores"], columns.get(f"{name}/rewards")
    )
    items, logp = (torch.from_numpy(columns[f"{name}/{part}"]) for part in ("sessions", "logp"))
    return Ranked(lists, GeneratedSessions(items, logp))
