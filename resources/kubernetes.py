"""Training on several nodes: an Indexed Job of a Kubernetes cluster, followed by Dagster Pipes.

Nodes and the Dagster process share the volume of `ONEREC_HOME`, mounted at the same path: job
file, unfinished work and the messages of the first process lie there. (`dagster-k8s` has a client
that starts one pod; a training on several nodes is several pods that find one another.)
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from onerec.config import Runtime, SettingError, require

PORT = 29500
"""Where the processes meet, on the first pod."""
LOG_LINES = 40
POLL_SECONDS = 5.0
ENDING_SECONDS = 300.0
"""Pods of a job that a killed step left may take so long to end."""
PREFIX = "ONEREC_KUBERNETES_"


@dataclass(frozen=True, kw_only=True)
class KubernetesSettings:
    """Where pods start; each field is a variable, `ONEREC_KUBERNETES_IMAGE` say.

    Attributes:
        image: Has this package installed, with its dependencies.
        volume_claim: Persistent volume claim of `mount_path`, writable by all pods.
        mount_path: Has `ONEREC_HOME` below it, here and in the pods.
        namespace: Of job and service.
        liveness_seconds: A job that says nothing for so long is ended; image pulls count.
    """

    image: str
    volume_claim: str
    mount_path: str
    namespace: str = "default"
    liveness_seconds: int = 900


def kubernetes_settings(environ: Mapping[str, str] = os.environ) -> KubernetesSettings | None:
    """The settings of the environment; None without `ONEREC_KUBERNETES_IMAGE`.

    Raises:
        SettingError: A variable is missing or not legal.
    """
    given = {
        name: value
        for name in KubernetesSettings.__dataclass_fields__
        if (value := environ.get(PREFIX + name.upper()))
    }
    if "image" not in given:
        return None
    for name in ("volume_claim", "mount_path"):
        remedy = "name the volume that the nodes share, and where it is mounted"
        require(name in given, PREFIX + name.upper(), None, remedy)
    seconds = given.get("liveness_seconds", "900")
    if not (seconds.isdecimal() and int(seconds) > 0):
        raise SettingError(f"{PREFIX}LIVENESS_SECONDS", seconds, "use a number of seconds")
    return KubernetesSettings(**{**given, "liveness_seconds": int(seconds)})


class TrainingPodsError(RuntimeError):
    """Pods failed, or said nothing for too long; the message has the end of their log."""


@dataclass(frozen=True)
class PipesKubernetesJobClient:
    """Runs a module in one pod per node, each with one process per device.

    Attributes:
        settings: Where pods start.
        poll_seconds: Between two looks at the job.
    """

    settings: KubernetesSettings
    poll_seconds: float = POLL_SECONDS

    def run(
        self,
        *,
        context: dg.AssetExecutionContext,
        name: str,
        arguments: Sequence[str],
        runtime: Runtime,
        messages: Path,
    ) -> None:
        """Start the pods and wait until they have ended.

        Args:
            context: Of the asset; gets what the first process reports.
            name: Of the job, a DNS label of at most 50 characters.
            arguments: Of `torch.distributed.run`, after where the processes meet.
            runtime: Nodes and devices.
            messages: A file on the shared volume, for what the first process reports.

        Raises:
            TrainingPodsError: A pod failed, or nothing was reported for `liveness_seconds`.
        """
        from kubernetes import client, config

        config.load_config()
        batch, core = client.BatchV1Api(), client.CoreV1Api()
        with dg.open_pipes_session(
            context=context,
            context_injector=dg.PipesEnvContextInjector(),
            message_reader=dg.PipesFileMessageReader(str(messages)),
        ) as session:
            job = job_manifest(
                name, arguments, runtime, self.settings, session.get_bootstrap_env_vars()
            )
            namespace = self.settings.namespace
            with _alone(batch, core, name, namespace):
                core.create_namespaced_service(namespace, service_manifest(name))  # pyright: ignore[reportArgumentType]
                batch.create_namespaced_job(namespace, job)  # pyright: ignore[reportArgumentType]
                self._wait(batch, core, name, runtime.num_nodes, messages)

    def _wait(self, batch: Any, core: Any, name: str, nodes: int, messages: Path) -> None:
        namespace, limit = self.settings.namespace, self.settings.liveness_seconds
        size, heard = -1, time.monotonic()
        while True:
            status = batch.read_namespaced_job_status(name, namespace).status
            if (status.succeeded or 0) >= nodes:
                return
            if status.failed:
                ending = _end_of_logs(core, name, namespace)
                raise TrainingPodsError(f"{status.failed} pods of job {name} failed:\n{ending}")
            if messages.exists() and messages.stat().st_size != size:
                size, heard = messages.stat().st_size, time.monotonic()
            if time.monotonic() - heard > limit:
                raise TrainingPodsError(
                    f"job {name} reported nothing for {limit} s and was ended; if an image pull or "
                    f"an epoch takes longer, raise {PREFIX}LIVENESS_SECONDS. The training goes on "
                    f"from its last state.\n{_end_of_logs(core, name, namespace)}"
                )
            time.sleep(self.poll_seconds)


def job_manifest(
    name: str,
    arguments: Sequence[str],
    runtime: Runtime,
    settings: KubernetesSettings,
    environ: Mapping[str, str],
) -> dict[str, Any]:
    """An Indexed Job with a pod per node; pod i is `<name>-<i>.<name>`."""
    command = ["python", "-m", "torch.distributed.run"]
    command += [f"--nnodes={runtime.num_nodes}", f"--nproc-per-node={runtime.devices}"]
    command += [
        "--rdzv-backend=c10d",
        f"--rdzv-id={name}",
        f"--rdzv-endpoint={name}-0.{name}:{PORT}",
    ]
    container: dict[str, Any] = {
        "name": "training",
        "image": settings.image,
        "command": [*command, *arguments],
        "env": [{"name": key, "value": value} for key, value in environ.items()],
        "volumeMounts": [{"name": "home", "mountPath": settings.mount_path}],
    }
    if runtime.accelerator in ("gpu", "cuda"):
        container["resources"] = {"limits": {"nvidia.com/gpu": str(runtime.devices)}}
    claim = {"claimName": settings.volume_claim}
    pod = {
        "subdomain": name,
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "home", "persistentVolumeClaim": claim}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "completions": runtime.num_nodes,
            "parallelism": runtime.num_nodes,
            "completionMode": "Indexed",
            "backoffLimit": 0,  # the run is repeated as a whole, from the last state
            "template": {"spec": pod},
        },
    }


def service_manifest(name: str) -> dict[str, Any]:
    """The headless service that gives the pods their names; ready or not, they have to meet."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"job-name": name},
            "ports": [{"port": PORT}],
        },
    }


