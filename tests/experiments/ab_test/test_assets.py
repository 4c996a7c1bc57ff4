"""The assets `ab_test_table` and `ab_test_retrained_table` over small simulated nightly runs."""

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.support import PIPELINE
from experiments.ab_test.assets import EVERY_NIGHT, ab_test_retrained_table, ab_test_table
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


RETRAINED = QUICK | {"days": 7, "arms": "cascade,small,cascade_retrained,small_retrained"}


def materialize(home: Path, source: Source, asset=ab_test_table, settings=QUICK, **changes):
    return dg.materialize(
        [asset],
        resources={
            "artifacts": Artifacts(url=str(home / "artifacts")),
            "source": source,
            "compute": Compute(accelerator="cpu"),
        },
        run_config={"ops": {asset.key.to_user_string(): {"config": settings | changes}}},
    )


def app(home: Path) -> Source:
    file = home / "app.yaml"
    file.write_text(yaml.safe_dump({"simulator": asdict(simulated.APP)}))
    return Source(dataset="simulated", config=str(file))


def test_the_table_is_written_and_shown(tmp_path: Path, tables_dir: Path) -> None:
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


def test_the_retrained_table_is_of_the_nightly_runs_that_follow_one_another(
    tmp_path: Path, tables_dir: Path
) -> None:
    """Runs of two days in a row make a test of two days; an older one, after a gap, is not used."""
    store, source = ArtifactStore(str(tmp_path / "artifacts")), app(tmp_path)
    days = [(simulated.DAY + timedelta(days=shift)).isoformat() for shift in (-2, 0, 1)]
    simulated.publish(store, PIPELINE, partition=days[1])
    with pytest.raises(dg.Failure, match="make nightly runs of at least two consecutive days"):
        materialize(tmp_path, source, ab_test_retrained_table, RETRAINED)
    for day in (days[0], days[2]):
        simulated.publish(store, PIPELINE, partition=day)
    result = materialize(tmp_path, source, ab_test_retrained_table, RETRAINED)
    metadata = result.asset_materializations_for_node("ab_test_retrained_table")[0].metadata
    assert metadata["nightly run"].value == ", ".join(days[1:])
    rows = MetricTable.load(tables_dir, "ab_test_retrained.parquet").rows
    gains = {r.system for r in rows if r.reference == "the same arm, frozen"}
    assert gains == {"cascade, retrained daily", "OneRec small, retrained daily"}
    assert {r.slice for r in rows} >= {"day_1", "day_2"}
    assert "day_3" not in {r.slice for r in rows}
    weights = [r.value for r in rows if r.metric == "reward_weight"]
    assert weights == [1.0, 1.0]


def test_arms_of_the_other_table_are_refused(tmp_path: Path, tables_dir: Path) -> None:
    """They would write the other asset's table."""
    store, source = ArtifactStore(str(tmp_path / "artifacts")), app(tmp_path)
    for asset in EVERY_NIGHT:
        for day in ("2026-06-14", "2026-06-15"):
            with store.write(asset, day, config={}, upstream={}, code_version="1"):
                pass
    with pytest.raises(ValueError, match=r"arms='.*small': name an arm .*or materialise ab_test_t"):
        materialize(tmp_path, source, ab_test_retrained_table, QUICK | {"days": 2})
    with pytest.raises(ValueError, match=r"name no arm .*or materialise ab_test_retrained_table"):
        materialize(tmp_path, source, ab_test_table, RETRAINED)
    assert not list(tables_dir.glob("ab_test*"))


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
