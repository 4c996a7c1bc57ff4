"""What trainings, generation, evaluation and serving run on."""

from dataclasses import dataclass, replace
from typing import Literal

from onerec.config.fields import ValidatedConfig, option, require
from onerec.config.limits import LARGEST_BATCH, MOST_STEPS


@dataclass(frozen=True, kw_only=True)
class Runtime(ValidatedConfig):
    """Hardware, and how it is used. Each has an environment variable, `ONEREC_ACCELERATOR` say."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda"] = option(
        "auto", "'auto' is a GPU where torch finds one; 'gpu' and 'cuda' are the same"
    )
    devices: int = option(
        1,
        "Devices of a training on each node. With more than one in all it runs in a process "
        "per device, started by torch.distributed.run; each takes its share of every batch",
        ge=1,
        le=1024,
    )
    num_nodes: int = option(
        1, "Nodes of a training; they share the file system", ge=1, le=LARGEST_BATCH
    )
    sharding: Literal["replicas", "shards"] = option(
        "replicas",
        "What each process of a pretraining holds: the whole model, or with 'shards' (FSDP2) a "
        "share of weights, gradients and optimiser state, for models that exceed a card",
    )
    precision: Literal[
        "auto", "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true"
    ] = option(
        "auto",
        "Of trainings, in Lightning's words; 'auto' is bf16-mixed on a GPU that has it and 32-true "
        "elsewhere (docs/benchmarks.md has the figures of a CPU)",
    )
    compile: bool = option(
        False,
        "Compile the blocks with torch.compile; on a CPU it costs more than it gains "
        "(docs/benchmarks.md)",
    )
    threads: int = option(
        0,
        "Torch threads; 0 leaves torch's choice. Sums are rounded per thread, so the bytes of a "
        "checkpoint depend on it",
        ge=0,
        le=4096,
    )
    workers: Literal["in_process", "ray"] = option(
        "in_process",
        "What runs the stages that work user by user or item by item: this process, or Ray actors "
        "(the extra `ray`; RAY_ADDRESS names a cluster, else one starts on localhost)",
    )
    num_workers: int = option(2, "Ray actors of a stage at most", ge=1, le=LARGEST_BATCH)
    shard_rows: int = option(
        8192,
        "Users or items of a shard: what is lost when a worker dies, and what a worker holds",
        ge=1,
        le=MOST_STEPS,
    )
    checkpoint_every_steps: int = option(
        200,
        "Steps between two states written inside an epoch, from which a killed pretraining goes "
        "on; 0 writes only at the end of an epoch",
        ge=0,
        le=MOST_STEPS,
    )

    @property
    def processes(self) -> int:
        """Processes of one training."""
        return self.devices * self.num_nodes

    def on_one_device(self) -> "Runtime":
        """The same for work that one process does, generation say."""
        return replace(self, devices=1, num_nodes=1)

    def of_small_model(self) -> "Runtime":
        """The same for a model that every device holds whole; states are of whole epochs."""
        return replace(self, sharding="replicas", checkpoint_every_steps=0)

    def torch_device(self) -> Literal["cuda", "cpu"]:
        """Where models run: text encoder, training, generation, evaluation and serving.

        Raises:
            SettingError: A GPU is required and torch finds none.
        """
        import torch

        if self.accelerator == "cpu":
            return "cpu"
        if torch.cuda.is_available():
            return "cuda"
        require(
            self.accelerator == "auto",
            "accelerator",
            self.accelerator,
            "torch finds no GPU on this machine; use 'auto' or 'cpu'",
        )
        return "cpu"
