"""A generator that learns who its users are, from the session dataset to served lists."""

import dataclasses
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from onerec.config import BeamConfig, SettingError
from onerec.model import UserHistories, load_model, read_config
from onerec.serving.batch import Lists, recommend_to_all
from onerec.serving.bundle import load_bundle
from onerec.serving.recommender import write_bundle
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.session_dataset.histories import load_serving_histories
from onerec.session_dataset.user_attributes import write_user_attributes
from onerec.training.batches import SessionRows
from onerec.training.distributed_batches import BatchShare
from onerec.training.job import TrainingJob, known_values, train, why_not_start_from
from onerec.training.runtime import Runtime
from tests.core.training.small import (
    HISTORY,
    ITEMS,
    MODEL,
    TRAINING,
    catalogue,
    patterned_sessions,
    write_patterned_dataset,
)

EVEN, ODD = ["i0", "i1", "i2"], ["i30", "i31", "i32"]
USERS = [{"user_id": f"u{n}", "group": ("even", "odd")[n % 2], "plan": "free"} for n in range(50)]


def by_group(num: int, seed: int) -> SessionTensors:
    """Users of odd numbers watch other items than the others, whatever they watched before."""
    sessions = patterned_sessions(num, seed)
    odd = torch.arange(num).unsqueeze(1) % 2  # session n is of user n % 50
    targets = (30 * odd + torch.arange(ITEMS)).int()
    return dataclasses.replace(sessions, targets=targets)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("artifacts")
    dataset = directory / "session_dataset"
    write_patterned_dataset(dataset, train=400, valid=100, sessions=by_group)
    write_user_attributes(pa.Table.from_pylist(USERS), dataset)
    (directory / "semantic_ids").mkdir()
    catalogue().save(directory / "semantic_ids")
    return directory


def job_of(artifacts: Path, **model: Any) -> TrainingJob:
    return TrainingJob(
        session_dataset=artifacts / "session_dataset",
        semantic_ids=artifacts / "semantic_ids",
        history_length=HISTORY,
        session_items=ITEMS,
        model=dataclasses.replace(MODEL, **model),
        training=dataclasses.replace(TRAINING, max_epochs=6, fresh_epochs=1),
        runtime=Runtime(accelerator="cpu", threads=1),
    )


@pytest.fixture(scope="module")
def checkpoint(artifacts: Path) -> Path:
    out = artifacts / "checkpoint"
    train(job_of(artifacts), out_dir=out, scratch=artifacts / "scratch")
    return out


@pytest.fixture(scope="module")
def bundle(artifacts: Path, checkpoint: Path) -> Path:
    ids = artifacts / "semantic_ids"
    write_bundle(
        artifacts / "bundle",
        checkpoint=checkpoint,
        semantic_ids=ids,
        config=BeamConfig(beam=8, batch_size=16, filter_seen=False),
    )
    return artifacts / "bundle"


def test_what_users_are_decides_what_they_get(bundle: Path) -> None:
    recommender = load_bundle(bundle)
    history = ["i5", "i40"]
    for group, wanted in (("even", EVEN), ("odd", ODD)):
        found = recommender.recommend(history, 1, user={"group": group, "plan": "free"})
        assert found[0].item_id in wanted
        assert found[0].score > np.log(0.5 / ITEMS)  # a model without groups gives each group half
    spaces = (recommender.recommend(history, 6, user={"group": g}) for g in ("odd", " odd "))
    assert next(spaces) == next(spaces)  # as in the table
    unknown, new, alone = (
        recommender.recommend(history, 6, user=user) for user in (None, {"group": "new"}, {})
    )
    assert unknown == new == alone
    assert {r.item_id for r in unknown} & set(EVEN)  # of either group, learned from forgotten users
    assert {r.item_id for r in unknown} & set(ODD)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
def test_known_users_are_learned_in_any_precision(
    artifacts: Path, tmp_path: Path, precision: Any
) -> None:
    job = job_of(artifacts)
    runtime = dataclasses.replace(job.runtime, precision=precision)
    training = dataclasses.replace(job.training, max_epochs=1)
    job = dataclasses.replace(job, runtime=runtime, training=training)
    train(job, out_dir=tmp_path / "checkpoint", scratch=tmp_path / "scratch")
    weights = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float32}
    assert weights["users.embedding.weight"].any()


def test_served_lists_are_those_of_a_single_request(artifacts: Path, bundle: Path) -> None:
    wanted = Lists(date(2026, 6, 4), "v", 5)
    table = recommend_to_all(bundle, artifacts / "session_dataset", wanted).to_pandas()
    first = table[table["rank"] == 1].set_index("user_id")["item_id"]
    assert all(first[f"u{n}"] in (ODD if n % 2 else EVEN) for n in range(50))
    recommender = load_bundle(bundle)
    users, histories = load_serving_histories(
        artifacts / "session_dataset", catalogue(), history_length=HISTORY
    )
    for row in (0, 17, 18):
        known = next(dict(u) for u in USERS if u["user_id"] == users[row])
        del known["user_id"]
        history = [f"i{i}" for i in histories[row].tolist() if i >= 0]
        found = recommender.recommend(history, 5, user=known)
        mine = table[table["user_id"] == users[row]]
        assert [r.item_id for r in found] == mine["item_id"].tolist()
        assert [r.score for r in found] == pytest.approx(mine["score"].tolist(), abs=1e-9)


def test_names_that_were_not_learned_are_refused(bundle: Path) -> None:
    recommender = load_bundle(bundle)
    known = "the model knows these attributes: group, plan"
    with pytest.raises(SettingError, match=f"user='grupp': {known}"):
        recommender.recommend(["i1"], user={"grupp": "odd"})
    with pytest.raises(SettingError, match=r"user\.group=34: use a text .* '34' say, or None"):
        recommender.recommend(["i1"], user={"group": 34})  # pyright: ignore
    with pytest.raises(SettingError, match="users=1: name all 2 or none"):
        recommender.recommend_batch([["i1"], ["i2"]], users=[{}])


