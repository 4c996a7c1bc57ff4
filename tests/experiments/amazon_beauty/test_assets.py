"""Amazon Beauty as assets: missing data is named, systems are partitions, the table shows them."""

from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from experiments.amazon_beauty import PARTITIONS
from experiments.amazon_beauty.assets import (
    SYSTEM,
    amazon_beauty_system,
    amazon_beauty_table,
    data_directory,
)
from experiments.amazon_beauty.table import LABELS, METRICS
from experiments.amazon_beauty.training import BeautyResult, save_results
from onerec.artifacts import ArtifactStore
from onerec.evaluation.metric_table import MetricTable
from resources.stores import Artifacts, Compute
from tests.experiments.amazon_beauty.test_systems import data  # noqa: F401


def materialize(root: Path, asset, partition: str | None = None):
    artifacts = Artifacts(url=str(root))
    resources = {"artifacts": artifacts, "compute": Compute(accelerator="cpu")}
    return dg.materialize([asset], partition_key=partition, resources=resources)


def test_missing_data_is_a_clear_failure(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ONEREC_AMAZON_BEAUTY", str(tmp_path))
    with pytest.raises(dg.Failure, match=r"sequences\.txt: no such file; point at a directory"):
        materialize(tmp_path, amazon_beauty_system, "popularity-0")


def test_the_environment_says_where_the_data_is(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ONEREC_AMAZON_BEAUTY", raising=False)
    assert data_directory().parts[-3:] == ("shared", "data", "amazon_beauty")
    monkeypatch.setenv("ONEREC_AMAZON_BEAUTY", str(tmp_path))
    assert data_directory() == tmp_path


def test_a_system_is_a_partition_of_its_own(monkeypatch, data: Path, tmp_path: Path) -> None:  # noqa: F811
    monkeypatch.setenv("ONEREC_AMAZON_BEAUTY", str(data))
    result = materialize(tmp_path, amazon_beauty_system, "itemknn-0")
    metadata = result.asset_materializations_for_node(SYSTEM)[0].metadata
    assert metadata["recall@10 of itemknn"].value > 0.5
    store = ArtifactStore(str(tmp_path))
    assert store.partitions(SYSTEM) == ["itemknn-0"]
    assert not (tmp_path / ".scratch" / SYSTEM / "itemknn-0").exists() or not list(
        (tmp_path / ".scratch" / SYSTEM / "itemknn-0").iterdir()
    )


def test_the_table_is_written_and_shown(tmp_path: Path, tables_dir: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    rng = np.random.default_rng(0)
    for name in PARTITIONS:
        upstream = {"amazon_beauty": "a hash"}
        with store.write(SYSTEM, name, config={}, upstream=upstream, code_version="1") as draft:
            results = {
                row: BeautyResult({m: rng.random(20) for m in METRICS}, 60.0, {"epochs": [1, 2]})
                for row in LABELS
                if row.startswith(name[:-2])
            }
            save_results(draft.path, results)
    result = materialize(tmp_path, amazon_beauty_table)
    metadata = result.asset_materializations_for_node("amazon_beauty_table")[0].metadata
    shown = [record.data["system"] for record in metadata["amazon_beauty"].records]
    assert shown[: len(LABELS)] == list(LABELS.values())
    assert MetricTable.load(tables_dir, "amazon_beauty.parquet").systems("recall@10")[0] == shown[0]
    (tiger,) = (
        r.data for r in metadata["amazon_beauty"].records if r.data["system"] == LABELS["tiger"]
    )
    assert (tiger["seeds"], tiger["seconds"]) == ("3", "180")


def test_systems_of_different_data_are_not_compared(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    for name in PARTITIONS:
        upstream = {"amazon_beauty": name}
        with store.write(SYSTEM, name, config={}, upstream=upstream, code_version="1") as draft:
            (draft.path / "x").touch()
    with pytest.raises(dg.Failure, match="measured on different data"):
        materialize(tmp_path, amazon_beauty_table)
