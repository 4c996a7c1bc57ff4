"""Semantic IDs: unique, of fixed length, and append-only inside a tokenizer version.

An ID has T = L + 1 tokens in [0, K): L residual codes, then the disambiguation token, which counts
items with equal codes from 0. Items with equal codes share a *leaf*, which has room for K items.

    codes (3, 1, 4), first item    -> (3, 1, 4, 0)
    codes (3, 1, 4), second item   -> (3, 1, 4, 1)

When a leaf is full, an item goes to the nearest leaf with room. A published ID never moves.
Shapes: N items, L levels, K codes, Dv width of the vectors, T SID tokens.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from onerec import schema
from onerec.catalogue import Catalogue, read_withdrawn_on
from onerec.tokenizer.codebook import Codebook, check_capacity, check_vectors
from onerec.tokenizer.distances import ranks_within, scores

SEMANTIC_IDS_FILE = "semantic_ids.parquet"
_PLACING_BEAM = 32
_PLACING_SCORES = 1 << 22


@dataclass(frozen=True)
class SemanticIds(Catalogue):
    """A catalogue with an ID per item.

    Attributes:
        codes: (N, T) int64.
        tokenizer_version: Hash of the codebook.
        codebook_size: K.
    """

    codes: Tensor
    tokenizer_version: str
    codebook_size: int

    @property
    def num_sid_tokens(self) -> int:
        return self.codes.shape[1]

    def num_invalid(self) -> int:
        """Items whose ID is not unique or has a token outside [0, K); must be 0."""
        _, which, holders = torch.unique(self.codes, dim=0, return_inverse=True, return_counts=True)
        outside = ((self.codes < 0) | (self.codes >= self.codebook_size)).any(1)
        return int(((holders[which] > 1) | outside).sum())

    def num_moved_since(self, earlier: "SemanticIds") -> int:
        """Rows of `earlier` that are missing, changed or at another index here; must be 0."""
        if earlier.tokenizer_version != self.tokenizer_version:
            return len(earlier)
        rows = min(len(earlier), len(self))
        same = (self.codes[:rows] == earlier.codes[:rows]).all(1).numpy()
        same &= self.item_ids[:rows] == earlier.item_ids[:rows]
        return len(earlier) - int(same.sum())

    def to_table(self) -> pa.Table:
        """As `schema.SEMANTIC_IDS`."""
        sid_tokens = pa.array(self.codes.numpy().astype(np.int32).ravel())
        offsets = pa.array(np.arange(len(self) + 1, dtype=np.int32) * self.num_sid_tokens)
        return pa.table(
            {
                "item_index": pa.array(np.arange(len(self), dtype=np.int64)),
                "item_id": pa.array(self.item_ids, pa.string()),
                "codes": pa.ListArray.from_arrays(offsets, sid_tokens),
                "tokenizer_version": pa.array(
                    np.full(len(self), self.tokenizer_version, object), pa.string()
                ),
                "first_seen": pa.array(self.first_seen.astype("datetime64[D]"), pa.date32()),
                "withdrawn_on": pa.array(self.withdrawn_days(self.item_ids), pa.date32()),
            },
            schema=schema.SEMANTIC_IDS.with_metadata(
                {
                    "codebook_size": str(self.codebook_size),
                    "tokenizer_version": self.tokenizer_version,
                }
            ),
        )

    def save(self, directory: Path) -> None:
        """Write `semantic_ids.parquet`."""
        pq.write_table(self.to_table(), directory / SEMANTIC_IDS_FILE)


def load_semantic_ids(directory: Path) -> SemanticIds:
    """Read what `SemanticIds.save` wrote."""
    table = pq.read_table(directory / SEMANTIC_IDS_FILE)
    metadata = table.schema.metadata
    codes = table["codes"].combine_chunks().flatten().to_numpy().astype(np.int64)
    return SemanticIds(
        item_ids=table["item_id"].to_numpy(zero_copy_only=False).astype(object),
        codes=torch.from_numpy(codes.reshape(len(table), -1)),
        tokenizer_version=metadata[b"tokenizer_version"].decode(),
        first_seen=table["first_seen"].to_numpy().astype("datetime64[D]"),
        codebook_size=int(metadata[b"codebook_size"]),
        withdrawn_on=read_withdrawn_on(table),
    )


def assign_semantic_ids(
    codebook: Codebook,
    codes: Tensor,
    vectors: Tensor,
    item_ids: np.ndarray,
    first_seen: np.ndarray,
) -> SemanticIds:
    """Open a tokenizer version: assign IDs to the items that the codebook was fitted on.

    Args:
        codebook: The fitted codebook.
        codes: (N, L), the balanced codes that `fit_codebook` returned.
        vectors: (N, Dv), needed to place items whose leaf is full.
        item_ids: (N,) strings.
        first_seen: (N,) datetime64[D].

    Returns:
        IDs in the given order; items of one leaf are numbered in that order.
    """
    empty = SemanticIds(
        item_ids=np.empty(0, object),
        codes=torch.empty(0, codebook.num_levels + 1, dtype=torch.long),
        tokenizer_version=codebook.tokenizer_version,
        first_seen=np.empty(0, "datetime64[D]"),
        codebook_size=codebook.size,
    )
    return _append(empty, codebook, codes, vectors, item_ids, first_seen)


def extend_semantic_ids(
    existing: SemanticIds,
    codebook: Codebook,
    new_item_ids: np.ndarray,
    new_vectors: Tensor,
    first_seen: np.ndarray,
) -> SemanticIds:
    """Append items inside a tokenizer version, at the nearest codes with room.

    Existing rows do not change.

    Args:
        existing: Published IDs of this codebook's tokenizer version.
        codebook: The tokenizer version's codebook.
        new_item_ids: (N,) strings, none of them in `existing`.
        new_vectors: (N, Dv), in the codebook's space (see `align_vectors`).
        first_seen: (N,) datetime64[D].

    Raises:
        ValueError: Another tokenizer version, an item that has an ID already, a NaN or zero vector,
            or more items than IDs.
    """
    if existing.tokenizer_version != codebook.tokenizer_version:
        raise ValueError(
            f"tokenizer_version={existing.tokenizer_version}: these IDs were made by another "
            f"codebook than "
            f"{codebook.tokenizer_version}; extend IDs with their own codebook, or open a new "
            "tokenizer version"
        )
    published = existing.index_of(new_item_ids) >= 0
    if published.any():
        raise ValueError(
            f"new_item_ids: {new_item_ids[published][0]!r} has an ID already "
            f"({int(published.sum())} such items); pass new items only"
        )
    codes = codebook.encode(new_vectors) if len(new_vectors) else existing.codes[:0, :-1]
    return _append(existing, codebook, codes, new_vectors, new_item_ids, first_seen)


def align_vectors(vectors: Tensor, rows: Tensor, reference: Tensor) -> Tensor:
    """Rotate today's vectors into the space a codebook was fitted in.

    Embeddings are retrained every day, which rotates their axes and keeps their geometry. The
    rotation that best maps the items of both days onto each other (orthogonal Procrustes) undoes
    this, so that the old centroids apply to new items.

    Args:
        vectors: (N, D) today's vectors.
        rows: (R,) rows of `vectors` that the reference has as well.
        reference: (R, Dv) their vectors in the codebook's space.

    Returns:
        (N, Dv) unit vectors.
    """
    left, _, right = torch.linalg.svd(vectors[rows].double().T @ reference.double())
    width = min(left.shape[1], right.shape[0])
    turned = vectors.double() @ (left[:, :width] @ right[:width])
    # projection to a smaller width can make a vector zero; such an item gets a direction anyway
    turned[:, 0] += (turned.norm(dim=1) < 1e-9).double()
    return torch.nn.functional.normalize(turned, dim=1).float()


def _append(
    existing: SemanticIds,
    codebook: Codebook,
    codes: Tensor,
    vectors: Tensor,
    item_ids: np.ndarray,
    first_seen: np.ndarray,
) -> SemanticIds:
    check_vectors(vectors)
    size, num_levels = codebook.size, codebook.num_levels
    check_capacity(len(existing) + len(item_ids), size, num_levels)
    leaves, sid_tokens = _leaf_numbers(existing.codes[:, :-1], size), existing.codes[:, -1]
    # the nearest leaf, in the given order; items whose leaf is full go to the nearest with room
    wanted = _leaf_numbers(codes, size)
    new_leaves, new_tokens = wanted.clone(), _next_tokens(leaves, wanted)
    overflow = (new_tokens >= size).nonzero()[:, 0]
    beam = _PLACING_BEAM
    while len(overflow):
        settled = torch.ones(len(wanted), dtype=torch.bool)
        settled[overflow] = False
        taken = torch.cat([leaves, new_leaves[settled]])
        placed, at, level = _place(codebook, vectors[overflow], taken, beam)
        new_leaves[overflow[placed]], new_tokens[overflow[placed]] = at, level
        overflow = overflow[~placed]
        beam *= 8
    place_values = size ** torch.arange(num_levels - 1, -1, -1)
    new_codes = torch.cat([new_leaves[:, None] // place_values % size, new_tokens[:, None]], 1)
    return SemanticIds(
        item_ids=np.concatenate([existing.item_ids, np.asarray(item_ids, object)]),
        codes=torch.cat([torch.cat([existing.codes[:, :-1], sid_tokens[:, None]], 1), new_codes]),
        tokenizer_version=codebook.tokenizer_version,
        first_seen=np.concatenate([existing.first_seen, first_seen.astype("datetime64[D]")]),
        codebook_size=size,
    )


def _leaf_numbers(codes: Tensor, size: int) -> Tensor:
    """(N, L) codes to (N,) numbers, the first code most significant."""
    return (codes * size ** torch.arange(codes.shape[1] - 1, -1, -1)).sum(1)


def _next_tokens(taken: Tensor, wanted: Tensor) -> Tensor:
    """(N,): the disambiguation token each item would get; K or more means that the leaf is full."""
    ordered = taken.sort().values
    occupied = torch.searchsorted(ordered, wanted, right=True) - torch.searchsorted(ordered, wanted)
    return occupied + ranks_within(wanted)


def _place(
    codebook: Codebook, vectors: Tensor, taken: Tensor, beam: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Place items in the nearest of `beam` leaves that has room.

    Returns:
        (N,) bool: which were placed; and leaf and token of those.
    """
    options = _nearest_leaves(codebook, vectors, beam)
    leaf, level = torch.full((len(vectors),), -1), torch.full((len(vectors),), -1)
    waiting = torch.arange(len(vectors))
    rank = torch.zeros(len(vectors), dtype=torch.long)
    while len(waiting):
        wanted = options[waiting, rank[waiting]]
        sid_tokens = _next_tokens(taken, wanted)
        fits = sid_tokens < codebook.size
        leaf[waiting[fits]], level[waiting[fits]] = wanted[fits], sid_tokens[fits]
        taken = torch.cat([taken, wanted[fits]])
        waiting = waiting[~fits]
        rank[waiting] += 1
        waiting = waiting[rank[waiting] < options.shape[1]]
    placed = leaf >= 0
    return placed, leaf[placed], level[placed]


def _nearest_leaves(codebook: Codebook, vectors: Tensor, beam: int) -> Tensor:
    """(N, beam): leaves by distance, found by a beam search over the levels."""
    rows = max(1, _PLACING_SCORES // (beam * max(codebook.codebooks.shape[1:])))
    parts = []
    for chunk in codebook.project(vectors).split(rows):
        residual, leaf = chunk[:, None], torch.zeros(len(chunk), 1, dtype=torch.long)
        for centroids in codebook.codebooks:
            kept, width = residual.shape[1], residual.shape[2]
            distance = scores(residual.reshape(-1, width), centroids).reshape(len(chunk), kept, -1)
            distance += residual.square().sum(2, keepdim=True)
            flat = distance.reshape(len(chunk), -1)
            # stable: of equal distances the lower code first, on every machine
            best = flat.sort(dim=1, stable=True).indices[:, :beam]
            parent, code = best // codebook.size, best % codebook.size
            leaf = leaf.gather(1, parent) * codebook.size + code
            residual = residual.gather(1, parent[..., None].expand(-1, -1, width)) - centroids[code]
        parts.append(leaf)
    return torch.cat(parts)
