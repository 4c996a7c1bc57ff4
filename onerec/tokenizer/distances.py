"""Scores of vectors against centroids, block by block. Shapes: N items, D width, K centroids."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

BLOCK_SCORES = 1 << 21
"""Most scores in memory at once: 8 MiB, about the size of a cache."""


class Rows(Protocol):
    """(N, D) vectors that are read in parts: a tensor, or `Residuals`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Residuals:
    """(N, D): what the first levels leave over of vectors, computed where it is read.

    Stored, it would take as much memory as the vectors, which may lie on disk.

    Attributes:
        vectors: (N, D).
        codebooks: Of each level, (K, D).
        codes: Of each level, (N,).
    """

    vectors: Tensor
    codebooks: Sequence[Tensor]
    codes: Sequence[Tensor]

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """The residuals of some rows."""
        left = self.vectors[rows]
        for centroids, codes in zip(self.codebooks, self.codes, strict=True):
            left = left - centroids[codes[rows]]
        return left


def blocks(num_rows: int, num_codes: int) -> Iterator[slice]:
    """Row slices whose scores against `num_codes` centroids fit `BLOCK_SCORES`."""
    size = max(1, BLOCK_SCORES // num_codes)
    return (slice(start, start + size) for start in range(0, num_rows, size))


def scores(rows: Tensor, centroids: Tensor) -> Tensor:
    """(rows, K): squared distances less the rows' own squared norms."""
    return torch.addmm(centroids.square().sum(1), rows, centroids.T, alpha=-2)


def nearest(vectors: Tensor, centroids: Tensor) -> Tensor:
    """(N,): the nearest centroid of every vector; equal distances go to the lower code."""
    labels = torch.empty(len(vectors), dtype=torch.long)
    for block in blocks(len(vectors), len(centroids)):
        labels[block] = scores(vectors[block], centroids).argmin(1)
    return labels


def ranks_within(groups: Tensor) -> Tensor:
    """(N,): position of each row among the rows of its group, in row order.

    >>> ranks_within(torch.tensor([7, 3, 7, 7])).tolist()
    [0, 0, 1, 2]
    """
    order = groups.argsort(stable=True)
    ordered = groups[order].contiguous()
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(groups)) - torch.searchsorted(ordered, ordered)
    return ranks