@contextmanager
def _alone(batch: Any, core: Any, name: str, namespace: str) -> Iterator[None]:
    """Job and service are gone before, left by a step that was killed, and go away afterwards."""
    _delete(batch, core, name, namespace)
    until = time.monotonic() + ENDING_SECONDS
    while core.list_namespaced_pod(namespace, label_selector=f"job-name={name}").items:
        if time.monotonic() > until:
            raise TrainingPodsError(
                f"pods of an earlier job {name} have not ended in {ENDING_SECONDS:.0f} s: look at "
                f"`kubectl -n {namespace} get pods -l job-name={name}`, and run the step again"
            )
        time.sleep(1)
    try:
        yield
    finally:
        _delete(batch, core, name, namespace)


def _delete(batch: Any, core: Any, name: str, namespace: str) -> None:
    from kubernetes.client import ApiException

    for delete, options in (
        (batch.delete_namespaced_job, {"propagation_policy": "Foreground"}),
        (core.delete_namespaced_service, {}),
    ):
        try:
            delete(name, namespace, **options)
        except ApiException as error:
            if error.status != 404:
                raise


def _end_of_logs(core: Any, name: str, namespace: str) -> str:
    """The last lines of each pod."""
    pods = core.list_namespaced_pod(namespace, label_selector=f"job-name={name}").items
    logs = (
        core.read_namespaced_pod_log(pod.metadata.name, namespace, tail_lines=LOG_LINES)
        for pod in pods
    )
    return "\n".join(f"{pod.metadata.name}: {log}" for pod, log in zip(pods, logs, strict=True))
