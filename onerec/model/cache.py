"""Keys and values of the tokens decoded so far, for the beams of every user.

Two ways to hold them behind one interface:

- `SharedCaches` keep one pool of tokens per user, in which a token is held once however many beams
  go on from it; a beam sees its own ancestors through a mask. Following a parent copies nothing;
  tokens that no beam continues are removed. After a few items the beams of a user
  have few different ancestors, so a pool is a fraction of a copy per beam.
- `RowCaches` keep a copy per beam, reordered by one gather: for very many beams of few tokens, as
  when a whole catalogue is scored, where a mask of beams against tokens would not fit.

Shapes: B batch, K beams of a user, X new tokens of a beam, P past tokens of a beam, S tokens of a
pool, D width, N heads, R = B * K rows, G groups of rows.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

LANES = 16
"""Pools are padded to a multiple of this many tokens. A vector unit adds that many numbers at once,
so a user's sums are made in the same order however long the others' pools are."""


class Past(NamedTuple):
    """What new tokens attend to, themselves included, in G groups of rows with the same past.

    Attributes:
        keys: (G, N, S, D // N).
        values: The same shape.
        mask: (G or 1, 1, R * X // G, S) added to the scores; None where all is visible.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None


class Cache(Protocol):
    """One layer's keys and values."""

    def append(self, keys_values: Tensor, num_heads: int) -> Past:
        """Add those of new tokens (R, X, 2 D)."""
        ...


class Caches(Protocol):
    """All layers' caches. Positions and masks are computed once for all of them."""

    @property
    def layers(self) -> list[Cache]: ...

    def reorder(self, parents: Tensor) -> None:
        """Let beam k of user b continue beam `parents[b, k]` (B, K'); only without gradients."""
        ...

    def prepare(self, beams: int, new: int, dtype: torch.dtype) -> None:
        """Make room for `new` more tokens of every beam, before each layer appends its own."""
        ...


class SharedCaches:
    """A pool per user and layer: the new tokens of all beams, then past ones still in use."""

    def __init__(self, num_layers: int, batch: int, device: torch.device) -> None:
        self._pools = [_Pool(self) for _ in range(num_layers)]
        self._visible = torch.zeros(batch, 1, 0, dtype=torch.bool, device=device)  # (B, K, S)
        self._parents: Tensor | None = None
        self.mask = torch.empty(0)
        self.rows = torch.empty(0, dtype=torch.long)
        self.room = 0

    @property
    def layers(self) -> list[Cache]:
        return list(self._pools)

    def reorder(self, parents: Tensor) -> None:
        assert self._parents is None, "beams are reordered once between two steps"
        self._parents = parents

    def prepare(self, beams: int, new: int, dtype: torch.dtype) -> None:
        seen = self._visible
        batch, _, size = seen.shape
        device = seen.device
        if self._parents is not None:
            seen = seen.gather(1, self._parents.unsqueeze(-1).expand(-1, -1, size))
            self._parents = None
        alive = seen.any(1)  # (B, S)
        living = int(alive.sum(1).max()) if size else 0
        self.room = beams * new
        total = -(-(self.room + living) // LANES) * LANES
        # a user's tokens in use, in their order, from place 0 on; other places are never read
        place = torch.where(alive, alive.cumsum(1) - 1, living)
        old = place.new_zeros(batch, living + 1)
        old.scatter_(1, place, torch.arange(size, device=device).expand(batch, -1))
        seen = seen.gather(2, old[:, None, :living].expand(-1, seen.shape[1], -1))
        seen &= (torch.arange(living, device=device) < alive.sum(1, keepdim=True)).unsqueeze(1)
        own = torch.eye(beams, dtype=torch.bool, device=device).repeat_interleave(new, dim=1)
        padding = (self.room, total - self.room - living)
        seen = F.pad(seen, padding)
        seen[:, :, : self.room] = own
        self._visible = seen
        first = torch.arange(batch, device=device).unsqueeze(1) * size
        self.rows = (F.pad(old[:, :living], padding) + first).flatten()

        queries = seen.repeat_interleave(new, dim=1)  # (B, K X, S)
        if new > 1:  # a token does not see those of its beam that come after it
            later = torch.ones(new, new, dtype=torch.bool, device=device).triu(1)
            queries[:, :, : self.room] &= ~later.repeat(beams, beams)
        hidden = queries.to(dtype).sub_(1).mul_(torch.finfo(dtype).max)  # 0 where visible
        self.mask = hidden.unsqueeze(1)


class _Pool:
    """One layer of `SharedCaches`: two buffers in turn, so that next to nothing is allocated."""

    def __init__(self, shared: SharedCaches) -> None:
        self._shared = shared
        self._data: Tensor | None = None  # (B, S, 2 D)
        self._buffers = [torch.empty(0), torch.empty(0)]

    def append(self, keys_values: Tensor, num_heads: int) -> Past:
        width, mask = keys_values.shape[-1], self._shared.mask
        batch, _, _, size = mask.shape
        length = batch * size * width
        if self._buffers[0].numel() < length:
            self._buffers[0] = keys_values.new_empty(length)
        data = self._buffers[0][:length].view(batch * size, width)
        if self._data is not None:
            torch.index_select(self._data.flatten(0, 1), 0, self._shared.rows, out=data)
        else:
            data.zero_()
        data = data.view(batch, size, width)
        data[:, : self._shared.room] = keys_values.view(batch, -1, width)
        self._data = data
        self._buffers.reverse()
        heads = data.unflatten(-1, (2, num_heads, -1)).permute(2, 0, 3, 1, 4)
        return Past(heads[0], heads[1], mask)


class RowCaches:
    """A copy per beam and layer, (P, R, 2 D), so that a new token is one write at the end."""

    def __init__(self, num_layers: int, capacity: int) -> None:
        self._rows = [_Rows(capacity) for _ in range(num_layers)]
        self._beams = 1

    @property
    def layers(self) -> list[Cache]:
        return list(self._rows)

    def reorder(self, parents: Tensor) -> None:
        first = torch.arange(len(parents), device=parents.device).unsqueeze(1) * self._beams
        self._beams = parents.shape[1]
        for rows in self._rows:
            rows.reorder((first + parents).flatten())

    def prepare(self, beams: int, new: int, dtype: torch.dtype) -> None:
        assert beams == self._beams, "as many beams as were followed"


class _Rows:
    """One layer of `RowCaches`."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._length = 0
        self._data: Tensor | None = None
        self._spare: Tensor | None = None

    def append(self, keys_values: Tensor, num_heads: int) -> Past:
        rows, new, width = keys_values.shape
        if self._data is None:
            self._data = keys_values.new_empty(self._capacity, rows, width)
        end = self._length + new
        self._data[self._length : end] = keys_values.transpose(0, 1)
        self._length = end
        past = self._data[:end].unflatten(-1, (2, num_heads, -1)).permute(2, 1, 3, 0, 4)
        mask = None  # one new token sees everything before it
        if new > 1:
            visible = torch.ones(new, end, dtype=past.dtype, device=past.device)
            mask = visible.tril(end - new).log().expand(1, 1, -1, -1)
        return Past(past[0], past[1], mask)

    def reorder(self, rows: Tensor) -> None:
        assert self._data is not None, "there is nothing to reorder before the first token"
        shape = (self._capacity, len(rows), self._data.shape[2])
        if self._spare is None or self._spare.shape != shape:
            self._spare = self._data.new_empty(shape)
        end = self._length
        torch.index_select(self._data[:end], 1, rows, out=self._spare[:end])
        self._data, self._spare = self._spare, self._data
