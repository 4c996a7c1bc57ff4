"""Batches of similar length: every row once, little padding, the same for the same epoch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onerec.training.batches import (
    LengthGroupedBatches,
    SessionRows,
    lengths,
    loader_of,
)
from onerec.training.distributed_batches import BatchShare, DistributedBatches


def items_of_lengths(row_lengths: torch.Tensor, width: int) -> torch.Tensor:
    """Right-padded rows that hold their row number."""
    rows = torch.arange(len(row_lengths)).unsqueeze(1).expand(-1, width)
    return torch.where(torch.arange(width) < row_lengths.unsqueeze(1), rows, -1)


def alike(
    num: int, *, batch_size: int = 32, window: int = 16, seed: int = 0
) -> tuple[LengthGroupedBatches, torch.Tensor, torch.Tensor]:
    """Histories of 0 to 64 items, most of them short or full, and sessions of 1 to 5."""
    generator = torch.Generator().manual_seed(num)
    drawn = torch.empty(num).exponential_(1 / 30, generator=generator).long().clamp(max=64)
    history = items_of_lengths(drawn, 64)
    targets = items_of_lengths(torch.randint(1, 6, (num,), generator=generator), 5)
    return batches_of(history, targets, batch_size, seed, window), history, targets


def batches_of(
    history: torch.Tensor, targets: torch.Tensor, batch_size: int, seed: int, window: int
) -> LengthGroupedBatches:
    return LengthGroupedBatches(
        history, targets, batch_size, seed, window=window, history_tokens=10, target_tokens=5
    )


@settings(deadline=None, max_examples=40)
@given(
    num=st.integers(1, 300),
    batch_size=st.integers(1, 40),
    window=st.integers(1, 20),
    epoch=st.integers(0, 3),
)
def test_every_row_exactly_once(num: int, batch_size: int, window: int, epoch: int) -> None:
    order, _, _ = alike(num, batch_size=batch_size, window=window)
    order.set_epoch(epoch)
    batches = list(order)
    assert len(batches) == len(order)
    assert sorted(torch.cat(batches).tolist()) == list(range(num))
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)


def test_an_epoch_repeats_itself_and_no_other() -> None:
    def rows(epoch: int, seed: int = 0) -> list[int]:
        order, _, _ = alike(500, seed=seed)
        order.set_epoch(epoch)
        return torch.cat(list(order)).tolist()

    assert rows(3) == rows(3)
    assert len({tuple(rows(0)), tuple(rows(1)), tuple(rows(0, seed=1))}) == 3


def test_little_is_padding() -> None:
    sorted_, _, _ = alike(20_000, batch_size=128, window=64)
    shuffled, _, _ = alike(20_000, batch_size=128, window=1)
    assert sorted_.padding_waste() < 0.1
    assert shuffled.padding_waste() > 0.3


def test_padding_waste_by_hand() -> None:
    history = items_of_lengths(torch.tensor([1, 3, 3]), 4)
    targets = items_of_lengths(torch.tensor([2, 1, 1]), 2)
    cost = {  # of the batch of two, then of the batch of one: 10 tokens an item read, 5 written
        (0, 1): 10 * (2 * 3 + 3) + 5 * (2 * 2 + 1),
        (0, 2): 10 * (2 * 3 + 3) + 5 * (2 * 2 + 1),
        (1, 2): 10 * (2 * 3 + 1) + 5 * (2 * 1 + 2),
    }
    for epoch in range(6):
        order = batches_of(history, targets, 2, 0, window=1)
        order.set_epoch(epoch)
        first = tuple(sorted(next(iter(order)).tolist()))
        assert order.padding_waste() == pytest.approx(1 - (10 * 7 + 5 * 4) / cost[first])


def test_batches_are_as_wide_as_their_longest_row() -> None:
    order, history, targets = alike(300)
    rows = SessionRows(history, targets)
    loader = loader_of(DistributedBatches(order), rows)
    for index, (trimmed, sessions, weight) in zip(order, loader, strict=True):
        width = trimmed.shape[1]
        assert width == max(1, int(lengths(history[index]).max()))
        assert torch.equal(trimmed, history[index][:, :width])
        assert torch.equal(sessions, targets[index][:, : sessions.shape[1]])
        assert (history[index][:, width:] == -1).all()
        assert weight == 1.0
    assert rows.seconds > 0


def test_empty_histories_keep_a_column() -> None:
    rows = SessionRows(torch.full((3, 4), -1), torch.tensor([[5, 6], [7, -1], [8, -1]]))
    batch = torch.arange(3)
    history, targets, weight = rows[BatchShare(batch[:1], batch, 2)]
    assert history.tolist() == [[-1]]
    assert targets.tolist() == [[5, 6]]
    assert weight == 2 * 2 / 4  # two of four targets in one of two shares
    nothing, _, weight = rows[BatchShare(batch[:0], batch, 2)]  # it reads a row of padding
    assert nothing.tolist() == [[-1]]
    assert weight == 0
