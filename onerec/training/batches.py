"""Batches by row number: a batch selects rows of tensors in memory or mapped from files."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

from onerec.model import Histories, OneRec, UserHistories
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.session_dataset.reader import BATCH_ROWS
from onerec.session_dataset.rows_on_disk import RowsOnDisk
from onerec.training.distributed_batches import BatchShare, DistributedBatches


def epoch_seed(seed: int, epoch: int, stream: int = 0) -> int:
    """A seed of one epoch, so that a resumed epoch has the same order as an uninterrupted one."""
    return int(np.random.SeedSequence([seed, epoch, stream]).generate_state(1)[0])


class ShuffledBatches(Sampler[Tensor]):
    """Row numbers of each batch of an epoch, in an order drawn from (seed, epoch).

    Lightning calls `set_epoch` before every epoch, also when resuming.
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


LENGTH_WINDOW = 64
"""Batches whose rows are sorted together: more mean less padding and less random batches."""


class LengthGroupedBatches(Sampler[Tensor]):
    """Batches of rows of similar length, so that little of a batch is padding.

    An epoch's order is drawn from (seed, epoch), as in `ShuffledBatches`. Within every `window`
    batches of it rows are sorted by history length and, within groups of some batches of those, by
    the number of targets; then the batches are shuffled. The size of the groups is the power of 2
    with the least padding. Every row comes exactly once an epoch. A window of 1 only shuffles.
    """

    def __init__(
        self,
        history: Tensor,
        targets: Tensor,
        batch_size: int,
        seed: int,
        *,
        window: int = LENGTH_WINDOW,
        history_tokens: int,
        target_tokens: int,
    ) -> None:
        """Set up.

        Args:
            history: (S, H) item indices, -1 padded on the right.
            targets: (S, M) item indices, -1 padded on the right.
            batch_size: Rows per batch.
            seed: Seed of the order.
            window: Batches whose rows are sorted together.
            history_tokens: Tokens the encoder reads per item.
            target_tokens: Tokens the decoder reads per item.
        """
        self.lengths = lengths(history), lengths(targets)
        self.tokens = history_tokens, target_tokens
        self.batch_size = batch_size
        self.seed = seed
        self.window = window
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths[0]) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
        rows = torch.randperm(len(self.lengths[0]), generator=generator)
        if self.window == 1:
            yield from rows.split(self.batch_size)
            return
        groups = [2**n for n in range(self.window.bit_length()) if 2**n <= self.window]
        sorted_rows = [self._sorted(rows, group) for group in groups]
        best = min(sorted_rows, key=self._computed).split(self.batch_size)
        for batch in torch.randperm(len(best), generator=generator).tolist():
            yield best[batch]

    def padding_waste(self) -> float:
        """Share of padding among this epoch's tokens, in trimmed batches."""
        real = sum(n * int(each.sum()) for n, each in zip(self.tokens, self.lengths, strict=True))
        return 1 - real / max(1, self._computed(torch.cat(list(self))))

    def _sorted(self, rows: Tensor, group: int) -> Tensor:
        """Rows by history length within windows, then by targets within groups of batches."""
        for row_lengths, batches in zip(self.lengths, (self.window, group), strict=True):
            part = torch.arange(len(rows)) // (batches * self.batch_size)
            here = row_lengths[rows]
            rows = rows[(part * (int(here.max()) + 1) + here).argsort(stable=True)]
        return rows

    def _computed(self, rows: Tensor) -> int:
        """Tokens, padding included, of the rows (S,) in trimmed batches; the last may be short."""
        total = 0
        for tokens, row_lengths in zip(self.tokens, self.lengths, strict=True):
            padded = F.pad(row_lengths[rows], (0, -len(rows) % self.batch_size))
            widest = padded.view(-1, self.batch_size).amax(dim=1)
            sizes = torch.full_like(widest, self.batch_size)
            sizes[-1] -= len(padded) - len(rows)
            total += tokens * int((sizes * widest).sum())
        return total


def lengths(items: Tensor) -> Tensor:
    """Number of items in each right-padded row (B, L) -> (B,) long; a block of rows at a time."""
    return torch.cat([(block >= 0).sum(dim=1) for block in items.split(2**16)])


def trimmed(items: Tensor) -> Tensor:
    """Right-padded rows (B, L) without columns of padding only; at least one column stays."""
    return items[:, : max(1, int(lengths(items).max()) if len(items) else 0)]


