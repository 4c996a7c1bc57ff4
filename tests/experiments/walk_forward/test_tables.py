"""Nights pooled over users and days, by hand arithmetic; days that cannot be pooled are refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments.reporting.result_tables import Provenance
from experiments.walk_forward.tables import case_rows, pooled_users, walk_forward_tables
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


def two_days(root: Path) -> dict[str, list[Path]]:
    return {
        "1": [night(root, "1", ["a", "b"], {"itemknn": [0.0, 0.4], "dpo": [0.5, 0.4]})],
        "2": [night(root, "2", ["a", "c"], {"itemknn": [1.0, 0.0], "dpo": [1.0, 0.5]})],
    }


def test_a_user_of_two_days_counts_once_with_their_mean(tmp_path: Path):
    found = pooled_users(case_rows(two_days(tmp_path)))
    assert found["itemknn"][Metric("recall@10")].tolist() == [(0.0 + 1.0) / 2, 0.4, 0.0]
    assert found["dpo"][Metric("recall@10")].tolist() == [(0.5 + 1.0) / 2, 0.4, 0.5]


def test_the_champion_of_each_night_is_left_out(tmp_path: Path):
    nights = {
        "1": [night(tmp_path, "1", ["a"], {"dpo": [0.5]})],
        "2": [night(tmp_path, "2", ["a"], {"champion": [0.5], "dpo": [1.0]})],
    }
    assert list(pooled_users(case_rows(nights))) == ["dpo"]


def test_the_walk_is_a_row_per_system_with_differences_to_the_best_baseline(tmp_path: Path):
    _, *tables = walk_forward_tables(two_days(tmp_path), "toy", MADE, EVALUATION)
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
    _, ranking, _ = walk_forward_tables(
        {"1": [night(tmp_path, "1", ["a"], recall)]}, "toy", MADE, EVALUATION
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
        "1": [night(tmp_path, "1", ["a"], {"itemknn": [0.0], "dpo": [0.5]})],
        "2": [night(tmp_path, "2", ["a"], {"dpo": [1.0]})],
    }
    with pytest.raises(ValueError, match="itemknn: measured on 1 or on 2 only"):
        case_rows(nights)
    with pytest.raises(ValueError, match="run a nightly run first"):
        case_rows({})


def test_a_prior_without_weight_on_a_day_is_none_there(tmp_path: Path):
    nights = {
        "1": [
            night(
                tmp_path,
                "1",
                ["a"],
                {"dpo": [0.5], "sasrec_ce_without_recency": [0.2], "sasrec_ce": [0.4]},
            )
        ],
        "2": [night(tmp_path, "2", ["a"], {"dpo": [0.5], "sasrec_ce": [0.6]})],
    }
    found = pooled_users(case_rows(nights))
    assert found["sasrec_ce_without_recency"][Metric("recall@10")].tolist() == [(0.2 + 0.6) / 2]
    _, ranking, _ = walk_forward_tables(nights, "toy", MADE, EVALUATION)
    assert ("dpo", "sasrec_ce_without_recency") in ranking.metrics.pairs()


def test_users_are_resampled_as_clusters_of_their_days_and_seeds(tmp_path: Path):
    """Against loops over users, days, seeds and resamples."""
    rng = np.random.default_rng(0)
    systems, seeds = ("itemknn", "pretrained", "dpo"), ("s1", "s2")
    active = {day: sorted(rng.choice(30, 20, replace=False)) for day in ("1", "2", "3")}
    value = {
        (system, day, seed, user): float(rng.random() < 0.3)
        for system in systems
        for day, users in active.items()
        for seed in seeds
        for user in users
    }
    nights: dict[str, list[Path]] = {}
    for seed in seeds:
        (tmp_path / seed).mkdir()
        for day, users in active.items():
            columns = {s: [value[s, day, seed, user] for user in users] for s in systems}
            names = [f"u{user:02}" for user in users]
            nights.setdefault(day, []).append(night(tmp_path / seed, day, names, columns))
    made = dataclasses.replace(MADE, seeds=(0, 1))
    by_night, ranking, _ = walk_forward_tables(nights, "toy", made, EVALUATION)

    def expected(system: str, other: str | None, days: list[str]) -> tuple[float, float, float]:
        means = []
        for user in sorted({user for day in days for user in active[day]}):
            own = [
                value[system, day, seed, user] - (value[other, day, seed, user] if other else 0.0)
                for day in days
                for seed in seeds
                if user in active[day]
            ]
            means.append(sum(own) / len(own))
        samples, draws = EVALUATION.bootstrap_samples, np.random.default_rng(EVALUATION.seed)
        drawn = draws.integers(0, len(means), (samples, len(means)))
        resampled = [sum(means[user] for user in row) / len(row) for row in drawn]
        low, high = np.quantile(resampled, [0.025, 0.975])
        return sum(means) / len(means), float(low), float(high)

    pooled = ranking.metrics
    assert pooled.find("dpo", "recall@10") == pytest.approx(expected("dpo", None, list(active)))
    for system, other in (("dpo", "pretrained"), ("dpo", "itemknn"), ("pretrained", "itemknn")):
        difference = expected(system, other, list(active))
        assert pooled.find(system, "recall@10", reference=other) == pytest.approx(difference)
        assert by_night.metrics.find(other, f"{system}_minus_it") == pytest.approx(difference)
    for day in active:
        found = by_night.metrics.find("itemknn", "recall@10", slice=day)
        assert found == pytest.approx(expected("itemknn", None, [day]))
    assert list(by_night.shown.values()) == [*active, "all", "pretrained minus it", "dpo minus it"]
    assert any(f.startswith("dpo against pretrained: ") for f in ranking.findings)
    assert f"60 cases of {len(set().union(*active.values()))} users" in ranking.text
    assert "days and seeds are averaged" in ranking.text
