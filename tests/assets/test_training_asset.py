"""The asset `pretrained_checkpoint` over a real store with small artifacts."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.nights_before import NightsBefore, as_metadata
from assets.training import (
    CHECKPOINT,
    PretrainLaunchpad,
    list_weights,
    pretrained_checkpoint,
    pretrained_checkpoint_checks,
)
from onerec.artifacts import Artifact, ArtifactStore, read_json, write_json
from onerec.config import ModelConfig, SessionConfig, TrainingConfig
from onerec.evaluation.ndcg_by_weight import NdcgByWeight
from onerec.evaluation.recency import PRIOR_WEIGHTS
from onerec.model import read_config
from onerec.training import read_report
from resources.stores import Artifacts, Compute
from tests.core.training.small import (
    HISTORY,
    ITEMS,
    MODEL,
    TRAINING,
    catalogue,
    write_patterned_dataset,
)

DAYS = ("2026-06-03", "2026-06-04")
"""Of both the patterned sessions validate on 2026-06-03."""
SESSIONS = asdict(SessionConfig(history_length=HISTORY, session_items=ITEMS))
SETTINGS: dict[str, Any] = {
    "model": asdict(MODEL),
    "training": asdict(replace(TRAINING, max_epochs=2)),
}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    store = ArtifactStore(str(tmp_path))
    for day in DAYS:
        publish_sessions(store, day, SESSIONS, valid=40)
        with store.write("semantic_ids", day, config={}, upstream={}, code_version="1") as draft:
            catalogue().save(draft.path)
    return store


def publish_sessions(store: ArtifactStore, day: str, sessions: dict[str, Any], valid: int) -> None:
    with store.write(
        "session_dataset", day, config={"sessions": sessions}, upstream={}, code_version="1"
    ) as draft:
        write_patterned_dataset(draft.path, train=200, valid=valid)


def run(
    store: ArtifactStore,
    day: str = DAYS[1],
    settings: dict[str, Any] = SETTINGS,
    *,
    raise_on_error: bool = True,
    devices: int = 1,
    nodes: int = 1,
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [pretrained_checkpoint, pretrained_checkpoint_checks],
        partition_key=day,
        run_config={"ops": {CHECKPOINT: {"config": settings}}},
        resources={
            "artifacts": Artifacts(url=store.root),
            "compute": Compute(accelerator="cpu", threads=1, devices=devices, num_nodes=nodes),
        },
        raise_on_error=raise_on_error,
    )


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(CHECKPOINT)
    return {name: value.value for name, value in event.metadata.items()}


def test_publishes_a_checkpoint_with_its_lineage(store: ArtifactStore) -> None:
    result = run(store)
    artifact = store.latest(CHECKPOINT, DAYS[1]).verify()
    assert sorted(artifact.manifest["files"]) == [
        "config.json",
        "history.json",
        "model.safetensors",
    ]
    assert artifact.manifest["upstream"] == {
        name: store.latest(name, DAYS[1]).version for name in ("session_dataset", "semantic_ids")
    }
    assert artifact.manifest["config"] == SETTINGS
    config = read_json(artifact.path / "config.json")
    assert (config["history_length"], config["session_items"]) == (HISTORY, ITEMS)
    metadata = metadata_of(result)
    assert metadata["loss curve"].startswith("![")
    assert metadata["starts from"] == "there is no earlier checkpoint"
    assert metadata["validation loss"] < metadata["loss of a uniform guess"]
    assert {e.check_name: e.passed for e in result.get_asset_check_evaluations()} == {
        "loss_is_finite": True,
        "beats_a_uniform_guess": True,
    }
    assert list((Path(store.root) / ".scratch").rglob("*.ckpt")) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*run_id.*:DeprecationWarning")  # Dagster's own Pipes client
def test_two_devices_are_two_processes(store: ArtifactStore) -> None:
    """The asset hands the job to the launcher; its result is that of one process."""
    exactly = SETTINGS | {"model": SETTINGS["model"] | {"dropout": 0.0}}
    one = metadata_of(run(store, settings=exactly))
    result = run(store, settings=exactly, devices=2)
    two = metadata_of(result)
    assert two["validation loss"] == pytest.approx(one["validation loss"], rel=1e-4)
    assert two["epochs"] == one["epochs"] == 2
    assert "tokens/s" not in two
    artifact = store.latest(CHECKPOINT, DAYS[1]).verify()
    assert sorted(artifact.manifest["files"]) == [
        "config.json",
        "history.json",
        "model.safetensors",
    ]
    assert not list((Path(store.root) / ".scratch").rglob("*.*"))


def test_the_same_night_again_is_the_same_version(store: ArtifactStore) -> None:
    run(store)
    first = store.latest(CHECKPOINT, DAYS[1])
    run(store)
    assert store.latest(CHECKPOINT, DAYS[1]).version == first.version


def starts_from(store: ArtifactStore, settings: dict[str, Any] = SETTINGS) -> tuple[str, Artifact]:
    metadata = metadata_of(run(store, DAYS[1], settings))
    return metadata["starts from"], store.latest(CHECKPOINT, DAYS[1])


def test_starts_from_the_night_before(store: ArtifactStore) -> None:
    run(store, DAYS[0])
    told, artifact = starts_from(store)
    assert told == f"{CHECKPOINT}[{DAYS[0]}]"
    assert artifact.manifest["upstream"][CHECKPOINT] == store.latest(CHECKPOINT, DAYS[0]).version

    told, artifact = starts_from(
        store, SETTINGS | {"training": SETTINGS["training"] | {"warm_start": False}}
    )
    assert told == "warm_start is off"
    assert CHECKPOINT not in artifact.manifest["upstream"]

    told, _ = starts_from(store, SETTINGS | {"model": SETTINGS["model"] | {"d_ff": 32}})
    assert told == "the last checkpoint has d_ff=24, this training 32"

    with store.write("semantic_ids", DAYS[1], config={}, upstream={}, code_version="1") as draft:
        replace(catalogue(), tokenizer_version="a-new-one").save(draft.path)
    told, artifact = starts_from(store)
    assert told.startswith("the last checkpoint has tokenizer_version='a-version'")
    assert read_json(artifact.path / "config.json")["tokenizer_version"] == "a-new-one"


def test_does_not_start_from_a_model_that_has_learned_the_validation_day(
    store: ArtifactStore,
) -> None:
    """A day without sessions: the nightly run before has the same validation day."""
    run(store, DAYS[0])
    later = "2026-06-05"
    publish_sessions(store, later, SESSIONS, valid=40)
    with store.write("semantic_ids", later, config={}, upstream={}, code_version="1") as draft:
        catalogue().save(draft.path)
    run(store, DAYS[1])
    assert metadata_of(run(store, later))["starts from"] == f"{CHECKPOINT}[{DAYS[0]}]"


def weight_and_artifact(
    store: ArtifactStore, settings: dict[str, Any]
) -> tuple[float, Artifact, dict[str, Any]]:
    """The weight of the recency prior in a checkpoint, its artifact and its metadata."""
    metadata = metadata_of(run(store, DAYS[1], settings))
    artifact = store.latest(CHECKPOINT, DAYS[1])
    return read_config(artifact.path)["recency_prior"]["weight"], artifact, metadata


def measured_by(
    store: ArtifactStore,
    day: str,
    best: float,
    settings: dict[str, Any],
    sessions: dict[str, Any] = SESSIONS,
) -> None:
    """Publish a checkpoint whose validation day found a weight much better than all others."""
    ndcg = {weight: 0.2 if weight == best else 0.1 for weight in PRIOR_WEIGHTS}
    made_of = {"sessions": sessions}
    with store.write("session_dataset", day, config=made_of, upstream={}, code_version="1"):
        pass
    with store.write(CHECKPOINT, day, config=settings, upstream={}, code_version="1") as draft:
        draft.metadata |= as_metadata({"recency": NdcgByWeight(1000, ndcg)})


def test_one_odd_day_of_a_week_does_not_move_the_recency_prior(store: ArtifactStore) -> None:
    training = replace(TRAINING, max_epochs=2, warm_start=False, recency_weight_days=6)
    settings = SETTINGS | {"training": asdict(training)}
    alone, first, metadata = weight_and_artifact(store, settings)
    assert metadata["earlier days that chose the recency prior"] == 0
    usual, odd = [weight for weight in (0.5, 1.0, 1.5) if weight != alone][:2]
    week = ["2026-05-30", "2026-05-31", "2026-06-01", "2026-06-02", "2026-06-03"]
    for day in week:
        measured_by(store, day, odd if day == week[-1] else usual, settings)
    measured_by(store, "2026-05-29", odd, settings)  # too old
    chosen, artifact, metadata = weight_and_artifact(store, settings)
    assert (chosen, metadata["recency prior"]) == (usual, usual)
    assert metadata["earlier days that chose the recency prior"] == 5
    own = first.manifest["metadata"]
    assert own["ndcg_by_weight"]["recency"]["users"] > 0
    assert artifact.manifest["metadata"] == own, "what it measured is of its own day alone"
    read = {k: v for k, v in artifact.manifest["upstream"].items() if k.startswith(CHECKPOINT)}
    assert read == {f"{CHECKPOINT}[{d}]": store.latest(CHECKPOINT, d).version for d in week}

    assert weight_and_artifact(store, settings)[1].version == artifact.version
    for day in week[:3]:  # made again, of corrected days
        measured_by(store, day, odd, settings)
    chosen, again, _ = weight_and_artifact(store, settings)
    assert chosen == odd
    assert again.version != artifact.version

    for day in week:  # other items counted as watched: another question
        measured_by(store, day, odd, settings, SESSIONS | {"watched_min_share": 0.9})
    _, _, metadata = weight_and_artifact(store, settings)
    assert metadata["earlier days that chose the recency prior"] == 0

    others = settings | {"training": asdict(replace(training, seed=1))}
    _, artifact, metadata = weight_and_artifact(store, others)
    assert metadata["earlier days that chose the recency prior"] == 0
    assert len(artifact.manifest["upstream"]) == 2


def test_a_window_without_good_sessions_fails_with_its_thresholds(store: ArtifactStore) -> None:
    sessions = asdict(SessionConfig(history_length=HISTORY, session_items=ITEMS))
    publish_sessions(store, DAYS[1], sessions, valid=0)
    result = run(store, raise_on_error=False)
    assert not result.success
    (failure,) = result.get_step_failure_events()
    cause = failure.step_failure_data.error
    assert cause is not None
    text = str(cause.cause or cause)
    assert "no validation session" in text
    assert '"good_min_watch_seconds": 60.0' in text
    assert store.partitions(CHECKPOINT) == []


@pytest.mark.parametrize("phase", ["learning_rate", "fresh_learning_rate"])
def test_a_checkpoint_no_better_than_a_guess_stops_the_run(
    store: ArtifactStore, phase: str
) -> None:
    steps_too_far = SETTINGS["training"] | {
        phase: 1.0, "schedule": "constant", "warmup_share": 0.0, "max_epochs": 1, "fresh_epochs": 1
    }  # fmt: skip
    result = run(store, settings=SETTINGS | {"training": steps_too_far}, raise_on_error=False)
    assert not result.success
    checks = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert {name: check.passed for name, check in checks.items()} == {
        "loss_is_finite": True,
        "beats_a_uniform_guess": False,
    }
    found = {k: v.value for k, v in checks["beats_a_uniform_guess"].metadata.items()}
    assert (found["validation loss"] > found["log K"]) == (phase == "learning_rate")


@pytest.mark.parametrize("users", [0, 7])
@pytest.mark.parametrize("has_head", [True, False])
def test_the_metadata_say_that_a_dense_head_was_not_trained(
    tmp_path: Path, users: int, has_head: bool
) -> None:
    shape = {"dense_head": has_head, "dense_encoder_layers": 2}
    chosen = {"model": shape, "recency_prior": {"weight": 0.0}, "dense_share": 0.0}
    write_json(tmp_path / "config.json", chosen)
    measured = NdcgByWeight(users, {0.0: 0.1} if users else {}).as_json()
    summary = {"recency_ndcg": measured, "dense_ndcg": measured}
    write_json(tmp_path / "history.json", {"epochs": [], "summary": summary})
    shown = list_weights(read_report(tmp_path), NightsBefore([]), tmp_path)
    assert ("not trained" in shown.get("dense head", "")) == (has_head and not users)


def test_the_launchpad_offers_every_setting() -> None:
    offered = PretrainLaunchpad().model_dump()
    assert offered["model"].keys() == asdict(ModelConfig()).keys()
    assert offered["training"].keys() == asdict(TrainingConfig()).keys()
