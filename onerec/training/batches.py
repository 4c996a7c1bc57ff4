"""Batches by index: the tensors stay in memory and a step asks for the rows of its batch."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler


def epoch_seed(seed: int, epoch: int, stream: int = 0) -> int:
    """A seed that depends on the epoch alone, so that a resumed epoch repeats itself."""
    return int(np.random.SeedSequence([seed, epoch, stream]).generate_state(1)[0])


class ShuffledBatches(Sampler[Tensor]):
    """Row numbers of each batch of an epoch, in an order drawn from (seed, epoch).

    Lightning calls `set_epoch` before every epoch, after a resume too.
    """

    def __init__(self, num_rows: int, batch_size: int, seed: int) -> None:
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_rows // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
        yield from torch.randperm(self.num_rows, generator=generator).split(self.batch_size)


class OrderedBatches(Sampler[Tensor]):
    """Row numbers of each batch, first row to last."""

    def __init__(self, num_rows: int, batch_size: int) -> None:
        self.num_rows = num_rows
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-self.num_rows // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        yield from torch.arange(self.num_rows).split(self.batch_size)


class Rows(Dataset[tuple[Tensor, ...]]):
    """Row-aligned tensors; indexing with row numbers (B,) gives one batch of each.

    No row number gives a row of padding (-1), which carries no loss: a process whose share of a
    batch is nothing takes the step with the others.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    def __getitem__(self, index: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore
        if not len(index):
            return tuple(t.new_full((1, *t.shape[1:]), -1) for t in self.tensors)
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


def loader(sampler: Sampler[Tensor], *tensors: Tensor) -> DataLoader[tuple[Tensor, ...]]:
    """A loader whose every item is a batch already: no worker, no collation."""
    # A generator of its own: creating the iterator must not draw from the stream dropout uses.
    return DataLoader(Rows(*tensors), sampler=sampler, batch_size=None, generator=torch.Generator())
