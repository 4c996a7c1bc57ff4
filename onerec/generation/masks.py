"""Which leaves of a trie a user may still get: filters as masks, without another trie.

A view of the trie counts, for every node, the allowed items below it: prefix sums over the leaves,
so O(N) for an allow-list. What is taken away from a view later (excluded items, items a session
already holds) is few, and closes a node only once nothing below it is left; only the nodes above
those items are looked at, never all children of all beams.

Shapes: B batch, K beams, E excluded items, I items a session holds so far, N items, A leaves,
V nodes of one depth, T SID tokens.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from onerec.generation.trie import Trie
from onerec.model import check_items


class ClosedLeaves(NamedTuple):
    """Children that excluded items close for a user, at one depth; -1 padded columns.

    Attributes:
        parent: (B, E) node above, -1 where nothing is closed.
        column: (B, E) which of its children.
    """

    parent: Tensor
    column: Tensor


@dataclass(frozen=True)
class TrieView:
    """The items of a trie that some filter leaves.

    Attributes:
        trie: The trie.
        counts: Per depth d <= T, items below each node: (V_d,), or (B, V_d) where users differ;
            None where the filter leaves all.
        removed: (B, E) leaves that a user must not get, sorted, each once, of this view only;
            padding lies beyond the last leaf. None where there are none.
        closed: Per depth d < T, the children of nodes of depth d that `removed` closes; None where
            it closes none.
    """

    trie: Trie
    counts: tuple[Tensor, ...] | None
    removed: Tensor | None
    closed: tuple[ClosedLeaves | None, ...]

    @staticmethod
    def of(trie: Trie, allowed: Tensor | None, exclude: Tensor | None, batch: int) -> "TrieView":
        """The view of an allow-list without the excluded items.

        Args:
            trie: The trie.
            allowed: (N,) or (B, N) bool; None allows all.
            exclude: (B, E) item indices that a user must not get, -1 padded.
            batch: B.
        """
        device = trie.leaf_items.device
        counts = None if allowed is None else _counts(trie, allowed.to(device))
        removed = _removed_leaves(trie, exclude, batch, counts)
        view = TrieView(trie, counts, removed, ())
        if removed is None:
            return view
        closed = tuple(view._closed(depth) for depth in range(1, trie.num_sid_tokens + 1))
        return TrieView(trie, counts, removed, closed)

    def below(self, depth: int, nodes: Tensor) -> Tensor:
        """Items of the view below nodes (B, any) of a depth; nothing taken away."""
        if self.counts is None:
            first = self.trie.first_leaf[depth]
            return first[nodes + 1] - first[nodes]
        counts = self.counts[depth]
        if counts.dim() == 1:
            return counts[nodes]
        return counts.gather(1, nodes.flatten(1)).view_as(nodes)

    @property
    def size(self) -> int:
        """Items of the view; of the user with the most where users differ."""
        return self.trie.num_leaves if self.counts is None else int(self.counts[0].max())

    def barred(self, *, with_excluded: bool = True) -> Tensor | None:
        """(A,) or (B, A) bool: leaves that the filters take away; None where they take none.

        Without the excluded items it is by the allow-list alone."""
        barred = None if self.counts is None else self.counts[-1] == 0
        if self.removed is None or not with_excluded:
            return barred
        size = self.trie.num_leaves
        gone = self.removed.new_zeros(len(self.removed), size + 2, dtype=torch.bool)
        gone = gone.scatter_(1, self.removed, True)[:, :size]  # padding lies beyond
        return gone if barred is None else gone | barred

    def close(
        self,
        scores: Tensor,
        level: int,
        node: Tensor,
        taken: Tensor,
    ) -> None:
        """Write -inf where nothing is left.

        Args:
            scores: (B, K, W) of the children of each beam's node; written to.
            level: Depth of `node`.
            node: (B, K).
            taken: (B, K, I) leaves of the session so far.
        """
        first = self.trie.first_child[level]
        if self.counts is not None:
            child = first[node].unsqueeze(-1) + torch.arange(scores.shape[2], device=node.device)
            child = child.clamp(max=len(self.trie.code[level]) - 1)
            empty = self.below(level + 1, child.flatten(1)).view_as(child) == 0
            scores.masked_fill_(empty, -torch.inf)
        known = self.closed[level] if self.closed else None
        if known is not None:
            hit = node.unsqueeze(-1) == known.parent.unsqueeze(1)  # (B, K, E)
            self._mask_columns(scores, hit, known.column.unsqueeze(1).expand_as(hit))
        if not taken.shape[2]:
            return
        above = self.trie.above(level + 1, taken)  # (B, K, I)
        same = above.unsqueeze(-1) == above.unsqueeze(-2)
        rest = self.below(level + 1, above.flatten(1)).view_as(above) - same.sum(-1)
        if self.removed is not None:
            rest = rest - self._removed_below(level + 1, above.flatten(1)).view_as(above)
        column = above - first[node].unsqueeze(-1)
        own = (column >= 0) & (column < (first[node + 1] - first[node]).unsqueeze(-1))
        self._mask_columns(scores, own & (rest <= 0), column)

    @staticmethod
    def _mask_columns(scores: Tensor, hit: Tensor, column: Tensor) -> None:
        """Write -inf to the columns (B, K, any) that are hit."""
        user, beam, which = hit.nonzero(as_tuple=True)
        scores[user, beam, column[user, beam, which]] = -torch.inf

    def _inside(self, leaves: Tensor) -> Tensor:
        return leaves < self.trie.num_leaves

    def _removed_below(self, depth: int, nodes: Tensor) -> Tensor:
        """Removed leaves below nodes (B, any) of a depth."""
        assert self.removed is not None
        first = self.trie.first_leaf[depth]
        bounds = torch.stack([first[nodes], first[nodes + 1]], -1)
        found = torch.searchsorted(self.removed, bounds.flatten(1)).view_as(bounds)
        return found[..., 1] - found[..., 0]

    def _closed(self, depth: int) -> ClosedLeaves | None:
        assert self.removed is not None
        trie, inside = self.trie, self._inside(self.removed)
        node = trie.above(depth, self.removed.clamp(max=trie.num_leaves - 1))
        closed = inside & (self._removed_below(depth, node) >= self.below(depth, node))
        if not bool(closed.any()):
            return None
        starts = trie.first_child[depth - 1]
        parent = torch.searchsorted(starts, node, right=True) - 1
        column = torch.where(closed, node - starts[parent], -1)
        return ClosedLeaves(torch.where(closed, parent, -1), column)


def check_filter(trie: Trie, allowed: Tensor, batch: int) -> None:
    """Raise `ValueError` unless an allow-list has a bool per item (or user and item), some true."""
    if allowed.dtype != torch.bool or allowed.shape not in {
        (trie.num_items,),
        (batch, trie.num_items),
    }:
        raise ValueError(
            f"allowed is {allowed.dtype} of shape {tuple(allowed.shape)}: use one bool per item, "
            f"({trie.num_items},) or ({batch}, {trie.num_items})"
        )
    nothing = ~(allowed[..., trie.leaf_items.to(allowed.device)].any(-1))
    if bool(nothing.any()):
        whom = "" if allowed.dim() == 1 else f" to user {int(nothing.int().argmax())} of the batch"
        raise ValueError(
            f"allowed allows none of {trie.num_leaves} items{whom}: loosen the filter or leave it "
            "out"
        )


def _counts(trie: Trie, allowed: Tensor) -> tuple[Tensor, ...]:
    """Allowed items below every node, per depth."""
    leaf = allowed[..., trie.leaf_items].int()
    sums = F.pad(leaf.cumsum(-1), (1, 0))
    return tuple(sums[..., first[1:]] - sums[..., first[:-1]] for first in trie.first_leaf)


def _removed_leaves(
    trie: Trie, exclude: Tensor | None, batch: int, counts: tuple[Tensor, ...] | None
) -> Tensor | None:
    """Excluded leaves of the view (B, E) sorted, each once; the rest lies beyond the last leaf."""
    if exclude is None or (exclude.dim() == 2 and exclude.shape[1] == 0):
        return None
    if exclude.dim() != 2 or len(exclude) != batch:
        raise ValueError(f"exclude has shape {tuple(exclude.shape)}: use ({batch}, items)")
    check_items(exclude, trie.num_items, "exclude")
    beyond = trie.num_leaves + 1
    leaves = trie.leaves(exclude.to(trie.leaf_items.device).long())
    outside = leaves < 0
    if counts is not None:
        allowed = counts[-1].expand(batch, -1).gather(1, leaves.clamp(min=0))
        outside |= allowed == 0
    leaves = leaves.masked_fill(outside, beyond).sort(dim=1).values
    repeated = F.pad(leaves[:, 1:] == leaves[:, :-1], (1, 0), value=False)
    return leaves.masked_fill(repeated, beyond).sort(dim=1).values
