"""Variants of a small night: what is reused, what is made again, and that it is measured alike."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments.nightly_artifacts import PublishedNightlyRun, latest_day, latest_night
from experiments.variants.evaluation import evaluate_variant
from experiments.variants.training import (
    VariantFiles,
    VariantRun,
    align_variant,
    pretrain_variant,
)
from experiments.variants.variant import Variant
from onerec.artifacts import ArtifactError, ArtifactStore, read_json
from onerec.evaluation.metric_table import (
    CASES_FILE,
    METRICS_FILE,
    MetricTable,
    read_case_metrics,
)
from onerec.evaluation.protocol import EvaluationProtocol
from onerec.tokenizer.semantic_ids import load_semantic_ids
from tests.core.evaluation.night import EVALUATION, SHAPE
from tests.experiments import published_night as small


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return small.publish_night(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def night(store: ArtifactStore) -> PublishedNightlyRun:
    return latest_night(store)


def values_of(out_dir: Path, metric: str) -> np.ndarray:
    return read_case_metrics(out_dir, system="variant", metric=metric).column("value").to_numpy()


def a_run(night: PublishedNightlyRun, seed: int = 0, **changes) -> VariantRun:
    variant = Variant(**changes)
    return VariantRun(
        night=night,
        variant=variant,
        settings=variant.settings(night.base, seed),
        runtime=small.RUNTIME,
    )


@pytest.fixture(scope="module")
def default(night: PublishedNightlyRun, tmp_path_factory: pytest.TempPathFactory) -> VariantFiles:
    root = tmp_path_factory.mktemp("default")
    return pretrain_variant(a_run(night), root / "out", root / "scratch")


def test_the_settings_of_a_night_are_those_of_its_manifests(night: PublishedNightlyRun):
    base = night.base
    assert night.test_day.isoformat() == small.DAY
    assert (base.model, base.sessions) == (SHAPE, small.SESSIONS)
    assert base.training == dataclasses.replace(small.TRAINING, warm_start=False), "it was not"
    assert (base.tokenizer, base.decoding) == (small.TOKENIZER, small.DECODING)
    assert base.alignment == small.ALIGNMENT
    assert base.evaluation == EVALUATION
    assert "offline_metrics" not in night.versions


def test_the_latest_day_is_the_last_one_that_has_everything(tmp_path: Path):
    class Store:
        def partitions(self, name: str) -> list[str]:
            return {"a": ["2026-06-12", "2026-06-13", "2026-06-14"]}.get(name, days)

    days = ["2026-06-12", "2026-06-13"]
    assert latest_day(Store(), ("a", "b")) == "2026-06-13"  # pyright: ignore
    with pytest.raises(ArtifactError, match="weekly_retokenize"):
        latest_night(ArtifactStore(str(tmp_path)))


def test_nothing_changed_is_a_copy_of_the_nights_checkpoint(
    night: PublishedNightlyRun, default: VariantFiles, tmp_path: Path
):
    name = "model.safetensors"
    own = night.files["pretrained_checkpoint"]
    assert (default.checkpoint / name).read_bytes() == (own / name).read_bytes()
    assert not (default.checkpoint / "manifest.json").exists()
    assert default.semantic_ids == night.files["semantic_ids"]
    headline = evaluate_variant(a_run(night), default, tmp_path)
    metrics = MetricTable.load(tmp_path)
    recall = values_of(tmp_path, "recall@10").mean()
    assert metrics.find("variant", "recall@10").mean == pytest.approx(recall)
    assert headline["recall@10"] == pytest.approx(recall)
    assert metrics.find("variant", "legal_share").mean == 1.0


def test_shorter_targets_are_trained_on_and_measured_by_their_lists(
    night: PublishedNightlyRun, tmp_path: Path
):
    run = a_run(night, overrides={"sessions": {"session_items": 1}})
    for name in ("a", "b"):
        files = pretrain_variant(run, tmp_path / name, tmp_path / f"scratch-{name}")
        evaluate_variant(run, files, tmp_path / name)
    assert (tmp_path / "a" / "session_dataset" / "split=train").exists()
    for name in (METRICS_FILE, CASES_FILE, "protocol.json", "facts.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    rewards = values_of(tmp_path / "a", "evaluator_reward")
    assert np.isfinite(rewards).any(), "a list counts as one session"


def test_other_tokens_keep_rows_and_cases(
    night: PublishedNightlyRun, default: VariantFiles, tmp_path: Path
):
    run = a_run(night, overrides={"tokenizer": {"method": "kmeans"}})
    files = pretrain_variant(run, tmp_path, tmp_path / "scratch")
    ours, theirs = (load_semantic_ids(f.semantic_ids) for f in (files, default))
    assert (ours.item_ids == theirs.item_ids).all()
    assert ours.tokenizer_version != theirs.tokenizer_version
    assert ours.num_invalid() == 0
    evaluate_variant(run, files, tmp_path)
    evaluate_variant(a_run(night), default, default.checkpoint)
    protocol, same = (
        dataclasses.asdict(EvaluationProtocol.load(f.checkpoint)) for f in (files, default)
    )
    assert {k for k in protocol if protocol[k] != same[k]} == {"tokenizer_version"}


def test_methods_start_from_the_same_weights_and_end_elsewhere(
    night: PublishedNightlyRun, default: VariantFiles, tmp_path: Path
):
    weights = {}
    for method in ("ipa", "ipo"):
        (tmp_path / method).mkdir()
        run = a_run(night, overrides={"alignment": {"method": method}})
        files = align_variant(run, default, tmp_path / method)
        evaluate_variant(run, files, tmp_path / method)
        assert "alignment_kl_to_start" in read_json(tmp_path / method / "facts.json")
        weights[method] = (tmp_path / method / "model.safetensors").read_bytes()
    assert weights["ipa"] != weights["ipo"]


def test_a_second_round_starts_from_the_first(
    night: PublishedNightlyRun, default: VariantFiles, tmp_path: Path
):
    trained = {}
    for rounds in (1, 2):
        out = tmp_path / str(rounds)
        out.mkdir()
        run = a_run(night, overrides={"alignment": {"rounds": rounds}})
        align_variant(run, default, out)
        trained[rounds] = (out / "model.safetensors").read_bytes()
    assert trained[1] != trained[2]
    assert {file.name for file in (tmp_path / "2").iterdir()} == {
        file.name for file in (tmp_path / "1").iterdir()
    }, "nothing of the rounds before is left"


def test_a_share_of_the_sessions_is_a_number_of_users(
    night: PublishedNightlyRun, default: VariantFiles, tmp_path: Path
):
    run = a_run(night, sample_share=0.05)
    align_variant(run, default, tmp_path)
    assert read_json(tmp_path / "history.json")["epochs"]


def test_elite_sessions_are_learned_from(
    night: PublishedNightlyRun, default: VariantFiles, tmp_path: Path
):
    run = a_run(night, elite_share=0.5)
    files = align_variant(run, default, tmp_path)
    evaluate_variant(run, files, tmp_path)
    contexts = 30  # one of each user; half of 4 candidates are elite
    assert read_json(tmp_path / "facts.json")["train_sessions"] == contexts * 2


def test_elite_sessions_are_learned_beside_a_dense_head(night: PublishedNightlyRun, tmp_path: Path):
    head = {"model": {"dense_head": True, "dense_encoder_layers": 1}}
    start = pretrain_variant(a_run(night, overrides=head), tmp_path / "start", tmp_path / "scratch")
    (tmp_path / "elite").mkdir()
    align_variant(a_run(night, overrides=head, elite_share=0.5), start, tmp_path / "elite")
    measured = read_json(tmp_path / "elite" / "history.json")["summary"]["dense_ndcg"]
    assert measured["users"] > 0, "held-out users choose its share"
