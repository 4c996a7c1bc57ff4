"""Nights pooled over users and days, by hand arithmetic; days that cannot be pooled are refused."""

from pathlib import Path

import numpy as np
import pytest

from experiments.reporting.result_tables import Provenance
from experiments.walk_forward.tables import pooled_users, walk_forward_tables
from onerec.config import EvaluationConfig
from onerec.evaluation.metric_table import Metric, TableColumn, write_case_metrics

EVALUATION = EvaluationConfig(bootstrap_samples=200)
MADE = Provenance(data="toy", config="tiny", seeds=(0,), budget="none", commit="abc")


def night(root: Path, day: str, users: list[str], recall: dict[str, list[float]]) -> Path:
    directory = root / day
    directory.mkdir()
    metrics = (Metric("recall@10"), Metric("recall@10", "cold"), Metric("evaluator_reward"))
    values = {
        system: {metric: np.array(column) for metric in metrics}
        for system, column in recall.items()
    }
    write_case_metrics(directory, users, values)
    return directory


def two_days(root: Path) -> dict[str, Path]:
    return {
        "1": night(root, "1", ["a", "b"], {"itemknn": [0.0, 0.4], "dpo": [0.5, 0.4]}),
        "2": night(root, "2", ["a", "c"], {"itemknn": [1.0, 0.0], "dpo": [1.0, 0.5]}),
    }


def test_a_user_of_two_days_counts_once_with_their_mean(tmp_path: Path):
    found, cases = pooled_users(two_days(tmp_path))
    assert cases == 4
    assert found["itemknn"][Metric("recall@10")].tolist() == [(0.0 + 1.0) / 2, 0.4, 0.0]
    assert found["dpo"][Metric("recall@10")].tolist() == [(0.5 + 1.0) / 2, 0.4, 0.5]


def test_the_champion_of_each_night_is_left_out(tmp_path: Path):
    nights = {
        "1": night(tmp_path, "1", ["a"], {"dpo": [0.5]}),
        "2": night(tmp_path, "2", ["a"], {"champion": [0.5], "dpo": [1.0]}),
    }
    assert list(pooled_users(nights)[0]) == ["dpo"]


def test_the_walk_is_a_row_per_system_with_differences_to_the_best_baseline(tmp_path: Path):
    tables = walk_forward_tables(two_days(tmp_path), "toy", MADE, EVALUATION)
    assert [table.name for table in tables] == ["walk_forward_toy", "walk_forward_toy_rewards"]
    rows = {(row.system, row.column): row for row in tables[0].metrics.rows}
    gain = rows["dpo", TableColumn("recall@10", reference="itemknn")]
    assert gain.value == pytest.approx(np.mean([0.25, 0.0, 0.5]))
    assert ("itemknn", TableColumn("recall@10", reference="dpo")) not in rows
    assert tables[0].findings[0] == "The best baseline by Recall@10 is itemknn."
    assert {row.metric for row in tables[1].metrics.rows} >= {"evaluator_reward"}
    assert "4 cases of 3 users" in tables[0].text


def test_lists_without_seen_items_are_compared_with_one_another_only(tmp_path: Path):
    recall = {"itemknn": [0.1], "dpo": [0.2], "by_probability": [0.4], "with_reward": [0.3]}
    ranking, _ = walk_forward_tables(
        {"1": night(tmp_path, "1", ["a"], recall)}, "toy", MADE, EVALUATION
    )
    differences = {
        (row.system, row.reference): row.value
        for row in ranking.metrics.rows
        if row.metric == "recall@10" and row.reference
    }
    assert differences == {
        ("dpo", "itemknn"): pytest.approx(0.1),
        ("with_reward", "by_probability"): pytest.approx(-0.1),
    }
    assert ranking.findings[-1].startswith(
        "with_reward against by_probability: significantly below"
    )


def test_days_with_other_systems_and_no_days_are_refused(tmp_path: Path):
    nights = {
        "1": night(tmp_path, "1", ["a"], {"itemknn": [0.0], "dpo": [0.5]}),
        "2": night(tmp_path, "2", ["a"], {"dpo": [1.0]}),
    }
    with pytest.raises(ValueError, match="itemknn: measured on 1 or on 2 only"):
        pooled_users(nights)
    with pytest.raises(ValueError, match="run a nightly run first"):
        pooled_users({})


def test_a_prior_without_weight_on_a_day_is_none_there(tmp_path: Path):
    nights = {
        "1": night(
            tmp_path,
            "1",
            ["a"],
            {"dpo": [0.5], "sasrec_ce_without_recency": [0.2], "sasrec_ce": [0.4]},
        ),
        "2": night(tmp_path, "2", ["a"], {"dpo": [0.5], "sasrec_ce": [0.6]}),
    }
    found, _ = pooled_users(nights)
    assert found["sasrec_ce_without_recency"][Metric("recall@10")].tolist() == [(0.2 + 0.6) / 2]
    ranking, _ = walk_forward_tables(nights, "toy", MADE, EVALUATION)
    assert ("dpo", "sasrec_ce_without_recency") in ranking.metrics.pairs()
