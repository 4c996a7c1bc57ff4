from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from onerec.evaluation.metric_table import (
    CASES_FILE,
    METRICS_FILE,
    Metric,
    MetricRow,
    MetricTable,
    read_case_metrics,
    write_case_metrics,
)
from onerec.schema import CASE_METRICS, OFFLINE_METRICS
from onerec.statistics import Interval

ROWS = (
    MetricRow("popularity", None, "recall@10", "all", 0.05, 0.04, 0.06, 30),
    MetricRow("popularity", None, "recall@10", "cold", np.nan, np.nan, np.nan, 0),
    MetricRow("dpo", None, "recall@10", "all", 0.11, 0.10, 0.12, 30),
    MetricRow("dpo", "popularity", "recall@10", "all", 0.06, 0.05, 0.07, 30),
    MetricRow("dpo", None, "legal_share", "all", 1.0),
    MetricRow("pretrained", None, "legal_share", "all", 0.99),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    MetricTable(ROWS).save(tmp_path)
    assert pq.read_schema(tmp_path / METRICS_FILE).equals(OFFLINE_METRICS)
    assert repr(MetricTable.load(tmp_path).rows) == repr(ROWS)  # NaN is not equal to itself


def test_numbers_are_found_by_their_key() -> None:
    table = MetricTable(ROWS)
    assert table.find("dpo", "recall@10") == Interval(0.11, 0.10, 0.12)
    assert table.find("dpo", "recall@10", reference="popularity") == (0.06, 0.05, 0.07)
    assert np.isnan(table.find("popularity", "recall@10", slice="cold")).all()
    share, low, high = table.find("dpo", "legal_share")
    assert share == 1
    assert np.isnan([low, high]).all()
    assert np.isnan(table.find("dpo", "no such metric")).all()
    assert table.systems("recall@10") == ["popularity", "dpo"]
    assert table.pairs() == [("dpo", "popularity")]
    assert table.lowest("legal_share") == 0.99
    assert np.isnan(table.lowest("no such metric"))


def test_an_artifact_of_the_format_before_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="materialise the asset of its partition again"):
        MetricTable.load(tmp_path)


def test_case_metrics_keep_users_in_order_and_nulls(tmp_path: Path) -> None:
    values = {
        "a": {Metric("recall@10"): np.array([0.5, 1.0]), Metric("reward"): np.array([np.nan, 2])},
        "b": {
            Metric("recall@10"): np.array([0.0, 0.0]),
            Metric("recall@10", "cold"): np.array([np.nan, 0.0]),
        },
    }
    assert write_case_metrics(tmp_path, ["u9", "u1"], values) == 8
    file = pq.ParquetFile(tmp_path / CASES_FILE)
    assert file.schema_arrow.equals(CASE_METRICS)
    assert file.num_row_groups == 2
    found = read_case_metrics(tmp_path, system="a", metric="reward")
    assert found.column("user_id").to_pylist() == ["u9", "u1"]
    assert found.column("value").to_pylist() == [None, 2.0]
    assert np.isnan(found.column("value").to_numpy()[0])
    cold = read_case_metrics(tmp_path, slice="cold")
    assert cold.column("system").to_pylist() == ["b", "b"]
    assert read_case_metrics(tmp_path).num_rows == 6
    with pytest.raises(ValueError, match=r"no row of system='c', .*its systems are a, b"):
        read_case_metrics(tmp_path, system="c", metric="reward")
