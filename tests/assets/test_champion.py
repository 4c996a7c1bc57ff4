"""Who serves: by the rule, by hand, and by which metrics."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from assets import champion as promotion
from assets import evaluation, serving
from onerec.artifacts import ArtifactStore, read_json, write_json
from onerec.config import SIMPLE_SYSTEMS
from onerec.evaluation.metric_table import MetricTable
from onerec.promotion.champion import best_simple_system, pin_champion
from onerec.report.nightly import load_report, text_table
from onerec.serving.current import read_served
from onerec.serving.simple_recommender import write_simple_bundle
from tests.assets.small_night import DAY, resources
from tests.core.evaluation import night as small


def test_an_untrained_challenger_is_refused_and_the_run_succeeds(
    night_home: Path, night_result: dg.ExecuteInProcessResult
) -> None:
    champion = ArtifactStore(str(night_home / "artifacts")).latest("champion", DAY)
    decision = read_json(champion.path / "champion.json")
    assert decision["promoted"] is False
    assert decision["reward_weight"] >= 0
    assert decision["serves"] == "simple system"
    assert decision["model"]["system"] == decision["simple_system"] in SIMPLE_SYSTEMS
    assert "is not significantly above" in decision["reasons"][0]


def decide(home: Path, by_hand: dict[str, str]) -> dict:
    """`champion.json` of the day after a run of the job `decide_champion`."""
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize(
            [promotion.champion, serving.recommendations],
            partition_key=DAY,
            resources=resources(home),
            run_config={"ops": {"champion": {"config": {"by_hand": by_hand}}}},
            instance=instance,
        )
    assert run.success
    champion = ArtifactStore(str(home / "artifacts")).latest("champion", DAY)
    return read_json(champion.path / "champion.json")


def served(home: Path) -> str:
    """Model version that consumers get."""
    found = read_served(home / "serving")
    assert found is not None
    return found.model_version


def test_an_operator_promotes_rolls_back_and_pins(
    night_home: Path, night_result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    shutil.copytree(night_home / "artifacts", tmp_path / "artifacts")
    store = ArtifactStore(str(tmp_path / "artifacts"))
    shutil.rmtree(tmp_path / "artifacts" / "champion")
    dg.materialize(  # without an incumbent
        [evaluation.offline_metrics],
        partition_key=DAY,
        resources={k: v for k, v in resources(tmp_path).items() if k in ("artifacts", "compute")},
    )
    by_rule = decide(tmp_path, {})
    assert by_rule["serves"] == "simple system"

    promoted = decide(tmp_path, {"serve": "challenger", "reason": "the bar was a mistake"})
    assert promoted["model"] == promoted["challenger"]
    assert (promoted["rule_said"], promoted["by_hand"]) == (
        "simple system",
        "the bar was a mistake",
    )
    assert served(tmp_path) == promoted["challenger"]["version"]

    # a simple system of an earlier day is no incumbent, and can be gone back to
    with store.write("champion", "2026-06-12", config={}, upstream={}, code_version="1") as draft:
        write_simple_bundle(
            draft.path,
            system="popularity",
            baselines=store.latest("baselines", DAY).path,
            semantic_ids=store.latest("semantic_ids", DAY).path,
            history_length=5,
            config=small.DECODING,
        )
        model = {"asset": "baselines", "partition": "2026-06-12", "version": "v"}
        decision = {"promoted": False, "model": model | {"system": "popularity"}}
        write_json(draft.path / "champion.json", decision)
    back = decide(tmp_path, {"serve": "2026-06-12", "reason": "complaints"})
    assert back["serves"] == "earlier champion"
    assert served(tmp_path) == "popularity"

    pin_champion(store, store.latest("champion", "2026-06-12"), "a week of calm")
    pinned = decide(tmp_path, {})
    assert (pinned["serves"], pinned["by_hand"]) == ("earlier champion", "pinned: a week of calm")
    assert served(tmp_path) == "popularity"
    pin_champion(store, None, "over")
    assert "by_hand" not in decide(tmp_path, {})


def test_the_pretrained_model_serves_where_aligning_cost_recall(
    night_home: Path, night_result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    """Metrics in which the aligned model is significantly below the pretrained one."""
    shutil.copytree(night_home / "artifacts", tmp_path / "artifacts")
    store = ArtifactStore(str(tmp_path / "artifacts"))
    shutil.rmtree(tmp_path / "artifacts" / "champion")
    measured = store.latest("offline_metrics", DAY)
    metrics = MetricTable.load(measured.path)
    bar = best_simple_system(metrics)
    lists = metrics.find("pretrained", "recall@10").mean
    changed = {
        ("dpo", "pretrained"): (-0.006, -0.010, -0.002),
        ("pretrained", bar): (0.02, 0.01, 0.03),
        ("dpo", bar): (0.014, 0.01, 0.02),  # it would pass the gates, too
    }
    rows = [
        row._replace(**dict(zip(("value", "low", "high"), changed[key], strict=True)))
        if (key := (row.system, row.reference)) in changed and row.metric == "recall@10"
        else row
        for row in metrics.rows
    ]
    upstream = {k: v for k, v in measured.manifest["upstream"].items() if k != "champion"}
    with store.write(
        "offline_metrics",
        DAY,
        config=measured.manifest["config"],
        upstream=upstream,
        code_version="changed",
    ) as draft:
        for name in ("case_metrics.parquet", "protocol.json"):
            shutil.copyfile(measured.path / name, draft.path / name)
        MetricTable(tuple(rows)).save(draft.path)
    decision = decide(tmp_path, {})
    pretrained = store.latest("pretrained_checkpoint", DAY)
    assert (decision["serves"], decision["challenger_system"]) == ("challenger", "pretrained")
    assert decision["model"] == decision["challenger"]
    assert decision["model"]["asset"] == "pretrained_checkpoint"
    assert served(tmp_path) == pretrained.version
    assert f"significantly below the pretrained one's {lists:.4f}" in decision["challenger_reason"]
    assert "-0.0060 [-0.0100, -0.0020]" in decision["challenger_reason"]
    assert decision["reward_weight"] == 0
    bundle = store.latest("champion", DAY).path / "model.safetensors"
    assert bundle.read_bytes() == (pretrained.path / "model.safetensors").read_bytes()
    shown = text_table(load_report(store, DAY, "simulated"))
    assert f"the challenger is {decision['challenger_reason']}" in shown
    assert "challenger (the pretrained generator): promoted" in shown


def test_a_champion_is_not_decided_by_metrics_of_another_incumbent(
    night_home: Path, night_result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    """As when a backfill makes the champion of an earlier day after the metrics of this one."""
    shutil.copytree(night_home / "artifacts", tmp_path / "artifacts")
    store = ArtifactStore(str(tmp_path / "artifacts"))
    before = store.latest("champion", DAY).version
    with store.write("champion", "2026-06-13", config={}, upstream={}, code_version="1") as draft:
        model = {"asset": "dpo_checkpoint", "partition": "2026-06-13", "version": "new"}
        write_json(draft.path / "champion.json", {"promoted": True, "model": model})
    with pytest.raises(ValueError, match=f"materialise offline_metrics of {DAY} again"):
        dg.materialize(
            [promotion.champion],
            partition_key=DAY,
            resources={"artifacts": resources(tmp_path)["artifacts"]},
        )
    assert store.latest("champion", DAY).version == before
