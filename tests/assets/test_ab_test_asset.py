"""The asset `ab_test_table` over a small simulated night."""

import json
from dataclasses import asdict
from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets import ab_test
from assets.ab_test import ab_test_table
from assets.support import STAGES
from onerec.artifacts import ArtifactError, ArtifactStore
from resources.stores import Artifacts, Compute, Source
from tests.core.experiments import simulated_night as simulated

QUICK = {
    "days": 1,
    "traffic_seeds": 1,
    "arms": "popularity_recent,cascade,small",
    "beam": 2,
    "return_sensitivity": 0.0,
    "bootstrap_samples": 20,
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tables are written under the home of the settings."""
    monkeypatch.setattr(ab_test, "TABLES", tmp_path / "tables")
    return tmp_path


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
    settings = {k: str(v) if k == "first_day" else v for k, v in asdict(simulated.APP).items()}
    file = home / "app.yaml"
    file.write_text(yaml.safe_dump({"simulator": settings}))
    return Source(dataset="simulated", config=str(file))


def test_the_table_is_written_and_shown(home: Path) -> None:
    pytest.importorskip("lightgbm")
    simulated.publish(ArtifactStore(str(home / "artifacts")), STAGES)
    result = materialize(home, app(home))
    metadata = result.asset_materializations_for_node("ab_test_table")[0].metadata
    assert metadata["night"].value == simulated.DAY.isoformat()
    assert "| OneRec small |" in str(metadata["table"].value)
    assert "total watch time" in str(metadata["findings"].value)
    rows = json.loads((home / "tables" / "ab_test.json").read_text())
    systems = {row["system"] for row in rows if row["metric"] == "watch_uplift"}
    assert systems == {"popularity of the last days", "OneRec small"}
    assert (home / "tables" / "ab_test-watch-uplift.svg").exists()
    assert not list((home / "artifacts" / ".scratch" / "ab_test_table").rglob("*.safetensors"))


def test_without_a_night_or_a_simulated_app_it_says_so(home: Path) -> None:
    with pytest.raises(ArtifactError, match="no day has all of session_dataset"):
        materialize(home, app(home))
    with pytest.raises(ValueError, match="users who answer; set ONEREC_DATASET=simulated"):
        materialize(home, Source(dataset="kuairand", data_dir=str(home)))
