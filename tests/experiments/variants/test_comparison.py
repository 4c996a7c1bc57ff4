"""Results pooled over seeds, by hand arithmetic; what cannot be compared is refused."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from experiments.reporting.result_tables import Provenance
from experiments.variants.comparison import VariantResult, comparison, pooled
from onerec.artifacts import write_json
from onerec.config import EvaluationConfig
from onerec.evaluation.metric_table import (
    Metric,
    MetricRow,
    MetricTable,
    TableColumn,
    write_case_metrics,
)
from onerec.evaluation.protocol import EvaluationProtocol

DAY = date(2026, 6, 14)
EVALUATION = EvaluationConfig(bootstrap_samples=200)
MADE = Provenance(data="toy", config="tiny", seeds=(0,), budget="none", commit="abc")
PROTOCOL = EvaluationProtocol(
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


def result(root: Path, variant: str, seed: int, recall: list[float], **protocol) -> VariantResult:
    directory = root / f"{variant}-{seed}"
    directory.mkdir()
    values = {name: recall for name in ("recall@10", "ndcg@10")}
    values |= {"evaluator_reward": [1.0, 2.0], "training_reward": [1.5 + seed, 2.0]}
    columns = {Metric(name): np.array(column) for name, column in values.items()}
    write_case_metrics(directory, ["a", "b"], {"variant": columns})
    protocol_here = replace(PROTOCOL, **{"tokenizer_version": variant} | protocol)
    protocol_here.save(directory)
    share = MetricRow("variant", None, "legal_share", "all", 1.0 - seed / 10)
    MetricTable((share,)).save(directory)
    write_json(directory / "facts.json", {"alignment_kl_to_start": 0.1 * (1 + seed)})
    return VariantResult(variant=variant, seed=seed, directory=directory, seconds=10.0)


def test_seeds_are_rows_in_their_order_and_the_gap_is_a_difference(tmp_path: Path):
    second, first = result(tmp_path, "ipa", 1, [0.0, 1.0]), result(tmp_path, "ipa", 0, [1.0, 1.0])
    found = pooled([second, first])["ipa"]
    assert found.values[Metric("recall@10")].tolist() == [[1.0, 1.0], [0.0, 1.0]]
    assert found.values[Metric("reward_gap")].tolist() == [[0.5, 0.0], [1.5, 0.0]]
    assert found.seconds == 20.0


def test_a_comparison_is_paired_with_its_reference(tmp_path: Path):
    results = [
        result(tmp_path, "pretrained", 0, [0.0, 0.5]),
        result(tmp_path, "ipa", 0, [0.25, 0.75]),  # a quarter better for everybody
        result(tmp_path, "worse", 0, [0.0, 0.25]),
    ]
    table = comparison(results, "pretrained", "toy", DAY, MADE, EVALUATION)
    rows = {(row.system, row.column): row for row in table.metrics.rows}
    gain = rows["ipa", TableColumn("recall@10", reference="pretrained")]
    assert (gain.value, gain.low, gain.high) == (0.25, 0.25, 0.25)
    assert rows["ipa", TableColumn("kl_to_start")].value == pytest.approx(0.1)
    assert rows["ipa", TableColumn("legal_share")].value == 1.0
    assert ("ipa", TableColumn("coverage@10")) not in rows
    assert TableColumn("recall@10", reference="pretrained") in table.pictures()
    assert "significantly above: ipa; significantly below: none" in table.findings[0]


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
    results = [result(tmp_path, "ipa", 0, [0.0, 0.5])]
    with pytest.raises(ValueError, match="no result of it, only of ipa"):
        comparison(results, "pretrained", "toy", DAY, MADE, EVALUATION)
