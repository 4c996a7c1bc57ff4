"""The Amazon Beauty table as an asset: it says what is missing and shows what was measured."""

from pathlib import Path

import dagster as dg
import pytest

from experiments.amazon_beauty import experiment
from experiments.amazon_beauty.assets import AmazonBeautyConfig, amazon_beauty_table, data_directory
from experiments.reporting.result_tables import Provenance, ResultTable, Row


def test_missing_data_is_a_clear_failure(tmp_path: Path) -> None:
    config = AmazonBeautyConfig(data=str(tmp_path))
    with pytest.raises(dg.Failure, match=r"sequences\.txt: no such file; point at a directory"):
        amazon_beauty_table(dg.build_asset_context(), config)


def test_the_environment_says_where_the_data_is(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ONEREC_AMAZON_BEAUTY", raising=False)
    assert data_directory("").parts[-3:] == ("shared", "data", "amazon_beauty")
    monkeypatch.setenv("ONEREC_AMAZON_BEAUTY", str(tmp_path))
    assert data_directory("") == tmp_path
    assert data_directory("elsewhere") == Path("elsewhere")


def test_the_table_is_written_and_shown(monkeypatch, tables_dir: Path) -> None:
    asked = {}

    def run(data: Path, out: Path, **settings) -> ResultTable:
        asked.update(settings, data=data)
        return ResultTable(
            name="amazon_beauty",
            title="Beauty",
            text="Why.",
            rows=[Row(system="a", metric="recall@10", value=0.5, low=0.4, high=0.6)],
            provenance=Provenance(data="d", config="c", seeds=(0,), budget="b", commit="x"),
            findings=["Found."],
        )

    monkeypatch.setattr(experiment, "run", run)
    result = amazon_beauty_table(
        dg.build_asset_context(), AmazonBeautyConfig(data="here", epochs=3, seed=5)
    )
    assert isinstance(result, dg.MaterializeResult)
    assert asked["data"] == Path("here")
    assert asked["seed"] == 5
    assert {budget.epochs for budget in asked["budgets"].values()} == {3}
    assert (tables_dir / "amazon_beauty.json").exists()
    assert result.metadata is not None
    assert {"amazon_beauty", "amazon_beauty: findings"} <= set(result.metadata)
