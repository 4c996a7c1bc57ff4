"""Offline metrics: what they show, and what stops the night."""

import re
import shutil
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from assets import champion, evaluation
from assets.nights_before import as_metadata
from onerec.artifacts import ArtifactStore, read_json
from onerec.config import AlignmentConfig, BeamConfig
from onerec.evaluation.metric_table import MetricRow, MetricTable
from onerec.evaluation.ndcg_by_weight import NdcgByWeight
from tests.assets.small_night import DAY, resources


def test_metadata_shows_the_table_and_pictures(night_result: dg.ExecuteInProcessResult) -> None:
    shown = night_result.asset_materializations_for_node("offline_metrics")[0].metadata
    rows = {r.data["system"]: r.data for r in shown["metrics"].records}
    assert re.fullmatch(r"0\.\d{4} \[0\.\d{4}, 0\.\d{4}\]", str(rows["dpo"]["Recall@10"]))
    assert "dpo - popularity" in rows
    assert "data:image/svg+xml" in str(shown["Recall@10"].value)
    assert isinstance(shown["dpo_recall@10"].value, float)


def test_one_repeat_in_a_thousand_sessions_stops_the_night() -> None:
    metrics = MetricTable(
        (
            MetricRow("dpo", None, "legal_share", "all", 1.0),
            MetricRow("dpo", None, "repeat_free_share", "all", 0.999),
            MetricRow("pretrained", None, "repeat_free_share", "all", 1.0),
            MetricRow("popularity", None, "recall@10", "all", 0.1, 0.05, 0.15, 10),
            MetricRow("dpo", "popularity", "recall@10", "all", 0.2, 0.1, 0.3, 10),
        )
    )
    found = {r.check_name: r for r in evaluation.check_metrics(metrics)}
    assert {name: r.passed for name, r in found.items()} == {
        "every_id_is_legal": True,
        "sessions_are_repeat_free": False,
        "beats_best_simple_system": True,
    }
    specs = {s.name: s.blocking for s in evaluation.offline_metrics_checks.check_specs}
    assert specs["sessions_are_repeat_free"]
    assert specs["every_id_is_legal"]
    assert not specs["beats_best_simple_system"]


def test_test_days_before_choose_the_weight_of_the_reward(
    night_home: Path, night_result: dg.ExecuteInProcessResult, tmp_path: Path
) -> None:
    """They outvote the validation day, and the champion's bundle has what was measured."""
    shutil.copytree(night_home / "artifacts", tmp_path / "artifacts")
    store = ArtifactStore(str(tmp_path / "artifacts"))
    first = store.latest("offline_metrics", DAY)
    own = read_json(store.latest("dpo_checkpoint", DAY).path / "config.json")["reward_weight"]
    weights = AlignmentConfig().tried_reward_weights
    alone = own if own in weights else 0
    assert first.manifest["metadata"]["reward_weight"] == alone
    measured = NdcgByWeight.from_json(first.manifest["metadata"]["ndcg_by_weight"]["reward"])
    assert tuple(measured.ndcg) == weights
    assert measured.users > 0

    eve = (date.fromisoformat(DAY) - timedelta(1)).isoformat()
    chosen = next(w for w in weights if w not in (0, alone))
    ndcg = {w: 0.1 if w <= chosen else 0.01 for w in weights}
    for name in ("offline_metrics", *evaluation.ALIGNED_WITH):
        config = store.latest(name, DAY).manifest["config"]
        with store.write(name, eve, config=config, upstream={}, code_version="1") as draft:
            (draft.path / "file").write_text(name)
            if name == "offline_metrics":
                draft.metadata |= as_metadata({"reward": NdcgByWeight(1000, ndcg)})
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize(
            [evaluation.offline_metrics, champion.champion],
            partition_key=DAY,
            resources=resources(tmp_path),
            instance=instance,
        )
    assert run.success
    again = store.latest("offline_metrics", DAY)
    assert again.manifest["metadata"]["reward_weight"] == chosen
    upstream = again.manifest["upstream"]
    assert upstream[f"offline_metrics[{eve}]"] == store.latest("offline_metrics", eve).version
    shown = run.asset_materializations_for_node("offline_metrics")[0].metadata
    assert shown["weight of the reward"].value == chosen
    assert shown["earlier test days that chose it"].value == 1


def test_a_test_day_counts_where_it_measured_the_weights_that_are_tried(tmp_path: Path) -> None:
    """Also where a manifest sorts them as texts, and where other settings chose among them."""
    store, decoding = ArtifactStore(str(tmp_path)), BeamConfig()
    before, eve = ((date.fromisoformat(DAY) - timedelta(n)).isoformat() for n in (2, 1))
    for day in (before, eve, DAY):
        for name in ("offline_metrics", *evaluation.ALIGNED_WITH):
            config: dict[str, Any] = {"decoding": asdict(decoding), "gate": day}
            config["reward_ndcg_tolerance"] = float(day == DAY)
            with store.write(name, day, config=config, upstream={}, code_version="1") as draft:
                (draft.path / "file").write_text(name)
                if name == "offline_metrics":
                    ndcg = NdcgByWeight(9, {0.0: 0.3, 3.0: 0.2, 10.0: 0.1})
                    draft.metadata |= as_metadata({"reward": ndcg})
    context = dg.build_asset_context(partition_key=DAY)
    for weights, last, days in (
        ("0,3,10", 2, [before, eve]),
        ("0,3,10", 1, [eve]),
        ("0,3", 2, []),
        ("0", 2, []),
    ):
        tried = AlignmentConfig(reward_weights=weights, reward_weight_days=last)
        found = evaluation.test_days_before(context, store, tried, decoding)
        assert [artifact.partition for artifact in found.artifacts] == days
