"""Reward models, alignment, sequence baselines: two processes train what one process trains."""

import dataclasses
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from onerec.alignment.job import AlignmentJob
from onerec.alignment.preferences import save_preferences
from onerec.alignment.round_inputs import RoundInputs
from onerec.alignment.rounds import round_preferences
from onerec.artifacts import MANIFEST, write_json
from onerec.config import AlignmentConfig, EvaluationConfig, Runtime, TrainingConfig
from onerec.evaluation.baselines import load_baselines
from onerec.evaluation.baselines.job import BaselinesJob
from onerec.reward.job import RewardJob
from onerec.training.launch import Job, job_kind, job_to_json, parse_job, run_job_file
from tests.core.evaluation import night as small

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ONE = Runtime(accelerator="cpu", threads=1)
TWO = dataclasses.replace(ONE, devices=2)
REWARD = dataclasses.replace(
    small.REWARD, batch_size=17, max_epochs=3, dropout=0.0, embedding_dropout=0.0, ensemble_size=2
)
ALIGNMENT = AlignmentConfig(
    sample_users=24, batch_size=5, epochs=2, learning_rate=1e-2, ntp_sessions_per_pair=0
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("jobs")
    ids = small.catalogue()
    items = ids.item_ids[: small.NUM_ITEMS - 3]
    rows = [
        small.session(
            f"u{user}",
            small.DAY - timedelta(days=days),
            [items[(3 * user + 7 * days + n) % len(items)] for n in range(3)],
            history=[items[(3 * user + n) % len(items)] for n in range(4)],
            watched=[(user + days) % 3 != n for n in range(3)],
        )
        for user in range(small.NUM_USERS)
        for days in (4, 3, 2, 1)
    ]
    # sessions of as many targets each: then the mean over two shares' means is the whole mean
    small.write_sessions(directory / "session_dataset", rows)
    lengths = {"history_length": small.HISTORY, "session_items": small.SESSION}
    write_json(directory / "session_dataset" / MANIFEST, {"config": {"sessions": lengths}})
    small.write_catalogue(directory / "semantic_ids", ids)
    small.write_generator(directory / "start", seed=3)
    small.write_generator(directory / "start with a head", seed=3, dense_layers=1)
    return directory


def trained(job: Job, directory: Path) -> Path:
    """Files of a job, run in one process here or in two by torch's launcher."""
    out, file = directory / "out", directory / "job.json"
    directory.mkdir()
    file.write_text(json.dumps({**job_to_json(job), "out": str(out)}))
    name = f"{type(job).__module__}.{type(job).__qualname__}"
    if job.runtime.processes == 1:
        run_job_file(job_kind(name), file, log=lambda message: None)
    else:
        command = [*LAUNCH, "-m", "onerec.training", "--job", name, "--config", str(file)]
        subprocess.run(command, check=True, timeout=200)
    assert not out.with_name("out.scratch").exists()
    return out


def assert_same_weights(one: Path, two: Path) -> None:
    expected, found = (load_file(path / "model.safetensors") for path in (one, two))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow
def test_reward_models(data: Path, tmp_path: Path) -> None:
    job = RewardJob(
        session_dataset=data / "session_dataset",
        semantic_ids=data / "semantic_ids",
        reward=REWARD,
        runtime=ONE,
    )
    assert parse_job(RewardJob, job_to_json(job)) == job
    one = trained(job, tmp_path / "one")
    two = trained(dataclasses.replace(job, runtime=TWO), tmp_path / "two")
    expected, found = (json.loads((p / "metrics.json").read_text()) for p in (one, two))
    assert expected["train_blocks"] % REWARD.batch_size % 2  # the last batch is cut unevenly
    for before, after in zip(expected["epochs"], found["epochs"], strict=True):
        assert after == pytest.approx(before, rel=1e-4)
    for member in ("", "members/1"):
        assert_same_weights(one / member, two / member)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["start", "start with a head"])
def test_an_alignment_round(data: Path, tmp_path: Path, start: str) -> None:
    reward = RewardJob(
        session_dataset=data / "session_dataset",
        semantic_ids=data / "semantic_ids",
        reward=dataclasses.replace(REWARD, max_epochs=1, ensemble_size=1),
        runtime=ONE,
    )
    inputs = RoundInputs(
        session_dataset=data / "session_dataset",
        semantic_ids=data / "semantic_ids",
        start=data / start,
        reward_model=trained(reward, tmp_path / "reward"),
        test_day=small.DAY,
    )
    preferences = round_preferences(inputs, small.DECODING, ALIGNMENT, runtime=ONE)
    assert len(preferences) % 2 or len(preferences) % ALIGNMENT.batch_size
    (tmp_path / "pairs").mkdir()
    save_preferences(preferences, inputs.ids.item_ids, tmp_path / "pairs")
    job = AlignmentJob(
        inputs=inputs, preferences=tmp_path / "pairs", alignment=ALIGNMENT, runtime=ONE
    )
    one = trained(job, tmp_path / "one")
    two = trained(dataclasses.replace(job, runtime=TWO), tmp_path / "two")
    expected, found = (json.loads((p / "history.json").read_text()) for p in (one, two))
    assert [s["loss"] for s in found["steps"]] == pytest.approx(
        [s["loss"] for s in expected["steps"]], rel=1e-3
    )
    for before, after in zip(expected["epochs"], found["epochs"], strict=True):
        assert after == pytest.approx(before, rel=1e-2, abs=1e-3)
    assert_same_weights(one, two)


@pytest.mark.slow
def test_sequence_baselines(data: Path, tmp_path: Path) -> None:
    """Negatives and masks are drawn by process, so the weights are others than those of one."""
    job = BaselinesJob(
        session_dataset=data / "session_dataset",
        semantic_ids=data / "semantic_ids",
        test_day=small.DAY,
        evaluation=EvaluationConfig(
            baselines="popularity,sasrec_ce,bert4rec",
            baseline_epochs=2,
            baseline_width=8,
            baseline_trials=1,
        ),
        training=TrainingConfig(fresh_days=1, fresh_epochs=1),
        runtime=ONE,
    )
    one = trained(job, tmp_path / "one")
    two = trained(dataclasses.replace(job, runtime=TWO), tmp_path / "two")
    expected, found = (load_baselines(path) for path in (one, two))
    assert sorted(expected.learned) == sorted(found.learned) == ["bert4rec", "sasrec_ce"]
    np.testing.assert_array_equal(found.popularity.weights, expected.popularity.weights)
    for name in expected.learned:
        before, after = (load_file(path / name / "model.safetensors") for path in (one, two))
        assert before.keys() == after.keys()
        assert all(bool(tensor.isfinite().all()) for tensor in after.values())


def test_a_wrong_field_is_named(data: Path) -> None:
    values = {
        "session_dataset": str(data / "session_dataset"),
        "semantic_ids": str(data / "semantic_ids"),
    }
    for change, message in (
        ({"reward": {"d_modell": 3}}, r"reward\.d_modell=3: no such setting"),
        ({"reward": {"d_model": -3}}, r"reward\.d_model=-3: use a whole number"),
        ({"part": "third"}, "part='third': Input should be 'reward' or 'evaluator'"),
        ({"semantic_ids": str(data / "nowhere")}, "semantic_ids='.*nowhere': no such directory"),
        ({"reward": 3}, "reward=3: must map names to values"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_job(RewardJob, values | change)
    with pytest.raises(ValueError, match=r"job=.os\.path\.join.: use the dotted name"):
        job_kind("os.path.join")
