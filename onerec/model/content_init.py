"""Initialisation from content: token embeddings of similar codes start similar."""

import torch
from torch import Tensor

from onerec.model.onerec import OneRec


@torch.no_grad()
def init_from_content(model: OneRec, codes: Tensor, vectors: Tensor) -> None:
    """Set the token embeddings to their codes' centroids, randomly projected to the model's width.

    A random projection keeps distances, so codes of alike items start alike, and what one of them
    learns from few sessions helps the others. Scale and mean are those of random weights. The
    disambiguation token, which means nothing, keeps its random embeddings, as do unused codes.
    Draws from the global RNG. Ours; the paper does not say how its embeddings start.

    Args:
        model: A model with random weights.
        codes: (N, T) semantic IDs.
        vectors: (N, Dv) item vectors, row-aligned with `codes`.

    Raises:
        ValueError: The rows do not match.
    """
    if len(codes) != len(vectors):
        raise ValueError(
            f"{len(vectors)} item vectors for {len(codes)} semantic IDs: take both from the same "
            "semantic_ids artifact"
        )
    size, width = model.codebook_size, model.config.d_model
    projection = torch.randn(vectors.shape[1], width) / vectors.shape[1] ** 0.5
    residual = vectors - vectors.mean(0)
    for level in range(model.num_sid_tokens - 1):
        code = codes[:, level]
        counts = torch.bincount(code, minlength=size)
        sums = torch.zeros(size, vectors.shape[1]).index_add_(0, code, residual)
        centroids = sums / counts.clamp_min(1).unsqueeze(1)
        residual = residual - centroids[code]
        used = counts > 0
        start = centroids[used] @ projection
        start = start - start.mean(0)
        start = start / start.norm(dim=1).mean().clamp_min(1e-12)
        model.sid_embedding.weight[level * size : (level + 1) * size][used] = start
