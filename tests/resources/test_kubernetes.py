"""A training on two nodes, each a pod of a small API on localhost, and pods that fail."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from onerec.artifacts import ArtifactStore
from onerec.config import Runtime, SettingError
from resources.kubernetes import (
    KubernetesSettings,
    PipesKubernetesJobClient,
    TrainingPodsError,
    job_manifest,
    kubernetes_settings,
)
from tests.assets.test_training_asset import SETTINGS, metadata_of, run, store  # noqa: F401
from tests.resources.kubernetes_api import Cluster, cluster

pytest.importorskip("kubernetes", reason="the extra `kubernetes` is not installed")
TWO = Runtime(accelerator="cpu", threads=1, num_nodes=2)


@pytest.fixture
def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    directory = tmp_path / "cluster"
    directory.mkdir()
    with cluster(directory) as found:
        monkeypatch.setattr("kubernetes.config.load_config", lambda: _load(directory))
        for name, value in {
            "IMAGE": "registry.example/onerec:1",
            "VOLUME_CLAIM": "home",
            "MOUNT_PATH": str(tmp_path),
            "LIVENESS_SECONDS": "200",
        }.items():
            monkeypatch.setenv(f"ONEREC_KUBERNETES_{name}", value)
        yield found


def _load(directory: Path) -> None:
    from kubernetes.config import load_kube_config

    load_kube_config(str(directory / "kubeconfig"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*run_id.*:DeprecationWarning")  # Dagster's own Pipes
def test_two_pods_train_what_one_process_trains(
    store: ArtifactStore,  # noqa: F811
    pods: Cluster,
) -> None:
    exactly = SETTINGS | {"model": SETTINGS["model"] | {"dropout": 0.0}}
    one = metadata_of(run(store, settings=exactly))
    two = metadata_of(run(store, settings=exactly, nodes=2))
    assert two["validation loss"] == pytest.approx(one["validation loss"], rel=1e-4)
    (job,) = pods.jobs
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    assert not pods.pods
    assert not pods.services


def follow(tmp_path: Path, script: str, seconds: int) -> None:
    """Run a script as the pods of a job, inside an asset."""
    settings = KubernetesSettings(
        image="i", volume_claim="c", mount_path=str(tmp_path), liveness_seconds=seconds
    )
    file = tmp_path / "script.py"
    file.write_text(script)
    client = PipesKubernetesJobClient(settings, poll_seconds=0.2)

    @dg.asset
    def training(context: dg.AssetExecutionContext) -> None:
        client.run(
            context=context,
            name="onerec-training",
            arguments=[str(file)],
            runtime=dataclasses.replace(TWO, num_nodes=1),
            messages=tmp_path / "messages",
        )

    dg.materialize([training])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*run_id.*:DeprecationWarning")
def test_the_log_of_a_failed_pod_is_shown(tmp_path: Path, pods: Cluster) -> None:
    with pytest.raises(TrainingPodsError, match=r"1 pods of job .* failed:\n.*no room left"):
        follow(tmp_path, "raise SystemExit('no room left')", 200)
    assert not pods.pods


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*run_id.*:DeprecationWarning")
def test_a_job_that_says_nothing_is_ended(tmp_path: Path, pods: Cluster) -> None:
    began = time.monotonic()
    with pytest.raises(TrainingPodsError, match=r"reported nothing for 1 s .*LIVENESS_SECONDS"):
        follow(tmp_path, "import time; time.sleep(600)", 1)
    assert time.monotonic() - began < 100
    assert not pods.pods
    assert not pods.services


def test_pods_meet_on_the_first_one_and_get_the_gpus() -> None:
    settings = KubernetesSettings(image="i", volume_claim="claim", mount_path="/data")
    runtime = Runtime(accelerator="gpu", devices=8, num_nodes=4)
    job = job_manifest("onerec-x", ["-m", "module"], runtime, settings, {"A": "b"})
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == [
        "python", "-m", "torch.distributed.run", "--nnodes=4", "--nproc-per-node=8",
        "--rdzv-backend=c10d", "--rdzv-id=onerec-x",
        "--rdzv-endpoint=onerec-x-0.onerec-x:29500", "-m", "module",
    ]  # fmt: skip
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "8"}}
    assert pod["subdomain"] == job["metadata"]["name"]


def test_settings_name_what_is_missing() -> None:
    assert kubernetes_settings({}) is None
    image = {"ONEREC_KUBERNETES_IMAGE": "i"}
    with pytest.raises(SettingError, match="ONEREC_KUBERNETES_VOLUME_CLAIM=None: name the volume"):
        kubernetes_settings(image)
    whole = image | {"ONEREC_KUBERNETES_VOLUME_CLAIM": "c", "ONEREC_KUBERNETES_MOUNT_PATH": "/d"}
    found = kubernetes_settings(whole | {"ONEREC_KUBERNETES_NAMESPACE": "ml"})
    assert found == KubernetesSettings(image="i", volume_claim="c", mount_path="/d", namespace="ml")
    with pytest.raises(SettingError, match="LIVENESS_SECONDS='soon': use a number of seconds"):
        kubernetes_settings(whole | {"ONEREC_KUBERNETES_LIVENESS_SECONDS": "soon"})
