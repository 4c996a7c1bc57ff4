"""Offline metrics: what they show, and what stops the night."""

import re

import dagster as dg

from assets import evaluation
from onerec.evaluation.metric_table import MetricRow, MetricTable


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
