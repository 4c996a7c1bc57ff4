"""Variants of a small night: what is reused, what is made, shared and measured."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments.nightly_artifacts import chosen_day, published_night
from experiments.variants.steps import PRETRAINED, Variant
from experiments.variants.train_variant import Workbench, run_variant
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
def bench(store: ArtifactStore, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    night = published_night(store, small.DAY)
    return Workbench(night, tmp_path_factory.mktemp("work"), runtime=small.RUNTIME)


def values_of(out_dir: Path, metric: str) -> np.ndarray:
    return read_case_metrics(out_dir, system="variant", metric=metric).column("value").to_numpy()


def made_steps(out_dir: Path) -> list[str]:
    return [step["step"] for step in read_json(out_dir / "plan.json") if step["made"]]


def test_the_settings_of_a_night_are_those_of_its_manifests(store: ArtifactStore):
    base = published_night(store, small.DAY).base
    assert chosen_day(store) == small.DAY
    assert (base.model, base.sessions) == (SHAPE, small.SESSIONS)
    assert base.training == dataclasses.replace(small.TRAINING, warm_start=False), "it was not"
    assert (base.tokenizer, base.decoding) == (small.TOKENIZER, small.DECODING)
    assert base.alignment == small.ALIGNMENT
    assert base.evaluation == EVALUATION


def test_a_night_without_all_artifacts_is_no_night(tmp_path: Path):
    with pytest.raises(ArtifactError, match="weekly_retokenize"):
        chosen_day(ArtifactStore(str(tmp_path)))


def test_the_day_is_the_latest_that_has_everything_or_the_one_asked_for():
    class Store:
        def partitions(self, name: str) -> list[str]:
            return {"a": ["2026-06-12", "2026-06-13", "2026-06-14"]}.get(name, days)

    days = ["2026-06-12", "2026-06-13"]
    assert chosen_day(Store(), names=("a", "b")) == "2026-06-13"  # pyright: ignore
    assert chosen_day(Store(), "2026-06-12", ("a", "b")) == "2026-06-12"  # pyright: ignore
    with pytest.raises(ArtifactError, match=r"day='2026-06-14'.*2026-06-12, 2026-06-13"):
        chosen_day(Store(), "2026-06-14", ("a", "b"))  # pyright: ignore


def test_the_night_itself_is_only_measured(bench: Workbench, tmp_path: Path):
    report = run_variant(bench, Variant(name="as it is"), tmp_path)
    assert (report.seconds, report.earliest) == (0.0, None)
    assert made_steps(tmp_path) == []
    metrics = MetricTable.load(tmp_path)
    recall = values_of(tmp_path, "recall@10").mean()
    assert metrics.find("variant", "recall@10").mean == pytest.approx(recall)
    assert metrics.find("variant", "legal_share").mean == 1.0
    assert read_json(tmp_path / "facts.json")["alignment_kl_to_start"] == 0.5
    assert not list(bench.work.glob("pretraining*"))


def test_methods_share_what_they_agree_in_and_can_be_compared(bench: Workbench, tmp_path: Path):
    def method(name: str) -> Variant:
        changes = {"alignment": {"method": name, "gate_cases": 5}}
        return Variant(name=name, overrides=changes, seed=1)

    assert run_variant(bench, method("ipa"), tmp_path / "ipa").earliest == "pretraining"
    run_variant(bench, method("ipo"), tmp_path / "ipo")
    assert made_steps(tmp_path / "ipa") == ["pretraining", "pairs_1", "alignment_1"]
    found = {kind: len(list(bench.work.glob(f"{kind}-*"))) for kind in ("pretraining", "pairs")}
    assert found == {"pretraining": 1, "pairs": 1}
    assert len(list(bench.work.glob("alignment-*"))) == 2
    assert all((d / "round.json").exists() for d in bench.work.glob("alignment-*"))
    asked = [EvaluationProtocol.load(tmp_path / name) for name in ("ipa", "ipo")]
    assert asked[0] == asked[1]


def test_the_same_variant_gives_the_same_bytes(bench: Workbench, tmp_path: Path, store):
    variant = Variant(
        name="points", overrides={"sessions": {"session_items": 1}}, measured=PRETRAINED
    )
    again = Workbench(bench.published, tmp_path / "work", runtime=small.RUNTIME)
    for place, where in ((bench, "a"), (again, "b")):
        run_variant(place, variant, tmp_path / where)
    for name in (METRICS_FILE, CASES_FILE, "protocol.json", "facts.json", "plan.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert made_steps(tmp_path / "a") == ["sessions", "pretraining"]
    rewards = values_of(tmp_path / "a", "evaluator_reward")
    assert np.isfinite(rewards).any(), "its list counts as one session"


def test_other_tokens_keep_rows_and_questions(bench: Workbench, tmp_path: Path):
    variant = Variant(
        name="kmeans", overrides={"tokenizer": {"method": "kmeans"}}, measured=PRETRAINED
    )
    run_variant(bench, variant, tmp_path)
    (tokens,) = bench.work.glob("tokens-*")
    ours, theirs = load_semantic_ids(tokens), bench.data.semantic_ids
    assert (ours.item_ids == theirs.item_ids).all()
    assert ours.tokenizer_version != theirs.tokenizer_version
    assert ours.num_invalid() == 0
    protocol = read_json(tmp_path / "protocol.json")
    run_variant(bench, Variant(name="x", measured=PRETRAINED), tmp_path / "default")
    default = read_json(tmp_path / "default" / "protocol.json")
    assert {k for k in protocol if protocol[k] != default[k]} == {"tokenizer_version"}


def test_a_second_elite_iteration_learns_from_generated_sessions(bench: Workbench, tmp_path: Path):
    variant = Variant(name="again", measured=PRETRAINED, elite_iterations=1, elite_share=0.5)
    report = run_variant(bench, variant, tmp_path)
    assert report.earliest == "elite_1"
    (elite,) = bench.work.glob("elite-*")
    contexts = 30  # one of each user; half of 4 candidates are elite
    assert (elite / "model.safetensors").exists()
    assert read_json(tmp_path / "facts.json")["train_sessions"] == contexts * 2


def test_a_killed_step_leaves_nothing_behind(bench: Workbench, tmp_path: Path, monkeypatch):
    place = Workbench(bench.published, tmp_path / "work", runtime=small.RUNTIME)

    def dies(*_: object, out_dir: Path, **__: object) -> None:
        (out_dir / "half").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.variants.train_variant.train", dies)
    variant = Variant(name="x", seed=3, measured=PRETRAINED)
    with pytest.raises(KeyboardInterrupt):
        run_variant(place, variant, tmp_path / "out")
    assert list(place.work.iterdir()) == []
