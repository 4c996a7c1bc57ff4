"""The asset `ab_test_table` over a small simulated night."""

from dataclasses import asdict
from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.support import PIPELINE
from experiments.ab_test.assets import ab_test_table
from onerec.artifacts import ArtifactError, ArtifactStore
from onerec.evaluation.metric_table import MetricTable
from resources.stores import Artifacts, Compute, Source
from tests.experiments import published_night
from tests.experiments import simulated_night as simulated

QUICK = {
    "days": 1,
    "traffic_seeds": 1,
    "arms": "popularity_recent,cascade,small",
    "beam": 2,
    "return_sensitivity": 0.0,
    "bootstrap_samples": 20,
}


def materialize(home: Path, source: Source, **changes):
    return dg.materialize(
        [ab_test_table],
        resources={
            "artifacts": Artifacts(url=str(home / "artifacts")),
            "source": source,
            "compute": Compute(accelerator="cpu"),
        },
        run_config={"ops": {"ab_test_table": {"config": QUICK | changes}}},
    )


def app(home: Path) -> Source:
    file = home / "app.yaml"
    file.write_text(yaml.safe_dump({"simulator": asdict(simulated.APP)}))
    return Source(dataset="simulated", config=str(file))


def test_the_table_is_written_and_shown(tmp_path: Path, tables_dir: Path) -> None:
    pytest.importorskip("lightgbm")
    simulated.publish(ArtifactStore(str(tmp_path / "artifacts")), PIPELINE)
    result = materialize(tmp_path, app(tmp_path))
    metadata = result.asset_materializations_for_node("ab_test_table")[0].metadata
    assert metadata["nightly run"].value == simulated.DAY.isoformat()
    assert "OneRec small" in {record.data["system"] for record in metadata["ab_test"].records}
    assert "total watch time" in str(metadata["ab_test: findings"].value)
    rows = MetricTable.load(tables_dir, "ab_test.parquet").rows
    systems = {row.system for row in rows if row.metric == "watch_uplift"}
    assert systems == {"popularity of the last days", "OneRec small"}
    assert (tables_dir / "ab_test-watch-uplift-minus-cascade.svg").exists()
    assert not list((tmp_path / "artifacts" / ".scratch" / "ab_test_table").rglob("*.safetensors"))


def test_an_arm_whose_variant_was_not_made_names_its_partition(tmp_path: Path) -> None:
    store = published_night.publish_night(tmp_path / "artifacts")
    with pytest.raises(dg.Failure, match=r"arm larger: pretrained_variant.*0\|larger first"):
        materialize(tmp_path, app(tmp_path), arms="cascade,larger")
    assert "ab_test_table" not in store.partitions("ab_test_table")


def test_without_a_night_or_a_simulated_app_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no day has all of session_dataset"):
        materialize(tmp_path, app(tmp_path))
    with pytest.raises(ValueError, match="users who answer; set ONEREC_DATASET=simulated"):
        materialize(tmp_path, Source(dataset="kuairand", data_dir=str(tmp_path)))
