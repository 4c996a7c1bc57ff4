"""Item neighbours: what lists add for items whose watchers are those of the history's items.

Item-KNN as a term beside the generated log-probability and the dense head's: counts of who watched
what hold pairs of items that neither has learned yet. Counted anew for every training; a champion
that stays keeps those of its own.

Shapes: B batch, H history items, N items, n neighbours of an item.
"""

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

SMOOTHING = 0.01
"""Similarity that every item has at least, where similarities become log-probabilities."""


class ItemNeighbours(nn.Module):
    """The nearest neighbours of each item by co-watching."""

    item: Tensor
    similarity: Tensor

    def __init__(self, num_items: int, width: int) -> None:
        """Nothing is similar to anything yet.

        Args:
            num_items: N.
            width: n.
        """
        super().__init__()
        self.register_buffer("item", torch.zeros(num_items, width, dtype=torch.int32))
        self.register_buffer("similarity", torch.zeros(num_items, width))

    @classmethod
    def of(cls, similarity: sp.csr_array) -> "ItemNeighbours":
        """The neighbours in the rows of a matrix (N, N) of similarities, 0 where it has none."""
        counts = np.diff(similarity.indptr)
        found = cls(len(counts), max(int(counts.max(initial=0)), 1))
        row = np.repeat(np.arange(len(counts)), counts)
        place = np.arange(len(row)) - np.repeat(similarity.indptr[:-1], counts)
        at = torch.from_numpy(row), torch.from_numpy(place)
        found.item[at] = torch.from_numpy(similarity.indices.astype(np.int32))
        found.similarity[at] = torch.from_numpy(similarity.data.astype(np.float32))
        return found

    def log_similarity(self, history: Tensor, num_items: int) -> Tensor:
        """Log of the similarity to the history's items, each counted once, summed and smoothed.

        Args:
            history: (B, H) item indices, -1 padded; items added since the fit have no neighbours.
            num_items: N of today's catalogue, to which items were appended since.

        Returns:
            (B, num_items), log-probabilities up to a constant of each history.
        """
        again = (history.unsqueeze(2) == history.unsqueeze(1)).tril(-1).any(2)
        known = (history >= 0) & (history < len(self.item)) & ~again
        row = history.clamp(0, len(self.item) - 1)
        similarity = self.similarity[row] * known.unsqueeze(2)
        total = similarity.new_zeros(len(history), num_items)
        total.scatter_add_(1, self.item[row].flatten(1).long(), similarity.flatten(1))
        return total.add_(SMOOTHING).log_()
