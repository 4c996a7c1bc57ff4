"""What one process takes of an order of batches, from any step on."""

from collections.abc import Iterator
from itertools import islice

from torch import Tensor
from torch.utils.data import Sampler


class DistributedBatches(Sampler[Tensor]):
    """One process's rows of every batch of another sampler, which may be told to start later.

    The batches are the whole training's: with W processes each takes every W-th row, so that the
    batch size, the number of steps and the order do not depend on W. It relies only on the other
    sampler giving the same sequence for the same epoch.
    """

    def __init__(self, batches: Sampler[Tensor], *, rank: int = 0, world_size: int = 1) -> None:
        """Wrap a sampler.

        Args:
            batches: Gives the row numbers of one batch of all processes at a time.
            rank: This process, from 0.
            world_size: W, all processes.
        """
        self.batches = batches
        self.rank = rank
        self.world_size = world_size
        self._start = 0

    def start_at(self, step: int) -> None:
        """Leave out the first steps of the next pass; the passes after it are whole again."""
        self._start = step

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)  # pyright: ignore

    def __len__(self) -> int:
        return len(self.batches)  # pyright: ignore

    def __iter__(self) -> Iterator[Tensor]:
        start, self._start = self._start, 0
        for rows in islice(self.batches, start, None):
            yield rows[self.rank :: self.world_size]
