"""Each process's share of every batch, in one or several pieces, from any step on."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Sampler


class BatchShare(NamedTuple):
    """What one process computes at once of a batch.

    Attributes:
        rows: Row numbers; none where there are more shares than rows.
        batch: Row numbers of the whole batch, that is of one optimiser step of all processes.
        shares: Shares that the batch is cut into.
    """

    rows: Tensor
    batch: Tensor
    shares: int


class DistributedBatches(Sampler[BatchShare]):
    """One process's shares of every batch of another sampler.

    The batches are the whole training's: with W processes and A pieces (gradient accumulation) each
    share takes every (W A)-th row, so that the batch size, the number of steps and the order depend
    on neither. It relies only on the other sampler giving the same sequence for the same epoch.
    """

    def __init__(
        self, batches: Sampler[Tensor], *, rank: int = 0, world_size: int = 1, accumulation: int = 1
    ) -> None:
        """Wrap a sampler.

        Args:
            batches: Gives the row numbers of one batch of all processes at a time.
            rank: This process, from 0.
            world_size: W, all processes.
            accumulation: A, pieces that each process computes its part of a batch in.
        """
        self.batches = batches
        self.rank = rank
        self.world_size = world_size
        self.accumulation = accumulation
        self._start = 0

    def start_at(self, step: int) -> None:
        """Leave out the first steps of the next pass; the passes after it are whole again."""
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
