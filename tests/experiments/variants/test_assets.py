"""Grids and tables as Dagster runs them, on a small published night."""

import json
from pathlib import Path

import dagster as dg
import pytest

from experiments.nightly_artifacts import published_night
from experiments.variants import assets as experiments
from experiments.variants import grids as lists
from onerec.artifacts import ArtifactStore
from onerec.evaluation.metric_table import MetricTable
from resources.stores import Artifacts, Compute
from tests.experiments import published_night as small

KEY = dg.MultiPartitionKey({"method": "ipa", "seed": "0"})


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
        resources={"artifacts": Artifacts(url=store.root), "compute": compute},
        instance=instance,
    )


@pytest.fixture(scope="module")
def compared(store: ArtifactStore, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    reference = dg.MultiPartitionKey({"method": "pretrained", "seed": "0"})
    run(store, instance, experiments.alignment_grid, reference)
    return run(store, instance, experiments.alignment_grid, KEY)


def test_a_partition_is_an_artifact_with_its_numbers_and_upstream_versions(
    store: ArtifactStore, compared: dg.ExecuteInProcessResult
):
    (event,) = compared.get_asset_materialization_events()
    metadata = event.materialization.metadata
    artifact = store.latest("alignment_grid", "ipa-0").verify()
    recall = MetricTable.load(artifact.path).find("variant", "recall@10")
    assert metadata["recall@10"].value == pytest.approx(recall.mean)
    assert metadata["day"].value == small.DAY
    assert "data:image/svg" in str(metadata["recall@10 beside the night"].value)
    reward = store.latest("reward_model", small.DAY)
    assert artifact.manifest["upstream"]["reward_model"] == reward.version
    assert "offline_metrics" not in artifact.manifest["upstream"]


def test_a_result_is_current_until_something_it_read_changes(
    store: ArtifactStore, compared: dg.ExecuteInProcessResult, monkeypatch: pytest.MonkeyPatch
):
    base = published_night(store, small.DAY).base
    ipa = lists.alignment_variants(base)["ipa"]

    def current(variant=ipa) -> bool:
        return experiments.is_current(store, "alignment_grid", variant, small.DAY)

    assert current()
    assert not current(lists.alignment_variants(base)["ipo"]), "never made"
    assert not current(lists.alignment_variants(base, 1)["ipa"]), "another seed"
    with monkeypatch.context() as patch:
        patch.setattr(experiments, "CODE", "other")
        assert not current(), "other code"
    with monkeypatch.context() as patch:
        patch.setitem(lists.METHODS, "ipa", {"beta": 0.2})
        assert not current(lists.alignment_variants(base)["ipa"]), "another setting"


def test_the_table_pools_what_is_there(
    store: ArtifactStore,
    instance: dg.DagsterInstance,
    compared: dg.ExecuteInProcessResult,
    tables_dir: Path,
):
    result = run(store, instance, experiments.alignment_table)
    assert result.success
    name = f"alignment_{experiments.SETTINGS.dataset}"
    rows = json.loads((tables_dir / f"{name}.json").read_text())
    assert {row["system"] for row in rows} == {"pretrained", "ipa"}
    assert {row["seconds"] for row in rows if row["metric"] == "recall@10"} == {
        0.0,
        experiments.recorded(instance, "alignment_grid", KEY, "seconds"),
    }
    (event,) = result.get_asset_materialization_events()
    assert "| pretrained |" in str(event.materialization.metadata[name].value)


def test_a_table_without_results_says_what_to_do(store: ArtifactStore):
    with dg.DagsterInstance.ephemeral() as empty:
        with pytest.raises(dg.Failure, match="materialise its partitions first, default, ipa"):
            run(store, empty, experiments.ablation_table)


def test_the_nightly_run_leaves_experiments_out():
    from experiments.definitions import defs as second
    from onerec_dagster.definitions import defs

    grouped = experiments.GROUP
    mine = {s.key for s in second.resolve_all_asset_specs() if s.group_name == grouped}
    assert {key.to_user_string() for key in mine} >= {*experiments.GRIDS, "walk_forward_table"}
    assert not mine & {spec.key for spec in defs.resolve_all_asset_specs()}
