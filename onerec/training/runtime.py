"""Devices, precision and determinism of a training."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import nn
from torch.utils import deterministic as debugging

from onerec.config import Runtime, require
from onerec.model import OneRec
from onerec.model.blocks import DecoderBlock, EncoderBlock


def process_rank(runtime: Runtime) -> int:
    """Rank of this process in the training, from 0.

    Raises:
        ValueError: The launcher did not start one process per device.
    """
    if runtime.processes == 1:
        return 0
    launched = TorchElasticEnvironment()
    several = "devices" if runtime.devices > 1 else "num_nodes"
    require(
        launched.detect() and launched.world_size() == runtime.processes,
        several,
        getattr(runtime, several),
        "start a process for each: python -m torch.distributed.run --standalone "
        f"--nproc-per-node={runtime.devices} -m onerec.training --config job.json",
    )
    return launched.global_rank()


@contextmanager
def reproducible(runtime: Runtime) -> Iterator[None]:
    """Deterministic kernels where available, a fixed number of threads, no expected warnings.

    Random state, number of threads and deterministic mode of the caller are restored afterwards.
    """
    threads = torch.get_num_threads()
    fill = debugging.fill_uninitialized_memory  # pyright: ignore
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            for message in (
                ".*does not have many workers.*",  # batches are slices of memory
                ".*has no deterministic implementation.*",
                ".*does not have a deterministic implementation.*",
                ".*LeafSpec.*",
                ".*GPU available but not used.*",
                ".*checkpoint that ended before the epoch ended.*",  # a resumed epoch starts late
                ".*attribute of a Tensor that is not a leaf.*",  # the tracer of torch.compile
                ".*FSDP2-wrapped module .* returned a view tensor.*",  # nothing writes into it
                ".*eval mode at the start of training.*",  # alignment trains without dropout
            ):
                warnings.filterwarnings("ignore", message=message)
            torch.use_deterministic_algorithms(True, warn_only=True)
            # deterministic mode fills new tensors with NaN to detect uninitialised reads: slow
            debugging.fill_uninitialized_memory = False  # pyright: ignore
            if runtime.threads:
                torch.set_num_threads(runtime.threads)
            yield
    finally:
        log.setLevel(level)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        debugging.fill_uninitialized_memory = fill  # pyright: ignore
        torch.set_num_threads(threads)


def precision_of(runtime: Runtime) -> str:
    """Lightning's name of the precision."""
    if runtime.precision != "auto":
        return runtime.precision
    gpu = runtime.torch_device() == "cuda"
    return "bf16-mixed" if gpu and torch.cuda.is_bf16_supported() else "32-true"


def compile_blocks(model: OneRec, *, backend: str = "inductor") -> None:
    """Compile every block with `torch.compile` in place; names of weights stay.

    Blocks are compiled separately, as blocks of one kind share a compilation, and with dynamic
    shapes, as batches differ in length.
    """
    for module in model.modules():
        if isinstance(module, (EncoderBlock, DecoderBlock)):
            module.compile(dynamic=True, backend=backend)


@contextmanager
def weights_put_back(model: nn.Module) -> Iterator[None]:
    """A block may train the model; afterwards it has its weights and buffers of before."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    yield
    model.load_state_dict(before)
