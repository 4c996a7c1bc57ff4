"""Variants and their tables as Dagster runs them, on a small published night."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from experiments.nightly_artifacts import latest_night
from experiments.variants import assets, grids
from experiments.variants.grids import ALIGNED, COMPARISONS, PRETRAINED
from experiments.variants.stored_results import VariantPartition, current_result
from experiments.variants.variant import DEFAULT
from onerec.artifacts import ArtifactStore
from onerec.evaluation.metric_table import MetricTable
from resources.stores import Artifacts, Compute, Source
from tests.experiments import published_night as small

START = VariantPartition(PRETRAINED, DEFAULT, 0)
IPA = VariantPartition(ALIGNED, "ipa", 0)
MADE_BY = {PRETRAINED: assets.pretrained_variant, ALIGNED: assets.aligned_variant}


def multi_key(partition: VariantPartition) -> dg.MultiPartitionKey:
    return dg.MultiPartitionKey({"variant": partition.name, "seed": str(partition.seed)})


TABLE = dict(zip(COMPARISONS, assets.TABLES, strict=True))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return small.publish_night(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def run(store: ArtifactStore, instance: dg.DagsterInstance, asset, key: str | None = None):
    compute = Compute(accelerator="cpu", threads=1)
    return dg.materialize(
        [asset],
        partition_key=key,
        resources={
            "artifacts": Artifacts(url=store.root),
            "compute": compute,
            "source": Source(dataset="simulated"),
        },
        instance=instance,
    )


@pytest.fixture(scope="module")
def aligned(store: ArtifactStore, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    for partition in (START, IPA):
        made = MADE_BY[partition.asset]
        result = run(store, instance, made, multi_key(partition))
    return result


def test_a_partition_is_an_artifact_with_its_numbers_and_upstream_versions(
    store: ArtifactStore, aligned: dg.ExecuteInProcessResult
):
    (event,) = aligned.get_asset_materialization_events()
    metadata = event.materialization.metadata
    artifact = store.latest(ALIGNED, "ipa-0").verify()
    recall = MetricTable.load(artifact.path).find("variant", "recall@10")
    assert metadata["recall@10"].value == pytest.approx(recall.mean)
    assert metadata["day"].value == small.DAY
    upstream = artifact.manifest["upstream"]
    assert upstream["reward_model"] == store.latest("reward_model", small.DAY).version
    assert upstream[PRETRAINED] == store.latest(PRETRAINED, "default-0").version


def test_a_result_is_current_until_something_it_read_changes(
    store: ArtifactStore, aligned: dg.ExecuteInProcessResult, monkeypatch: pytest.MonkeyPatch
):
    night = latest_night(store)

    def current(partition: VariantPartition, code: str = assets.CODE) -> bool:
        return current_result(store, night, partition, code) is not None

    assert current(IPA)
    assert not current(replace(IPA, name="ipo")), "never made"
    assert not current(replace(IPA, seed=1)), "another seed"
    assert not current(IPA, "other code")
    monkeypatch.setitem(grids.METHODS, "ipa", {"beta": 0.2})
    assert not current(IPA), "another setting"
    assert current(START)


def test_the_table_pools_what_there_is(
    store: ArtifactStore,
    instance: dg.DagsterInstance,
    aligned: dg.ExecuteInProcessResult,
    tables_dir: Path,
):
    result = run(store, instance, TABLE["alignment"])
    assert result.success
    name = f"alignment_{assets.SETTINGS.dataset}"
    metrics = MetricTable.load(tables_dir, f"{name}.parquet")
    assert metrics.systems("recall@10") == ["pretrained", "ipa"]
    assert assets.seconds_of(instance, IPA) > 0
    (event,) = result.get_asset_materialization_events()
    table = event.materialization.metadata[name]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data["system"] for record in table.records] == ["pretrained", "ipa"]


def test_a_table_without_results_says_what_to_do(
    tmp_path: Path, instance: dg.DagsterInstance, store: ArtifactStore
):
    with pytest.raises(dg.Failure, match="aligned_variant has no result of ipa"):
        run(small.publish_night(tmp_path), instance, TABLE["ablation_alignment"])


def test_partitions_depend_on_their_start_of_the_same_seed():
    followers = assets.PARTITIONS[ALIGNED].get_partition_keys()
    assert len(followers) == len(grids.NAMES[ALIGNED]) * 5
    mapping = next(
        dep.partition_mapping
        for spec in assets.aligned_variant.specs
        for dep in spec.deps
        if dep.asset_key == dg.AssetKey(PRETRAINED)
    )
    larger = dg.MultiPartitionKey({"variant": grids.LARGER_IPA, "seed": "2"})
    found = mapping.get_upstream_mapped_partitions_result_for_partitions(
        assets.PARTITIONS[ALIGNED].empty_subset().with_partition_keys([larger]),
        assets.PARTITIONS[ALIGNED],
        assets.PARTITIONS[PRETRAINED],
    )
    assert found.partitions_subset.get_partition_keys() == {
        dg.MultiPartitionKey({"variant": grids.LARGER, "seed": "2"})
    }