class DrawnBatches(Sampler[Tensor]):
    """Batches that a function draws for every epoch, from one random number generator.

    Its state continues from epoch to epoch: a resumed training has to restore it.
    """

    def __init__(
        self, draw: Callable[[torch.Generator], Sequence[Tensor]], generator: torch.Generator
    ) -> None:
        """Set up.

        Args:
            draw: Returns the row numbers of an epoch's batches, equally many in every epoch.
            generator: Random number generator passed to `draw`.
        """
        self.draw = draw
        self.generator = generator
        self._num_batches = len(draw(torch.Generator()))

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.draw(self.generator)


def length_buckets(
    row_lengths: Tensor, batch_items: int, generator: torch.Generator
) -> list[Tensor]:
    """Batches of rows of similar length with about the same number of items, in random order.

    Args:
        row_lengths: (R,) items of each row.
        batch_items: Approximate number of items of a batch.
        generator: Random order of rows of equal length and of the batches.

    Returns:
        Row numbers of every batch; each row once.
    """
    shuffled = torch.randperm(len(row_lengths), generator=generator)
    rows = shuffled[row_lengths[shuffled].argsort(stable=True)]
    batch = (row_lengths[rows].cumsum(0) - 1) // batch_items
    counts = torch.unique_consecutive(batch, return_counts=True)[1].tolist()
    parts = rows.split(counts)
    return [parts[i] for i in torch.randperm(len(parts), generator=generator).tolist()]


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
    """Row-aligned tensors; indexing with a share of a batch gives its rows of each.

    A share without rows gives a row of padding (-1), which has no loss: a process without rows of a
    batch still takes part in the step.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    def __getitem__(self, share: BatchShare) -> tuple[Tensor, ...]:  # pyright: ignore
        if not len(share.rows):
            return tuple(t.new_full((1, *t.shape[1:]), -1) for t in self.tensors)
        return tuple(t[share.rows] for t in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


class WeightedRows(Rows):
    """Rows with the weight of a share's mean loss, a scalar.

    The weight is the fraction of the batch's rows times the number of shares, so that the mean of
    the shares' weighted losses is the batch's mean loss.
    """

    def __getitem__(self, share: BatchShare) -> tuple[Tensor, ...]:  # pyright: ignore
        weight = torch.tensor(len(share.rows) * share.shares / len(share.batch))
        return *super().__getitem__(share), weight


class SessionRows(Rows):
    """Histories (S, H) and targets (S, M) of item indices, -1 padded on the right.

    A share is trimmed to its longest row. It comes with a scalar weight: its fraction of the
    batch's targets times the number of shares, so that the mean of the shares' weighted losses is
    the batch's mean loss. Its histories are `UserHistories` where users are known.

    Attributes:
        seconds: Time spent on making batches so far.
    """

    def __init__(self, history: Tensor, targets: Tensor, users: Tensor | None = None) -> None:
        """Set up; `users` (S, F) are codes of the sessions' users."""
        super().__init__(history, targets, *([] if users is None else [users]))
        self.num_targets = lengths(targets)
        self.seconds = 0.0

    @classmethod
    def of(cls, model: OneRec, sessions: SessionTensors) -> "SessionRows":
        """Sessions as a model reads them; the codes of users are on disk."""
        if model.users is None:
            return cls(sessions.history, sessions.targets)
        codes = model.users.vocabulary.codes(sessions.attributes, len(sessions.user_ids)).int()
        with RowsOnDisk(codes.shape[1]) as rows:
            for users in sessions.user.split(BATCH_ROWS):
                rows.append(codes[users].numpy())
            return cls(sessions.history, sessions.targets, rows.tensor())

    def __getitem__(self, share: BatchShare) -> tuple[Histories, Tensor, Tensor]:  # pyright: ignore
        began = time.perf_counter()
        history, targets, *users = super().__getitem__(share)
        history, targets = trimmed(history), trimmed(targets)
        own, whole = (self.num_targets[rows].sum() for rows in (share.rows, share.batch))
        weight = own * share.shares / whole.clamp(min=1)
        known = UserHistories(history, users[0].clamp(min=0)) if users else history
        self.seconds += time.perf_counter() - began
        return known, targets, weight


def loader_of(batches: DistributedBatches, rows: Rows) -> DataLoader[tuple[Any, ...]]:
    """A loader whose items are complete shares of batches: no workers, no collation."""
    # A separate generator: creating the iterator must not change the random state of dropout.
    return DataLoader(rows, sampler=batches, batch_size=None, generator=torch.Generator())
