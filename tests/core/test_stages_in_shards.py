"""The stages that work user by user or item by item: one shard or many, in process or on Ray.

The model is that of `tests.core.evaluation.night`; one thread each, so that sums are rounded alike.
Ray's tests need the extra `ray`, and skip without.
"""

from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from onerec.alignment.preferences import save_preferences
from onerec.alignment.round_inputs import RoundInputs
from onerec.alignment.rounds import round_preferences
from onerec.config import AlignmentConfig, Runtime
from onerec.embeddings.text import encode_minilm
from onerec.evaluation.data import EvaluationFiles
from onerec.evaluation.measure import evaluate, rank_cases
from onerec.evaluation.sharded_ranking import NightlyEvaluation, ranked_by_shards
from onerec.evaluation.systems import NightlyGenerators
from onerec.serving.batch import Lists, recommend_to_all
from onerec.serving.recommender import write_bundle
from onerec.shards import ShardPool
from tests.core.evaluation import night as small

ENGINES = ("in_process", "ray")
BATCH = small.DECODING.batch_size
RUNTIME = Runtime(accelerator="cpu", threads=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = small.write_artifacts(tmp_path_factory.mktemp("night"))
    small.add_attributes(root)
    return root


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if request.param == "ray" and find_spec("ray") is None:
        pytest.skip("the extra `ray` is not installed")
    yield request.param
    if request.param == "ray":
        import ray

        ray.shutdown()
    torch.set_num_threads(threads)


def pool(engine: str, directory: Path) -> ShardPool:
    """Two shards of the users, each a batch."""
    return ShardPool(engine=engine, shard_rows=BATCH, directory=directory, threads=1)


def parquet_bytes(table: pa.Table, file: Path) -> bytes:
    pq.write_table(table, file)
    return file.read_bytes()


def test_recommendations(root: Path, tmp_path: Path, engine: str) -> None:
    write_bundle(
        tmp_path / "bundle",
        checkpoint=root / "dpo",
        semantic_ids=root / "semantic_ids",
        reward=root / "reward",
        config=small.DECODING,
    )
    wanted = Lists(small.DAY + timedelta(days=1), "v1", 7)
    inputs = tmp_path / "bundle", root / "session_dataset", wanted
    alone = recommend_to_all(*inputs)
    spread = recommend_to_all(*inputs, pool=pool(engine, tmp_path / "shards"))
    assert alone.num_rows == small.NUM_USERS * 7
    assert parquet_bytes(spread.combine_chunks(), tmp_path / "a") == parquet_bytes(
        alone.combine_chunks(), tmp_path / "b"
    )


@pytest.mark.parametrize("pairs", ["beams", "sampling"])
def test_candidates_of_preference_pairs(
    root: Path, tmp_path: Path, engine: str, pairs: str
) -> None:
    inputs = RoundInputs(
        session_dataset=root / "session_dataset",
        semantic_ids=root / "semantic_ids",
        start=root / "pretrained",
        reward_model=root / "reward",
        test_day=small.DAY,
    )
    alignment = AlignmentConfig(method="dpo", pairs=pairs, seed=3)
    saved = {}
    for name, spread in (("alone", None), ("spread", pool(engine, tmp_path / "shards"))):
        made = round_preferences(inputs, small.DECODING, alignment, runtime=RUNTIME, pool=spread)
        directory = tmp_path / name
        directory.mkdir()
        save_preferences(made, inputs.ids.item_ids, directory)
        saved[name] = {file.name: file.read_bytes() for file in directory.iterdir()}
    assert saved["alone"] == saved["spread"]
    assert len(made) > BATCH, "more than one shard"


def test_lists_and_sessions_of_offline_metrics(root: Path, tmp_path: Path, engine: str) -> None:
    files = EvaluationFiles(
        session_dataset=root / "session_dataset",
        semantic_ids=root / "semantic_ids",
        baselines=root / "baselines",
        checkpoint=root / "dpo",
        evaluator=root / "evaluator",
        reward_model=root / "reward",
    )
    evaluation = NightlyEvaluation(
        files=files,
        generators=NightlyGenerators(pretrained=root / "pretrained", aligned=root / "dpo"),
        test_day=small.DAY,
        config=small.EVALUATION,
        reward=small.REWARD,
        decoding=small.DECODING.__class__(beam=8, batch_size=4),
        reward_weight=0.5,
    )
    data = evaluation.data()
    systems = evaluation.systems(data)
    spread = ShardPool(engine=engine, shard_rows=4, directory=tmp_path, threads=1)
    ranked = ranked_by_shards(evaluation, data, systems, spread)
    for name, system in systems.items():
        alone = rank_cases(data, system, np.arange(len(data.user_ids)))
        np.testing.assert_array_equal(ranked[name].lists.items, alone.lists.items)
        np.testing.assert_array_equal(ranked[name].lists.scores, alone.lists.scores)
        assert torch.equal(ranked[name].sessions.items, alone.sessions.items)
        assert torch.equal(ranked[name].sessions.logp, alone.sessions.logp)
    wanted, found = evaluate(data, systems), evaluate(data, systems, ranked=ranked)
    assert wanted.keys() == found.keys()
    for name in systems:
        assert wanted[name].totals == found[name].totals
        for metric, values in wanted[name].values.items():
            np.testing.assert_array_equal(values, found[name].values[metric])


@cache
def vectors_alone() -> np.ndarray:
    return encode_minilm(titles(), lambda message: None)


def titles() -> np.ndarray:
    words = ("red", "blue", "green", "old", "new", "fast", "slow", "cat", "dog", "car")
    draw = np.random.default_rng(0)
    found = [" ".join(draw.choice(words, draw.integers(1, 6))) for _ in range(1500)]
    return np.array(found, dtype=object)


@pytest.mark.slow
def test_text_vectors(tmp_path: Path, engine: str) -> None:
    said: list[str] = []
    spread = ShardPool(engine=engine, shard_rows=512, directory=tmp_path, threads=1)
    found = encode_minilm(titles(), said.append, pool=spread)
    assert found.tobytes() == vectors_alone().tobytes()
    assert len(said) >= 2
    assert said[-1].endswith("encoded")
