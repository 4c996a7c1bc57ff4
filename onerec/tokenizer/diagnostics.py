"""Diagnostics of a tokenizer: balance, entropy, reconstruction error and collisions."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from onerec.statistics import gini
from onerec.tokenizer.codebook import Codebook

_SIMILARITIES = 1 << 25
"""Most similarities in memory at once (128 MiB)."""


def tokenizer_diagnostics(codebook: Codebook, codes: Tensor, vectors: Tensor) -> dict[str, Any]:
    """Measure codes of a catalogue.

    Args:
        codebook: (L, K, Dv); of an RQ-VAE (L, K, Z), Z the width of its latent vectors.
        codes: (N, L) or (N, T); a disambiguation token is ignored.
        vectors: (N, Dv) the vectors that were tokenized.

    Returns:
        `levels`: a list of one dict per level with `utilisation` (share of codes used), `entropy`
        (nats), `entropy_share` (of log K), `gini` (0 is equal), `smallest`, `largest`,
        `size_spread`, `hit_rate` (`embedding_hit_rate` up to this level), `relative_mse` (squared
        error left after this level over squared norm) and
        `usage` (items per code); `collision_rate` (share of items whose codes another item has as
        well), `largest_leaf`, `num_items`, and `argmin_agreement` (share of items whose balanced
        codes are their nearest codes at every level).
    """
    num_levels, size = codebook.num_levels, codebook.size
    codes = codes[:, :num_levels]
    levels = []
    norm = vectors.double().square().sum()
    hits = embedding_hit_rate(codes, vectors)
    for level in range(num_levels):
        residual = vectors - codebook.decode(codes[:, : level + 1])
        usage = torch.bincount(codes[:, level], minlength=size)
        entropy = torch.special.entr(usage.double() / len(codes)).sum().item()
        levels.append(
            {
                "utilisation": (usage > 0).double().mean().item(),
                "entropy": entropy,
                "entropy_share": entropy / torch.tensor(float(size)).log().item(),
                "gini": gini(usage.numpy()),
                "smallest": int(usage.min()),
                "largest": int(usage.max()),
                "size_spread": int(usage.max() - usage.min()),
                "relative_mse": (residual.double().square().sum() / norm).item(),
                "hit_rate": hits[level],
                "usage": usage.tolist(),
            }
        )
    _, leaf, members = torch.unique(codes, dim=0, return_inverse=True, return_counts=True)
    agreement = (codebook.encode(vectors) == codes).all(1).double().mean().item()
    return {
        "num_items": len(codes),
        "levels": levels,
        "collision_rate": (members[leaf] > 1).double().mean().item(),
        "largest_leaf": int(members.max()),
        "argmin_agreement": agreement,
    }


def embedding_hit_rate(
    codes: Tensor, vectors: Tensor, *, neighbours: int = 10, sample: int = 512
) -> list[float]:
    """Share of nearest neighbours in embedding space that also share a prefix of codes.

    Args:
        codes: (N, L).
        vectors: (N, Dv), compared by cosine.
        neighbours: Number of neighbours per item, itself excluded.
        sample: Number of items measured, evenly spaced; neighbours are searched among all items.

    Returns:
        Per level l the share of (item, neighbour) pairs with equal codes at levels 1 to l.
    """
    neighbours = min(neighbours, len(codes) - 1)
    if neighbours < 1:
        return [1.0] * codes.shape[1]
    unit = torch.nn.functional.normalize(vectors, dim=1)
    measured = torch.linspace(0, len(codes) - 1, min(sample, len(codes))).long()
    shared = torch.zeros(codes.shape[1], dtype=torch.double)
    for rows in measured.split(max(1, _SIMILARITIES // len(codes))):
        similarity = unit[rows] @ unit.T
        similarity[torch.arange(len(rows)), rows] = -torch.inf
        found = similarity.topk(neighbours, dim=1).indices
        equal = codes[rows][:, None] == codes[found]
        shared += equal.cumprod(2).sum((0, 1))
    return (shared / (len(measured) * neighbours)).tolist()


def quality_of(diagnostics: Mapping[str, Any]) -> dict[str, float]:
    """Figures by which tokenizer versions are compared, each in [0, 1].

    `relative_mse` after the last level, `collision_rate`, `entropy_share` of all levels, `hit_rate`
    of the first.
    """
    levels = diagnostics["levels"]
    return {
        "relative_mse": levels[-1]["relative_mse"],
        "collision_rate": diagnostics["collision_rate"],
        "entropy_share": sum(level["entropy_share"] for level in levels) / len(levels),
        "hit_rate": levels[0]["hit_rate"],
    }


def fit_balance(fitted: Tensor, published: Tensor, size: int) -> dict[str, Any]:
    """Balance of a fit, before items of a full leaf move to the nearest leaf with room.

    Args:
        fitted: (N, L) codes that the fit gave the items.
        published: (N, T) codes of their IDs.
        size: K.

    Returns:
        Per level `utilisation` (share of codes used) and `size_spread` (items of the most used code
        less those of the least used one); `overflowed_items`, whose ID has other codes than the
        fit's.
    """
    usage = torch.stack([torch.bincount(codes, minlength=size) for codes in fitted.T])
    moved = (published[:, : fitted.shape[1]] != fitted).any(1)
    return {
        "utilisation": (usage > 0).double().mean(1).tolist(),
        "size_spread": (usage.amax(1) - usage.amin(1)).tolist(),
        "overflowed_items": int(moved.sum()),
    }
