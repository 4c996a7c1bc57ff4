"""The set of legal semantic IDs as a trie of flat tensors.

Items are sorted by their codes; the rows of that order are the leaves. Every node of depth d is
then a run of leaves, the children of a node are a run of nodes of depth d + 1, and no pointer is
needed but where runs begin (compressed sparse rows, after STATIC, arXiv 2602.22647).

The children of the first levels also stand in padded tables, so that a step of beam search reads
them in one lookup.

Shapes: N items, T SID tokens, C codes per token, A allowed items, V nodes of one depth.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

TABLE_ENTRIES = 2**18
"""Largest padded table of one depth: 3 MiB. Deeper levels, where nodes are many and children few,
are read from the compressed rows."""


class ChildTable(NamedTuple):
    """The children of every node of one depth, padded to the most children of one.

    Attributes:
        code: (V, W) int64 token of each child; 0 where there is none.
        missing: (V, W) float32, 0 at children and -inf where there is none: added to scores.
    """

    code: Tensor
    missing: Tensor


@dataclass(frozen=True, kw_only=True)
class Trie:
    """Legal semantic IDs. Indices are int64, all tensors on one device; depth 0 is the root.

    Attributes:
        codebook_size: C.
        num_items: N, the catalogue it was built from.
        leaf_items: (A,) item of each leaf, in the order of the codes.
        leaf_of_item: (N,) leaf of each item; -1 where it is not allowed.
        first_child: Per depth d < T, (V_d + 1,) first child of each node among depth d + 1.
        first_leaf: Per depth d <= T, (V_d + 1,) first leaf of each node.
        code: Per depth 1 <= d <= T at [d - 1], (V_d,) token that leads to each node.
        max_children: Per depth d < T, the most children of one node.
        tables: Per depth d < T, all children at a glance; None where that would be too big.
        prior: (N,) added to the log-probability of an item; None adds nothing.
        best_prior: Per depth d <= T, (V_d,) the largest `prior` below each node, 0 for the root:
            what beam search sorts prefixes by. None without a prior.
    """

    codebook_size: int
    num_items: int
    leaf_items: Tensor
    leaf_of_item: Tensor
    first_child: tuple[Tensor, ...]
    first_leaf: tuple[Tensor, ...]
    code: tuple[Tensor, ...]
    max_children: tuple[int, ...]
    tables: tuple[ChildTable | None, ...]
    prior: Tensor | None = None
    best_prior: tuple[Tensor, ...] | None = None

    @property
    def num_sid_tokens(self) -> int:
        return len(self.first_child)

    @property
    def num_leaves(self) -> int:
        return len(self.leaf_items)

    @staticmethod
    def build(
        codes: Tensor,
        codebook_size: int,
        allowed: Tensor | None = None,
        prior: Tensor | None = None,
    ) -> "Trie":
        """Build from semantic IDs, without a loop over items.

        Args:
            codes: (N, T) long, each row unique.
            codebook_size: C; every token is in [0, C).
            allowed: (N,) bool; the items that may be generated, all when None.
            prior: (N,) finite numbers that are added to the log-probabilities of items.

        Raises:
            ValueError: Codes of a wrong shape or range or not unique, an allow-list that allows
                nothing, or an allow-list or prior of another length.

        Examples:
            >>> trie = Trie.build(torch.tensor([[1, 0], [0, 1], [1, 1]]), codebook_size=2)
            >>> trie.leaf_items.tolist()
            [1, 0, 2]
            >>> [first.tolist() for first in trie.first_leaf]  # root; tokens 0, 1; leaves
            [[0, 3], [0, 1, 3], [0, 1, 2, 3]]
        """
        _check(codes, codebook_size, allowed, prior)
        device = codes.device
        items = (
            torch.arange(len(codes), device=device) if allowed is None else allowed.nonzero()[:, 0]
        )
        # stable sorts from the last token to the first sort rows lexicographically at any C and T
        for level in reversed(range(codes.shape[1])):
            items = items[codes[items, level].argsort(stable=True)]
        first_leaf, code = _nodes(codes[items].long())
        # a node's first child begins at the same leaf as the node itself
        first_child = [torch.searchsorted(below, above) for above, below in pairwise(first_leaf)]
        leaf_of_item = torch.full((len(codes),), -1, device=device)
        leaf_of_item[items] = torch.arange(len(items), device=device)
        max_children = tuple(int(first.diff().max()) for first in first_child)
        tables = [
            _table(first, sid_tokens, width) if (len(first) - 1) * width <= TABLE_ENTRIES else None
            for first, sid_tokens, width in zip(first_child, code, max_children, strict=True)
        ]
        return Trie(
            codebook_size=codebook_size,
            num_items=len(codes),
            leaf_items=items,
            leaf_of_item=leaf_of_item,
            first_child=tuple(first_child),
            first_leaf=tuple(first_leaf),
            code=tuple(code),
            max_children=max_children,
            tables=tuple(tables),
            prior=prior,
            best_prior=None
            if prior is None
            else best_below(tuple(first_child), prior.to(device)[items]),
        )

    def to(self, device: str | torch.device) -> "Trie":
        """The same trie with its tensors on another device."""
        return Trie(
            codebook_size=self.codebook_size,
            num_items=self.num_items,
            leaf_items=self.leaf_items.to(device),
            leaf_of_item=self.leaf_of_item.to(device),
            first_child=tuple(t.to(device) for t in self.first_child),
            first_leaf=tuple(t.to(device) for t in self.first_leaf),
            code=tuple(t.to(device) for t in self.code),
            max_children=self.max_children,
            tables=tuple(
                t if t is None else ChildTable(*(x.to(device) for x in t)) for t in self.tables
            ),
            prior=None if self.prior is None else self.prior.to(device),
            best_prior=self.best_prior and tuple(t.to(device) for t in self.best_prior),
        )

    @property
    def num_bytes(self) -> int:
        """Memory of all tensors."""
        tables = [t for table in self.tables if table is not None for t in table]
        runs = [*self.first_child, *self.first_leaf, *self.code, *(self.best_prior or ())]
        return sum(t.nbytes for t in [self.leaf_items, self.leaf_of_item, *runs, *tables])

    def children(self, level: int, node: Tensor, *, at_least: int = 1) -> tuple[Tensor, Tensor]:
        """The children of nodes (B, K) of depth `level`, in order from column 0 on.

        Args:
            level: The depth.
            node: Indices of nodes.
            at_least: Columns wanted, where any node of the depth has as many children.

        Returns:
            Their tokens (B, K, W), 0 where there is no child, and (B, K, W) 0 at children, -inf
            where there is none.
        """
        table = self.tables[level]
        if table is not None:
            flat = node.flatten()
            shape = (*node.shape, -1)
            found = (t.index_select(0, flat).view(shape) for t in table)
            return next(found), next(found)
        first, last = self.first_child[level][node], self.first_child[level][node + 1]
        width = min(max(int((last - first).max()), at_least), self.max_children[level])
        child = first.unsqueeze(-1) + torch.arange(width, device=node.device)
        missing = child >= last.unsqueeze(-1)
        code = self.code[level][child.clamp(max=len(self.code[level]) - 1)]
        return code.masked_fill(missing, 0), torch.where(missing, -torch.inf, 0.0)

    def above(self, depth: int, leaves: Tensor) -> Tensor:
        """Ancestors of leaves (any shape) at a depth."""
        if depth == self.num_sid_tokens:
            return leaves
        found = torch.searchsorted(self.first_leaf[depth], leaves.contiguous(), right=True)
        return found - 1

    def leaves(self, items: Tensor) -> Tensor:
        """Leaves of items (any shape, -1 padded); -1 at padding and where one is not allowed."""
        return torch.where(items >= 0, self.leaf_of_item[items.clamp(min=0)], -1)


def _nodes(rows: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """`Trie.first_leaf` and `Trie.code` of rows (A, T) in lexicographic order.

    A row opens a node of depth d where one of its first d tokens differs from the row before it.
    """
    opens = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    opens[0] = True
    end = torch.tensor([len(rows)], device=rows.device)
    first_leaf = [torch.cat([torch.zeros_like(end), end])]
    code: list[Tensor] = []
    for level in range(rows.shape[1]):
        opens[1:] |= rows[1:, level] != rows[:-1, level]
        starts = opens.nonzero()[:, 0]
        first_leaf.append(torch.cat([starts, end]))
        code.append(rows[starts, level])
    if len(code[-1]) < len(rows):
        raise ValueError(
            f"codes: {len(rows) - len(code[-1])} items share the semantic ID of another; "
            "make them unique with the disambiguation token"
        )
    return first_leaf, code


def best_below(first_child: tuple[Tensor, ...], of_leaves: Tensor) -> tuple[Tensor, ...]:
    """The largest of some numbers of leaves below each node, as `Trie.best_prior`.

    Args:
        first_child: Of a trie.
        of_leaves: (A,), or (B, A) where users differ.

    Returns:
        Per depth (V_d,) or (B, V_d); zeros for the root.
    """
    best = [of_leaves]
    for first in reversed(first_child[1:]):
        parent = torch.arange(len(first) - 1, device=first.device).repeat_interleave(first.diff())
        empty = of_leaves.new_empty((*of_leaves.shape[:-1], len(first) - 1))
        parent = parent.expand_as(best[-1])
        best.append(empty.scatter_reduce(-1, parent, best[-1], "amax", include_self=False))
    return (of_leaves.new_zeros((*of_leaves.shape[:-1], 1)), *reversed(best))


def _table(first_child: Tensor, code: Tensor, width: int) -> ChildTable:
    child = first_child[:-1].unsqueeze(1) + torch.arange(width, device=code.device)
    missing = child >= first_child[1:].unsqueeze(1)
    sid_tokens = code[child.clamp(max=len(code) - 1)].masked_fill(missing, 0)
    return ChildTable(sid_tokens, torch.where(missing, -torch.inf, 0.0))


def _check(codes: Tensor, codebook_size: int, allowed: Tensor | None, prior: Tensor | None) -> None:
    if codes.dim() != 2 or codes.shape[1] == 0:
        raise ValueError(f"codes has shape {tuple(codes.shape)}: use (items, tokens)")
    if len(codes) == 0:
        raise ValueError("codes has no items: a catalogue needs at least one")
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= codebook_size:
        raise ValueError(
            f"codes has tokens in [{low}, {high}]: use 0 to codebook_size - 1 = {codebook_size - 1}"
        )
    if prior is not None and (prior.shape != codes.shape[:1] or not bool(prior.isfinite().all())):
        raise ValueError(
            f"prior has shape {tuple(prior.shape)}: use one finite number per item, ({len(codes)},)"
        )
    if allowed is None:
        return
    if allowed.dtype != torch.bool or allowed.shape != codes.shape[:1]:
        raise ValueError(
            f"allowed is {allowed.dtype} of shape {tuple(allowed.shape)}: use one bool per item, "
            f"({len(codes)},)"
        )
    if not bool(allowed.any()):
        raise ValueError(
            f"allowed allows none of {len(codes)} items: loosen the filter or leave it out"
        )
