"""The asset `ab_test_table` over a small simulated night."""

import json
from dataclasses import asdict
from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.support import STAGES
from experiments.ab_test.assets import ab_test_table
from onerec.artifacts import ArtifactError, ArtifactStore
from resources.stores import Artifacts, Compute, Source
from tests.experiments import simulated_night as simulated

QUICK = {
    "days": 1,
    "traffic_seeds": 1,
    "arms": "popularity_recent,cascade,small",
    "beam": 2,
    "return_sensitivity": 0.0,
    "bootstrap_samples": 20,
}


def materialize(home: Path, source: Source):
    return dg.materialize(
        [ab_test_table],
        resources={
            "artifacts": Artifacts(url=str(home / "artifacts")),
            "source": source,
            "compute": Compute(accelerator="cpu"),
        },
        run_config={"ops": {"ab_test_table": {"config": QUICK}}},
    )


def app(home: Path) -> Source:
    file = home / "app.yaml"
    file.write_text(yaml.safe_dump({"simulator": asdict(simulated.APP)}))
    return Source(dataset="simulated", config=str(file))


def test_the_table_is_written_and_shown(tmp_path: Path, tables_dir: Path) -> None:
    pytest.importorskip("lightgbm")
    simulated.publish(ArtifactStore(str(tmp_path / "artifacts")), STAGES)
    result = materialize(tmp_path, app(tmp_path))
    metadata = result.asset_materializations_for_node("ab_test_table")[0].metadata
    assert metadata["night"].value == simulated.DAY.isoformat()
    assert "| OneRec small |" in str(metadata["ab_test"].value)
    assert "total watch time" in str(metadata["ab_test: findings"].value)
    rows = json.loads((tables_dir / "ab_test.json").read_text())
    systems = {row["system"] for row in rows if row["metric"] == "watch_uplift"}
    assert systems == {"popularity of the last days", "OneRec small"}
    assert (tables_dir / "ab_test-watch-uplift.svg").exists()
    assert not list((tmp_path / "artifacts" / ".scratch" / "ab_test_table").rglob("*.safetensors"))


def test_without_a_night_or_a_simulated_app_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no day has all of session_dataset"):
        materialize(tmp_path, app(tmp_path))
    with pytest.raises(ValueError, match="users who answer; set ONEREC_DATASET=simulated"):
        materialize(tmp_path, Source(dataset="kuairand", data_dir=str(tmp_path)))
