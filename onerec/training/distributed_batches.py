"""Divides every batch among processes and accumulation steps, and can start at any step."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Sampler


class BatchShare(NamedTuple):
    """The rows of a batch that one process computes at once.

    Attributes:
        rows: Row numbers; empty where there are more shares than rows.
        batch: Row numbers of the whole batch, one optimiser step of all processes.
        shares: Number of shares of the batch.
    """

    rows: Tensor
    batch: Tensor
    shares: int


class DistributedBatches(Sampler[BatchShare]):
    """One process's shares of every batch of another sampler.

    Batches are global: with W processes and A accumulation steps each share takes every (W A)-th
    row, so that batch size, number of steps and order depend on neither. The other sampler has to
    give the same sequence in every process.
    """

    def __init__(
        self, batches: Sampler[Tensor], *, rank: int = 0, world_size: int = 1, accumulation: int = 1
    ) -> None:
        """Wrap a sampler.

        Args:
            batches: Yields the row numbers of global batches.
            rank: Rank of this process, from 0.
            world_size: W, number of processes.
            accumulation: A, gradient accumulation steps per batch.
        """
        self.batches = batches
        self.rank = rank
        self.world_size = world_size
        self.accumulation = accumulation
        self._start = 0

    def start_at(self, step: int) -> None:
        """Skip the first steps of the next epoch; later epochs are complete."""
        self._start = step

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)  # pyright: ignore

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return len(self.batches)  # pyright: ignore

    def __len__(self) -> int:
        return self.steps * self.accumulation

    def __iter__(self) -> Iterator[BatchShare]:
        start, self._start = self._start, 0
        shares = self.world_size * self.accumulation
        for batch in islice(self.batches, start, None):
            for first in range(self.rank, shares, self.world_size):
                yield BatchShare(batch[first::shares], batch, shares)
