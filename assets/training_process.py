"""Trainings of the nightly run: in the step's process, or in one process per device and node.

Lightning starts processes by running the parent's command again, and a Dagster step's parent is
Dagster: so the launcher is torch's own, started through Dagster Pipes, and the first process
reports to the asset's log.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from dagster_pipes import open_dagster_pipes

from onerec.artifacts import write_json
from resources.kubernetes import PipesKubernetesJobClient, kubernetes_settings
from resources.settings import CHECKOUT

if TYPE_CHECKING:
    from onerec.config import Runtime
    from onerec.training.launch import Job


def run_training(
    context: dg.AssetExecutionContext, job: "Job", *, out_dir: Path, scratch: Path
) -> Mapping[str, float]:
    """Train here, or on several devices: in processes of this machine, or in pods.

    Args:
        context: Of the asset.
        job: What to train.
        out_dir: Gets the files.
        scratch: Unfinished work; goes on from there when killed.

    Returns:
        What a clock measured, by name; nothing of other processes.

    Raises:
        ValueError: Several nodes, and no cluster to start pods on.
    """
    from onerec.training.launch import job_to_json

    runtime = job.runtime
    if runtime.processes == 1:
        return job.run(out_dir, scratch=scratch, log=context.log.info)
    out, file = scratch / "out", scratch / "job.json"
    if not out.exists():  # else killed after the training, before its result was taken
        places = {"out": str(out), "scratch": str(scratch / "work")}
        write_json(file, job_to_json(job) | places)
        arguments = ["-m", "assets.training_process", "--config", str(file)]
        arguments += ["--job", f"{type(job).__module__}.{type(job).__qualname__}"]
        _start_processes(context, arguments, runtime, scratch)
    shutil.copytree(out, out_dir, dirs_exist_ok=True)
    return {}


def _start_processes(
    context: dg.AssetExecutionContext, arguments: list[str], runtime: "Runtime", scratch: Path
) -> None:
    """One process per device, on this machine or in a pod for each node."""
    from onerec.config import require

    if runtime.num_nodes == 1:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc-per-node={runtime.devices}", *arguments]
        dg.PipesSubprocessClient(cwd=str(CHECKOUT)).run(context=context, command=command)
        return
    pods = kubernetes_settings()
    require(
        pods is not None,
        "num_nodes",
        runtime.num_nodes,
        "set ONEREC_KUBERNETES_IMAGE, or start `python -m torch.distributed.run ... -m "
        "onerec.training` on every node yourself",
    )
    assert pods is not None
    asset = context.asset_key.to_user_string().replace("_", "-")[:30]
    PipesKubernetesJobClient(pods).run(
        context=context,
        name=f"onerec-{asset}-{scratch.name[:8]}",  # of this training: two of it never run
        arguments=arguments,
        runtime=runtime,
        messages=scratch / "messages.jsonl",
    )


def main() -> None:
    """A process's share of the training; the arguments are those of `python -m onerec.training`."""
    # the code location imports every module of this package, and must not load torch
    from onerec.training.__main__ import main as train

    if int(os.environ["RANK"]) > 0:
        train()
        return
    with open_dagster_pipes() as pipes:
        train(on_message=pipes.log.info)


if __name__ == "__main__":
    main()
