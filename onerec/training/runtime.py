"""What a training runs on, and how it is kept quiet and repeatable there."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import lightning as L
import torch

from onerec.config import require


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Hardware of one training, in Lightning's words.

    Attributes:
        accelerator: `auto`, `cpu` or `gpu`.
        devices: Devices of one training; only 1 so far.
        precision: `32-true`, `bf16-mixed`, ...
        threads: Torch threads; 0 leaves torch's choice. Sums are rounded per thread, so the bytes
            of a checkpoint depend on it.
    """

    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    threads: int = 0

    def __post_init__(self) -> None:
        require(self.devices == 1, "devices", self.devices, "use 1: one device trains a model")
        require(self.threads >= 0, "threads", self.threads, "use 0 for torch's choice, or more")


@contextmanager
def reproducible(runtime: Runtime) -> Iterator[None]:
    """Deterministic kernels where there are any, a set number of threads, no chatter.

    The caller's random state, thread count and deterministic mode come back afterwards.
    """
    threads = torch.get_num_threads()
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
            ):
                warnings.filterwarnings("ignore", message=message)
            torch.use_deterministic_algorithms(True, warn_only=True)
            if runtime.threads:
                torch.set_num_threads(runtime.threads)
            yield
    finally:
        log.setLevel(level)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_num_threads(threads)


def quiet_trainer(
    runtime: Runtime, *, max_epochs: int, gradient_clip: float, callbacks: Sequence[L.Callback]
) -> L.Trainer:
    """A Lightning trainer that writes nothing by itself: callbacks keep what is to be kept."""
    return L.Trainer(
        accelerator=runtime.accelerator,
        devices=runtime.devices,
        precision=runtime.precision,  # pyright: ignore
        max_epochs=max_epochs,
        gradient_clip_val=gradient_clip or None,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic="warn",
    )
