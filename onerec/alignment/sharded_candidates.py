"""Scored candidates of many users, in shards: what `scored_candidates` makes, on many workers.

Shapes: B users of a shard, H history items, M items of a session.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import torch

from onerec.alignment.candidates import OnBatch, ScoredCandidates, scored_candidates
from onerec.alignment.round_inputs import RoundInputs
from onerec.config import AlignmentConfig, BeamConfig, Runtime
from onerec.evaluation.generators import SessionGenerator
from onerec.reward.ensemble import RewardEnsemble
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.session_dataset.user_attributes import split_attributes, with_attributes
from onerec.shards import ShardFunction, ShardPool, arrays_of, columns_of, map_shards
from onerec.training.runtime import reproducible


@dataclass(frozen=True, kw_only=True)
class ShardedCandidates:
    """Called like `scored_candidates`.

    Attributes:
        inputs: What a worker loads.
        decoding: Candidates per user and batch size.
        runtime: Hardware and threads.
        pool: How contexts are spread; its `on_progress` reports, not `on_batch`.
    """

    inputs: RoundInputs
    decoding: BeamConfig
    runtime: Runtime
    pool: ShardPool

    def __call__(
        self,
        generator: SessionGenerator,
        reward: RewardEnsemble,
        contexts: SessionTensors,
        *,
        num_candidates: int,
        alignment: AlignmentConfig,
        on_batch: OnBatch = lambda done, total: None,
    ) -> Iterator[ScoredCandidates]:
        table = columns_of(
            {
                "row": np.arange(len(contexts)),
                "history": contexts.history.numpy(),
                "targets": contexts.targets.numpy(),
            }
        )
        table = with_attributes(table, contexts.attributes_of(torch.arange(len(contexts))))
        settings = {"num_candidates": num_candidates, "alignment": alignment}
        if self.pool.engine == "ray":
            # without what was loaded here: a worker loads it itself
            load = partial(load_scorer, replace(self.inputs), self.decoding, self.runtime, settings)
        else:
            load = partial(_scorer, generator, reward, self.runtime, settings)
        batch = self.decoding.batch_size
        for made in map_shards(load, table, self.pool, multiple_of=batch):
            yield ScoredCandidates(**{n: torch.from_numpy(a) for n, a in arrays_of(made).items()})


def load_scorer(
    inputs: RoundInputs, decoding: BeamConfig, runtime: Runtime, settings: dict
) -> ShardFunction:
    """The function of a worker: contexts -> their scored candidates."""
    generator = inputs.generator(decoding, runtime)
    return _scorer(generator, inputs.ensemble(inputs.reward_model), runtime, settings)


def _scorer(
    generator: SessionGenerator, reward: RewardEnsemble, runtime: Runtime, settings: dict
) -> ShardFunction:
    def score(table: pa.Table) -> pa.Table:
        table, attributes = split_attributes(table)
        arrays, num = arrays_of(table), table.num_rows
        contexts = SessionTensors(
            user=torch.arange(num),
            user_ids=np.arange(num),
            history=torch.from_numpy(arrays["history"]),
            targets=torch.from_numpy(arrays["targets"]),
            is_good=torch.ones(num, dtype=torch.bool),
            date=np.zeros(num, "datetime64[D]"),
            attributes=attributes,
        )
        with reproducible(runtime):
            found = list(
                scored_candidates(
                    generator, reward, contexts, first_row=int(arrays["row"][0]), **settings
                )
            )
        joined = {
            name: torch.cat([getattr(part, name) for part in found]).numpy()
            for name in ScoredCandidates._fields
        }
        return columns_of(joined)

    return score
