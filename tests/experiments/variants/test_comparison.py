"""Results pooled over seeds and days, by hand arithmetic; what cannot be compared is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.reporting import Provenance
from experiments.variants.comparison import Result, comparison, pooled
from experiments.walk_forward.tables import pooled_users, walk_forward_tables
from onerec.artifacts import write_json
from onerec.config import EvaluationConfig
from onerec.evaluation.metric_table import Metric, MetricRow, MetricTable, write_case_metrics
from onerec.evaluation.protocol import EvaluationProtocol

EVALUATION = EvaluationConfig(bootstrap_samples=200)
MADE = Provenance(data="toy", config="tiny", seeds=(0,), budget="none", commit="abc")
ASKED = EvaluationProtocol(
    test_day="2026-06-14",
    tokenizer_version="a",
    users=2,
    mean_targets=1.0,
    candidate_items=5,
    bootstrap_confidence=0.95,
    cases="c",
    candidates="d",
    reward_models={"evaluator": "e"},
)


def result(root: Path, variant: str, seed: int, recall: list[float], **protocol) -> Result:
    directory = root / f"{variant}-{seed}"
    directory.mkdir()
    values = {name: recall for name in ("recall@10", "ndcg@10")}
    values |= {"evaluator_reward": [1.0, 2.0], "training_reward": [1.5 + seed, 2.0]}
    columns = {Metric(name): np.array(column) for name, column in values.items()}
    write_case_metrics(directory, ["a", "b"], {"variant": columns})
    asked = replace(ASKED, **{"tokenizer_version": variant} | protocol)
    asked.save(directory)
    share = MetricRow("variant", None, "legal_share", "all", 1.0 - seed / 10)
    MetricTable((share,)).save(directory)
    write_json(directory / "facts.json", {"alignment_kl_to_start": 0.1 * (1 + seed)})
    return Result(variant=variant, seed=seed, directory=directory, seconds=10.0)


def test_seeds_are_rows_in_their_order_and_the_gap_is_a_difference(tmp_path: Path):
    second, first = result(tmp_path, "ipa", 1, [0.0, 1.0]), result(tmp_path, "ipa", 0, [1.0, 1.0])
    found = pooled([second, first])["ipa"]
    assert found.values["recall@10"].tolist() == [[1.0, 1.0], [0.0, 1.0]]
    assert found.values["reward_gap"].tolist() == [[0.5, 0.0], [1.5, 0.0]]
    assert found.seconds == 20.0


def test_a_comparison_is_paired_with_its_reference(tmp_path: Path):
    results = [
        result(tmp_path, "pretrained", 0, [0.0, 0.5]),
        result(tmp_path, "ipa", 0, [0.25, 0.75]),  # a quarter better for everybody
        result(tmp_path, "worse", 0, [0.0, 0.25]),
    ]
    table = comparison(
        results,
        "pretrained",
        name="toy",
        title="Toy",
        text="Why.",
        provenance=MADE,
        evaluation=EVALUATION,
    )
    rows = {(row.system, row.metric): row for row in table.rows}
    gain = rows["ipa", "recall@10_minus_pretrained"]
    assert (gain.value, gain.low, gain.high) == (0.25, 0.25, 0.25)
    assert rows["ipa", "kl_to_start"].value == pytest.approx(0.1)
    assert rows["ipa", "legal_share"].value == 1.0
    assert ("ipa", "coverage@10") not in rows
    assert "recall@10_minus_pretrained" in table.pictures()
    assert "above beyond noise ipa; below beyond noise none" in table.findings[0]


def test_results_of_other_cases_or_reward_models_are_refused_and_of_other_sid_tokens_are_not(
    tmp_path: Path,
):
    first = result(tmp_path, "pretrained", 0, [0.0, 0.5])
    pooled([first, result(tmp_path, "tokens", 0, [0.0, 0.5])])  # tokenizer versions differ
    for part, other in (("cases", "x"), ("reward_models", {"evaluator": "y"}), ("test_day", "z")):
        odd = result(tmp_path, part, 0, [0.0, 0.5], **{part: other})
        with pytest.raises(ValueError, match=f"{part}=.*make both partitions again"):
            pooled([first, odd])


def test_a_comparison_without_its_reference_names_what_there_is(tmp_path: Path):
    with pytest.raises(ValueError, match="no result of it, only of ipa"):
        comparison(
            [result(tmp_path, "ipa", 0, [0.0, 0.5])],
            "pretrained",
            name="toy",
            title="Toy",
            text="Why.",
            provenance=MADE,
            evaluation=EVALUATION,
        )


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
    assert found["itemknn"]["recall@10"].tolist() == [(0.0 + 1.0) / 2, 0.4, 0.0]
    assert found["dpo"]["recall@10"].tolist() == [(0.5 + 1.0) / 2, 0.4, 0.5]


def test_the_champion_of_each_night_is_left_out(tmp_path: Path):
    nights = {
        "1": night(tmp_path, "1", ["a"], {"dpo": [0.5]}),
        "2": night(tmp_path, "2", ["a"], {"champion": [0.5], "dpo": [1.0]}),
    }
    assert list(pooled_users(nights)[0]) == ["dpo"]


def test_the_walk_is_a_row_per_system_with_differences_to_the_best_baseline(tmp_path: Path):
    tables = walk_forward_tables(
        two_days(tmp_path), name="walk", title="Walk", provenance=MADE, evaluation=EVALUATION
    )
    assert [table.name for table in tables] == ["walk", "walk_rewards"]
    rows = {(row.system, row.metric): row for row in tables[0].rows}
    gain = rows["dpo", "recall@10_minus_itemknn"]
    assert gain.value == pytest.approx(np.mean([0.25, 0.0, 0.5]))
    assert ("itemknn", "recall@10_minus_dpo") not in rows
    assert tables[0].findings[0] == "The best baseline by Recall@10 is itemknn."
    assert {row.metric for row in tables[1].rows} >= {"evaluator_reward"}
    assert "4 cases of 3 users" in tables[0].text


def test_lists_without_seen_items_are_compared_with_one_another_only(tmp_path: Path):
    recall = {"itemknn": [0.1], "dpo": [0.2], "by_probability": [0.4], "by_reward": [0.3]}
    ranking, _ = walk_forward_tables(
        {"1": night(tmp_path, "1", ["a"], recall)},
        name="walk",
        title="Walk",
        provenance=MADE,
        evaluation=EVALUATION,
    )
    differences = {
        (row.system, row.metric): row.value
        for row in ranking.rows
        if row.metric.startswith("recall@10_minus_")
    }
    assert differences == {
        ("dpo", "recall@10_minus_itemknn"): pytest.approx(0.1),
        ("by_reward", "recall@10_minus_by_probability"): pytest.approx(-0.1),
    }
    assert ranking.findings[-1].startswith("by_reward is below by_probability beyond noise")


def test_days_with_other_systems_and_no_days_are_refused(tmp_path: Path):
    nights = {
        "1": night(tmp_path, "1", ["a"], {"itemknn": [0.0], "dpo": [0.5]}),
        "2": night(tmp_path, "2", ["a"], {"dpo": [1.0]}),
    }
    with pytest.raises(ValueError, match="itemknn: measured on 1 or on 2 only"):
        pooled_users(nights)
    with pytest.raises(ValueError, match="run a night first"):
        pooled_users({})
