"""A training from artifact directories, and the process that runs one."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from onerec.artifacts import read_json
from onerec.evaluation.ndcg_by_weight import NdcgByWeight
from onerec.evaluation.recency import PRIOR_WEIGHTS
from onerec.model import (
    OneRec,
    TokenizerVersionMismatchError,
    load_model,
    read_config,
    save_model,
)
from onerec.model.item_neighbours import ItemNeighbours
from onerec.session_dataset.co_occurrence import nearest_items
from onerec.session_dataset.generator_sessions import load_session_tensors
from onerec.session_dataset.interactions import load_interactions
from onerec.session_dataset.splits import LEARNED
from onerec.session_dataset.user_sequences import load_user_sequences, sessions_of_sequences
from onerec.training.__main__ import main
from onerec.training.generator_module import next_token_loss
from onerec.training.job import TrainingJob, count_neighbours, train, why_not_start_from
from onerec.training.launch import job_to_json, parse_job, run_job_file
from onerec.training.list_weights import NEIGHBOUR_WEIGHTS
from onerec.training.progress import TrainingProgress
from onerec.training.resume import RESUME
from onerec.training.runtime import Runtime
from tests.core.training.small import (
    HISTORY,
    ITEMS,
    MODEL,
    NUM_CODES,
    NUM_SID_TOKENS,
    TRAINING,
    catalogue,
    write_patterned_dataset,
)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("artifacts")
    write_patterned_dataset(directory / "session_dataset", train=400, valid=60)
    (directory / "semantic_ids").mkdir()
    catalogue().save(directory / "semantic_ids")
    return directory


def job_values(artifacts: Path, out: Path, **training: Any) -> dict[str, Any]:
    return {
        "session_dataset": str(artifacts / "session_dataset"),
        "semantic_ids": str(artifacts / "semantic_ids"),
        "history_length": HISTORY,
        "session_items": ITEMS,
        "model": dataclasses.asdict(MODEL),
        "training": dataclasses.asdict(dataclasses.replace(TRAINING, **training)),
        "runtime": {"accelerator": "cpu", "threads": 1},
        "out": str(out),
    }


def config_file(path: Path, values: dict[str, Any]) -> str:
    path.write_text(json.dumps(values))
    return str(path)


def hashes(directory: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in directory.iterdir()}


@pytest.mark.slow
def test_killed_and_started_again_ends_in_the_same_bytes(artifacts: Path, tmp_path: Path) -> None:
    long = {"max_epochs": 5, "patience": 5, "batch_size": 16}
    cut = config_file(tmp_path / "cut.json", job_values(artifacts, tmp_path / "cut", **long))
    process = subprocess.Popen(
        [sys.executable, "-m", "onerec.training", "--config", cut], stderr=subprocess.DEVNULL
    )
    resume = tmp_path / "cut.scratch" / RESUME
    deadline = time.monotonic() + 120
    while not resume.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)  # into the next epoch
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert resume.exists()
    assert not (tmp_path / "cut").exists()

    main(["--config", cut])
    whole = job_values(artifacts, tmp_path / "whole", **long)
    main(["--config", config_file(tmp_path / "whole.json", whole)])
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")
    assert len(hashes(tmp_path / "cut")) == 3
    assert not (tmp_path / "cut.scratch").exists()


def test_the_recency_prior_counts_the_days_of_the_settings(artifacts: Path, tmp_path: Path) -> None:
    values = job_values(artifacts, tmp_path / "out", max_epochs=1, recency_days=2)
    main(["--config", config_file(tmp_path / "job.json", values)])
    model, _ = load_model(tmp_path / "out", expected_tokenizer_version=None)
    assert model.recency_prior.days == 2


def test_item_neighbours_are_kept_as_the_settings_say(artifacts: Path, tmp_path: Path) -> None:
    def checkpoint(neighbours: int) -> Path:
        out = tmp_path / f"{neighbours}"
        job = job_of(artifacts, max_epochs=1, item_neighbours=neighbours)
        crowd = NdcgByWeight(10**6, {w: float(w == 0.3) for w in NEIGHBOUR_WEIGHTS})
        job = dataclasses.replace(job, earlier={"neighbours": (crowd,)})
        train(job, out_dir=out, scratch=tmp_path / "scratch")
        return out

    def expected(splits: tuple[str, ...]) -> ItemNeighbours:
        window = load_interactions(
            artifacts / "session_dataset",
            catalogue(),
            test_day=last_day_of(artifacts) + timedelta(days=1),
            splits=splits,
            hold_out=True,
        )
        everything = np.ones(len(window.watches), bool)
        return ItemNeighbours.of(nearest_items(window.watched, 2, everything))

    model, _ = load_model(checkpoint(2), expected_tokenizer_version=None)
    assert model.neighbour_weight == 0.3
    assert model.neighbours is not None
    assert model.neighbours.item.shape[1] == 2
    assert torch.equal(model.neighbours.similarity, expected(LEARNED).similarity)
    assert torch.equal(model.neighbours.item, expected(LEARNED).item)
    count = partial(count_neighbours, job_of(artifacts, item_neighbours=2), catalogue())
    before = count(("train",))
    assert torch.equal(before.similarity, expected(("train",)).similarity)
    assert not torch.equal(before.similarity, model.neighbours.similarity)
    model, _ = load_model(checkpoint(0), expected_tokenizer_version=None)
    assert (model.neighbours, model.neighbour_weight) == (None, 0.0)


def test_withdrawn_items_take_no_places_among_neighbours(artifacts: Path) -> None:
    gone = np.full(len(catalogue()), "NaT", "datetime64[D]")
    gone[::2] = np.datetime64(last_day_of(artifacts), "D")
    today = dataclasses.replace(catalogue(), withdrawn_on=gone)
    found = count_neighbours(job_of(artifacts, item_neighbours=2), today, LEARNED)
    near = found.item[found.similarity > 0]
    assert len(near)
    assert (near % 2 == 1).all()
    before = count_neighbours(job_of(artifacts, item_neighbours=2), today, ("train",))
    assert (before.item[before.similarity > 0] % 2 == 0).any(), "the day before lists them"


def test_wrong_jobs_are_refused_by_name(artifacts: Path, tmp_path: Path) -> None:
    good = job_values(artifacts, tmp_path / "out")

    def run(**changes: Any) -> None:
        values = {k: v for k, v in (good | changes).items() if v != "absent"}
        main(["--config", config_file(tmp_path / "job.json", values)])

    with pytest.raises(ValueError, match="epochs=3: no such setting; use session_dataset"):
        run(epochs=3)
    with pytest.raises(ValueError, match=r"training.max_epoch=3: no such setting; training has"):
        run(training={"max_epoch": 3})
    with pytest.raises(ValueError, match=r"semantic_ids=.*no such directory"):
        run(semantic_ids=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="history_length=None: the training job has to name it"):
        run(history_length="absent")
    with pytest.raises(ValueError, match="out=None"):
        run(out="absent")
    with pytest.raises(ValueError, match="it exists already"):
        run(out=str(tmp_path))
    with pytest.raises(ValueError, match=r"devices=2: start a process for each: .*per-node=2"):
        run(runtime={"devices": 2})
    with pytest.raises(ValueError, match="checkpoint_every_steps=-1: use a whole number from 0"):
        run(runtime={"checkpoint_every_steps": -1})
    assert not (tmp_path / "out").exists()


def test_a_dataset_without_sessions_names_its_thresholds(artifacts: Path, tmp_path: Path) -> None:
    dataset = write_patterned_dataset(tmp_path / "session_dataset", train=5, valid=0)
    manifest = {"config": {"sessions": {"good_min_watched_items": 3}}}
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    job = TrainingJob(
        session_dataset=dataset,
        semantic_ids=artifacts / "semantic_ids",
        history_length=HISTORY,
        session_items=ITEMS,
    )
    with pytest.raises(ValueError, match=r'no validation session .*"good_min_watched_items": 3'):
        train(job, out_dir=tmp_path / "out", scratch=tmp_path / "scratch")


def test_a_checkpoint_of_another_generation_is_no_start(artifacts: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = OneRec(
        MODEL,
        codebook_size=NUM_CODES,
        num_sid_tokens=NUM_SID_TOKENS,
        history_length=HISTORY,
        session_items=ITEMS,
    )
    save_model(model, tmp_path / "old", tokenizer_version="another")
    job = TrainingJob(
        session_dataset=artifacts / "session_dataset",
        semantic_ids=artifacts / "semantic_ids",
        history_length=HISTORY,
        session_items=ITEMS,
        initial=tmp_path / "old",
        model=MODEL,
        runtime=Runtime(accelerator="cpu", threads=1),
    )
    with pytest.raises(TokenizerVersionMismatchError, match=r"'another'.*'a-version'"):
        train(job, out_dir=tmp_path / "out", scratch=tmp_path / "scratch")


def test_a_refit_with_the_same_numbers_starts_from_the_version_before(
    artifacts: Path, tmp_path: Path
) -> None:
    first = job_of(artifacts, max_epochs=1, fresh_epochs=0)
    train(first, out_dir=tmp_path / "old", scratch=tmp_path / "old.scratch")
    model, _ = load_model(tmp_path / "old", expected_tokenizer_version="a-version")
    (tmp_path / "refit").mkdir()
    dataclasses.replace(catalogue(), tokenizer_version="refit").save(tmp_path / "refit")
    refit = dataclasses.replace(first, semantic_ids=tmp_path / "refit")
    why = why_not_start_from(tmp_path / "old", refit)
    assert why == "the last checkpoint has tokenizer_version='a-version', this training 'refit'"
    refit = dataclasses.replace(refit, numbered_like="a-version")
    assert why_not_start_from(tmp_path / "old", refit) is None
    dense = dataclasses.replace(refit, model=dataclasses.replace(MODEL, dense_head=True))
    assert "dense head" in (why_not_start_from(tmp_path / "old", dense) or "")
    # with a rate of almost nothing the weights are those it started from
    slow = dataclasses.replace(
        refit.starting_from(tmp_path / "old"),
        training=dataclasses.replace(refit.training, learning_rate=1e-12),
    )
    report = train(slow, out_dir=tmp_path / "new", scratch=tmp_path / "new.scratch")
    found, _ = load_model(tmp_path / "new", expected_tokenizer_version="refit")
    torch.testing.assert_close(found.sid_embedding.weight, model.sid_embedding.weight)
    # the numbers mean the same, but it has not learned all that was watched in these IDs
    sessions = read_json(tmp_path / "new" / "history.json")["summary"]["train_sessions"]
    assert sessions > 400
    assert len(report.history) == 1


def test_a_refit_takes_the_generator_over_without_its_dense_head(
    artifacts: Path, tmp_path: Path
) -> None:
    for name in ("a-version", "refit"):
        (tmp_path / name).mkdir()
        dataclasses.replace(catalogue(), tokenizer_version=name).save(tmp_path / name)
        save_file({"vectors": torch.eye(len(catalogue()))}, tmp_path / name / "vectors.safetensors")
    own = dataclasses.replace(MODEL, dense_head=True, dense_encoder_layers=1)
    first = dataclasses.replace(
        job_of(artifacts, max_epochs=1, fresh_epochs=0, learning_rate=1e-12, dense_learning_rate=1),
        model=own,
        semantic_ids=tmp_path / "a-version",
    )
    train(first, out_dir=tmp_path / "old", scratch=tmp_path / "old.scratch")
    refit = dataclasses.replace(
        first, semantic_ids=tmp_path / "refit", numbered_like="a-version",
        training=dataclasses.replace(first.training, dense_learning_rate=1e-12),
    )  # fmt: skip
    assert why_not_start_from(tmp_path / "old", refit) is None
    job = refit.starting_from(tmp_path / "old")
    train(job, out_dir=tmp_path / "new", scratch=tmp_path / "new.scratch")
    old, new = (load_file(tmp_path / n / "model.safetensors") for n in ("old", "new"))
    torch.testing.assert_close(new["sid_embedding.weight"], old["sid_embedding.weight"])
    assert float(old["dense.items.weight"].std()) > 10 * float(new["dense.items.weight"].std())


def test_histories_are_learned_once_not_by_a_warm_start(artifacts: Path, tmp_path: Path) -> None:
    def sessions(out: str, **changes: Any) -> int:
        values = job_values(artifacts, tmp_path / out, max_epochs=1, **changes)
        values["initial"] = str(tmp_path / "first") if out == "next" else None
        job = parse_job(TrainingJob, {k: v for k, v in values.items() if k != "out"})
        train(job, out_dir=tmp_path / out, scratch=tmp_path / f"{out}.scratch")
        return json.loads((tmp_path / out / "history.json").read_text())["summary"][
            "train_sessions"
        ]

    cut = sessions_of_sequences(
        load_user_sequences(artifacts / "session_dataset", catalogue()),
        history_length=HISTORY,
        session_items=ITEMS,
    )
    assert len(cut) > 0
    assert sessions("first") == 400 + len(cut)
    assert sessions("next") == 400
    assert sessions("without", history_sessions=False) == 400


def job_of(artifacts: Path, **training: Any) -> TrainingJob:
    return TrainingJob(
        session_dataset=artifacts / "session_dataset",
        semantic_ids=artifacts / "semantic_ids",
        history_length=HISTORY,
        session_items=ITEMS,
        model=MODEL,
        training=dataclasses.replace(TRAINING, **training),
        runtime=Runtime(accelerator="cpu", threads=1, checkpoint_every_steps=1),
    )


def test_a_job_file_carries_what_earlier_days_measured(artifacts: Path, tmp_path: Path) -> None:
    crowd = NdcgByWeight(10**6, {w: 1 / 3 if w == 0.25 else 0.1 for w in PRIOR_WEIGHTS})
    job = dataclasses.replace(
        job_of(artifacts, max_epochs=1, fresh_epochs=0), earlier={"recency": (crowd,)}
    )
    file = tmp_path / "job.json"
    file.write_text(json.dumps(job_to_json(job) | {"out": str(tmp_path / "out")}))
    run_job_file(TrainingJob, file, log=lambda message: None)
    assert read_config(tmp_path / "out")["recency_prior"]["weight"] == 0.25
    values = json.loads(json.dumps(job_to_json(job)))
    assert parse_job(TrainingJob, values) == job


def test_the_newest_days_are_learned_when_the_epoch_is_chosen(
    artifacts: Path, tmp_path: Path
) -> None:
    one = {"max_epochs": 1, "fresh_days": 1, "fresh_learning_rate": 1e-2}
    valid = load_session_tensors(
        artifacts / "session_dataset", "valid", catalogue(),
        history_length=HISTORY, session_items=ITEMS, good_only=True,
    )  # fmt: skip
    losses, reports = {}, {}
    for epochs in (0, 5):
        out = tmp_path / f"{epochs}"
        reports[epochs] = train(
            job_of(artifacts, fresh_epochs=epochs, **one), out_dir=out, scratch=tmp_path / "scratch"
        )
        model, _ = load_model(out, expected_tokenizer_version=None)
        with torch.no_grad():
            losses[epochs] = float(
                next_token_loss(model, valid.history, valid.targets, catalogue().codes.long())
            )
    assert losses[5] < losses[0] - 0.1
    assert reports[0].history == reports[5].history  # the epoch was chosen before
    assert reports[0].newest_history == []
    assert [entry["epoch"] for entry in reports[5].newest_history] == [1, 2, 3, 4, 5]
    summary = json.loads((tmp_path / "5" / "history.json").read_text())["summary"]
    sequences = load_user_sequences(artifacts / "session_dataset", catalogue(), splits=LEARNED)
    watched = int((sequences.day == sequences.day[~np.isnat(sequences.day)].max()).sum())
    assert 0 < summary["newest_sessions"] < watched  # of the last day alone


def last_day_of(artifacts: Path) -> date:
    sequences = load_user_sequences(artifacts / "session_dataset", catalogue(), splits=LEARNED)
    return sequences.day[~np.isnat(sequences.day)].max().astype(date)


def test_the_next_night_learns_the_days_since_its_checkpoint(
    artifacts: Path, tmp_path: Path
) -> None:
    job, day, learned = job_of(artifacts, max_epochs=1, fresh_days=1), last_day_of(artifacts), {}
    first = train(job, out_dir=tmp_path / "old", scratch=tmp_path / "old.scratch")
    assert first.recency_ndcg.users
    assert not first.recency_ndcg.as_served, "by a model that did not serve"
    old, _ = load_model(tmp_path / "old", expected_tokenizer_version="a-version")
    for since in (day, day - timedelta(days=5)):
        out = tmp_path / str(since)
        report = train(
            job.starting_from(tmp_path / "old", since), out_dir=out, scratch=tmp_path / f"{since}.s"
        )
        learned[since] = read_json(out / "history.json")["summary"]["newest_sessions"]
        assert (report.history, report.best_epoch, report.stopped_early) == ([], 0, False)
        assert len(report.newest_history) == job.training.fresh_epochs
        assert report.recency_ndcg.as_served
        new, _ = load_model(out, expected_tokenizer_version="a-version")
        assert not torch.equal(new.sid_embedding.weight, old.sid_embedding.weight)
        valid = load_session_tensors(
            artifacts / "session_dataset", "valid", catalogue(),
            history_length=HISTORY, session_items=ITEMS, good_only=True,
        )  # fmt: skip
        with torch.no_grad():
            loss = next_token_loss(old, valid.history, valid.targets, catalogue().codes.long())
        assert report.best_valid_loss == pytest.approx(float(loss), rel=1e-4)
    assert 0 < learned[day] < learned[day - timedelta(days=5)]
    again = dataclasses.replace(job, training=dataclasses.replace(job.training, warm_epochs=2))
    again = again.starting_from(tmp_path / "old", day)
    report = train(again, out_dir=tmp_path / "2", scratch=tmp_path / "2.scratch")
    assert (len(report.history), report.stopped_early) == (2, False)
    assert not report.recency_ndcg.as_served
    unknown = job.starting_from(tmp_path / "old")
    report = train(unknown, out_dir=tmp_path / "3", scratch=tmp_path / "3.scratch")
    assert len(report.history) == 1, "nobody knows what the checkpoint has not learned"


@pytest.mark.parametrize("starts", ["cold", "warm"])
@pytest.mark.parametrize("phase", ["newest_days_before", "newest_days"])
def test_interrupted_among_the_newest_days_ends_in_the_same_bytes(
    artifacts: Path, tmp_path: Path, phase: str, starts: str
) -> None:
    job = job_of(artifacts, max_epochs=1, fresh_epochs=3)
    if starts == "warm":
        train(job, out_dir=tmp_path / "old", scratch=tmp_path / "old.scratch")
        since = last_day_of(artifacts) - timedelta(days=5)
        job = job.starting_from(tmp_path / "old", since)

    def stop(progress: TrainingProgress) -> None:
        at = tmp_path / "scratch" / phase / RESUME
        if (progress.max_epochs, progress.epoch) == (3, 2) and at.exists():
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        train(job, out_dir=tmp_path / "cut", scratch=tmp_path / "scratch", on_progress=stop)
    assert not (tmp_path / "cut").exists()
    train(job, out_dir=tmp_path / "cut", scratch=tmp_path / "scratch")
    train(job, out_dir=tmp_path / "whole", scratch=tmp_path / "other")
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


def test_the_test_day_is_not_learned(tmp_path: Path) -> None:
    found = []
    for name in ("with", "without"):
        directory = tmp_path / name
        write_patterned_dataset(directory / "session_dataset", train=100, valid=30)
        (directory / "semantic_ids").mkdir()
        catalogue().save(directory / "semantic_ids")
        if name == "with":  # the validation day again, as the test day's
            split = directory / "session_dataset" / "split=test"
            copied = pq.read_table(directory / "session_dataset" / "split=valid")
            split.mkdir(exist_ok=True)
            for file in split.iterdir():
                file.unlink()
            pq.write_table(copied.drop_columns(["split"]), split / "part-00000.parquet")
        train(job_of(directory, max_epochs=1), out_dir=directory / "out", scratch=directory / "s")
        found.append(hashes(directory / "out"))
    assert found[0] == found[1]