def test_the_setting_and_a_log_without_attributes_leave_no_trace(
    artifacts: Path, tmp_path: Path
) -> None:
    off = dataclasses.replace(job_of(artifacts, user_features=False), training=short())
    write_patterned_dataset(tmp_path / "plain", train=400, valid=100, sessions=by_group)
    plain = dataclasses.replace(
        job_of(artifacts), session_dataset=tmp_path / "plain", training=short()
    )
    weights = []
    for name, job in (("off", off), ("without", plain)):
        train(job, out_dir=tmp_path / name, scratch=tmp_path / f"{name}.scratch")
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
        assert read_config(tmp_path / name)["user_attributes"] == {}
    assert weights[0] == weights[1]
    write_bundle(tmp_path / "bundle", checkpoint=tmp_path / "off", semantic_ids=off.semantic_ids)
    recommender = load_bundle(tmp_path / "bundle")
    anybody = recommender.recommend(["i1"])
    assert recommender.recommend(["i1"], user={"group": "odd"}) == anybody  # it takes any
    assert load_model(tmp_path / "off", expected_tokenizer_version=None)[0].users is None


def test_a_table_of_ids_alone_is_no_attribute(artifacts: Path, tmp_path: Path) -> None:
    job = changed_users(artifacts, tmp_path, [{"user_id": r["user_id"]} for r in USERS])
    train(job, out_dir=tmp_path / "out", scratch=tmp_path / "scratch")
    assert read_config(tmp_path / "out")["user_attributes"] == {}


def short(**changes: Any):
    return dataclasses.replace(TRAINING, max_epochs=1, fresh_epochs=0, **changes)


def changed_users(artifacts: Path, tmp_path: Path, users: list[dict[str, Any]]) -> TrainingJob:
    dataset = tmp_path / "session_dataset"
    write_patterned_dataset(dataset, train=100, valid=50, sessions=by_group)
    write_user_attributes(pa.Table.from_pylist(users), dataset)
    return dataclasses.replace(
        job_of(artifacts), session_dataset=dataset, training=short(learning_rate=1e-12)
    )


def test_a_warm_start_keeps_its_values(artifacts: Path, checkpoint: Path, tmp_path: Path) -> None:
    users = [{**row, "group": "new" if row["group"] == "odd" else "even"} for row in USERS]
    job = changed_users(artifacts, tmp_path, users)
    assert why_not_start_from(checkpoint, job) is None
    out = tmp_path / "out"
    train(job.starting_from(checkpoint), out_dir=out, scratch=tmp_path / "scratch")
    known = {"group": ["even", "odd"], "plan": ["free"]}
    assert (
        read_config(out)["user_attributes"] == read_config(checkpoint)["user_attributes"] == known
    )
    model, before = (load_model(d, expected_tokenizer_version=None)[0] for d in (out, checkpoint))
    assert model.users is not None
    assert before.users is not None
    torch.testing.assert_close(model.users.embedding.weight, before.users.embedding.weight)
    assert model.users.vocabulary.codes(pa.table({"group": ["new"]}), 1).tolist() == [[0, 0]]
    assert known_values(out, artifacts / "session_dataset") == {"group": 1.0, "plan": 1.0}
    assert known_values(out, job.session_dataset) == {"group": 0.5, "plan": 1.0}


@pytest.mark.parametrize(
    ("keep", "found"),
    [(["group"], "('group',)"), (["group", "plan", "city"], "'city'"), ([], "()")],
)
def test_other_attributes_refuse_a_warm_start(
    artifacts: Path, checkpoint: Path, tmp_path: Path, keep: list[str], found: str
) -> None:
    users = [{"user_id": r["user_id"], **{n: r.get(n, "x") for n in keep}} for r in USERS]
    why = why_not_start_from(checkpoint, changed_users(artifacts, tmp_path, users)) or ""
    assert why.startswith("the last checkpoint has attributes of users=('group', 'plan'), this")
    assert found in why
    off = job_of(artifacts, user_features=False)
    with pytest.raises(SettingError, match=r"model\.user_features=False: .* warm_start=false"):
        train(off.starting_from(checkpoint), out_dir=tmp_path / "o", scratch=tmp_path / "s")
    assert "user_features=True, this training False" in (why_not_start_from(checkpoint, off) or "")


def test_batches_hold_the_codes_of_their_users(checkpoint: Path) -> None:
    model, _ = load_model(checkpoint, expected_tokenizer_version=None)
    attributes = pa.table({"group": ["odd", None, "even"], "plan": ["free", "free", None]})
    sessions = dataclasses.replace(
        by_group(4, 0),
        user=torch.tensor([2, 0, 1, 0]),
        user_ids=np.array(["a", "b", "c"], dtype=object),
        attributes=attributes,
    )
    every, batch = torch.arange(4), SessionRows.of(model, sessions)
    history, targets, _ = batch[BatchShare(rows=torch.tensor([3, 0]), batch=every, shares=2)]
    assert isinstance(history, UserHistories)
    assert history.users.tolist() == [[2, 1], [1, 0]]  # even is 1, odd 2
    assert torch.equal(targets, sessions.targets[[3, 0]])
    nobody, _, weight = batch[BatchShare(rows=every[:0], batch=every, shares=2)]
    assert isinstance(nobody, UserHistories)
    assert (nobody.items.tolist(), nobody.users.tolist(), float(weight)) == ([[-1]], [[0, 0]], 0.0)
