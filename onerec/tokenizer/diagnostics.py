"""How well a tokenizer does: balance, spread, reconstruction and collisions."""

from typing import Any

import torch
from torch import Tensor

from onerec.tokenizer.codebook import Codebook


def tokenizer_diagnostics(codebook: Codebook, codes: Tensor, vectors: Tensor) -> dict[str, Any]:
    """Measure codes of a catalogue.

    Args:
        codebook: (L, K, Dv).
        codes: (N, L) or (N, T); a separating digit is left out of every figure.
        vectors: (N, Dv) what the codes stand for.

    Returns:
        `levels`: a list of one dict per level with `utilisation` (share of codes used), `entropy`
        (nats), `entropy_share` (of log K), `gini` (0 is equal), `smallest`, `largest`,
        `size_spread`, `relative_mse` (squared error left after this level over squared norm) and
        `usage` (items per code); `collision_rate` (share of items whose codes another item has as
        well), `largest_leaf`, `num_items`, and `argmin_agreement` (share of items whose balanced
        codes are their nearest codes at every level).
    """
    num_levels, size = codebook.num_levels, codebook.size
    codes = codes[:, :num_levels]
    residual, levels = vectors, []
    norm = vectors.double().square().sum()
    for level in range(num_levels):
        residual = residual - codebook.codebooks[level][codes[:, level]]
        usage = torch.bincount(codes[:, level], minlength=size)
        entropy = torch.special.entr(usage.double() / len(codes)).sum().item()
        levels.append(
            {
                "utilisation": (usage > 0).double().mean().item(),
                "entropy": entropy,
                "entropy_share": entropy / torch.tensor(float(size)).log().item(),
                "gini": _gini(usage),
                "smallest": int(usage.min()),
                "largest": int(usage.max()),
                "size_spread": int(usage.max() - usage.min()),
                "relative_mse": (residual.double().square().sum() / norm).item(),
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


def _gini(usage: Tensor) -> float:
    """Gini coefficient of counts: 0 when equal, towards 1 when one code has everything."""
    ordered = usage.sort().values.double()
    ranks = torch.arange(1, len(usage) + 1)
    total = ordered.sum()
    value = 2 * (ranks * ordered).sum() / (len(usage) * total) - (len(usage) + 1) / len(usage)
    return max(0.0, value.item())
