"""Settings of item embeddings and of the tokenizer."""

from dataclasses import dataclass
from typing import Literal

from onerec.config.fields import ValidatedConfig, option, require
from onerec.config.limits import (
    LARGEST_BATCH,
    LARGEST_SEED,
    LARGEST_WEIGHT,
    LARGEST_WIDTH,
    MOST_EPOCHS,
)


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig(ValidatedConfig):
    """Item embeddings: text, co-watching and supplied vectors, fused and normalised."""

    text_encoder: Literal["minilm", "hashed", "none"] = option(
        "minilm", "'minilm' (a sentence encoder), 'hashed' (a light fallback) or 'none'"
    )
    text_dim: int = option(
        128, "Text vectors are reduced to this many dimensions", ge=1, le=LARGEST_WIDTH
    )
    collaborative_dim: int = option(
        64, "Dimensions of the co-watching vectors; 0 leaves them out", ge=0, le=LARGEST_WIDTH
    )
    attributes_dim: int = option(
        32,
        "Dimensions of the category and author block; 0 leaves it out",
        ge=0,
        le=LARGEST_WIDTH,
    )
    text_weight: float = option(1.0, "Weight of the text block", ge=0, le=LARGEST_WEIGHT)
    collaborative_weight: float = option(
        1.0, "Weight of the co-watching block", ge=0, le=LARGEST_WEIGHT
    )
    attributes_weight: float = option(
        0.5, "Weight of the category and author block", ge=0, le=LARGEST_WEIGHT
    )
    supplied_weight: float = option(1.0, "Weight of the supplied block", ge=0, le=LARGEST_WEIGHT)
    collaborative_shrinkage: float = option(
        5.0,
        "Sessions an item needs before its co-watching counts as much as what its text predicts",
        ge=0,
        le=LARGEST_WEIGHT,
    )


IDS_PER_ITEM = 8
"""IDs there must be for every item that a tokenizer version opens with, so that it can grow."""
LARGEST_CODEBOOK = 2**16


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(ValidatedConfig):
    """Residual quantization of item vectors: balanced K-means, or a method to compare it with."""

    method: Literal["balanced", "algorithm_1", "kmeans", "rqvae"] = option(
        "balanced",
        "'balanced' (exactly equal K-means clusters), 'algorithm_1' (OneRec v1's greedy one), "
        "'kmeans' (plain residual K-means) or 'rqvae'",
    )
    num_levels: int = option(
        3, "L: residual levels; one disambiguation token follows them", ge=1, le=16
    )
    codebook_size: int = option(
        0,
        "K: codes per level; 0: the largest power of two up to the root of the number of items",
        ge=0,
        le=LARGEST_CODEBOOK,
    )
    iterations: int = option(20, "Lloyd steps per level", ge=1, le=MOST_EPOCHS)
    keep_numbers: bool = option(
        False,
        "A refit numbers its codes like the current version, so that as many items as possible "
        "keep theirs; pretraining with warm_start then starts from that version's last checkpoint",
    )
    seed: int = option(0, "Seed of the initial centroids", ge=0, le=LARGEST_SEED)
    quality_tolerance: float = option(
        0.05,
        "A new tokenizer version is refused when its relative error, collision rate, entropy share "
        "or hit rate is worse than the old one's on today's vectors by more than this; 1 accepts "
        "any",
        ge=0,
        le=1,
    )
    rqvae_hidden_dim: int = option(
        128, "'rqvae': width of the hidden layers", ge=1, le=LARGEST_WIDTH
    )
    rqvae_latent_dim: int = option(
        32, "'rqvae': width of what is quantized", ge=1, le=LARGEST_WIDTH
    )
    rqvae_epochs: int = option(60, "'rqvae': passes over the catalogue", ge=1, le=MOST_EPOCHS)
    rqvae_batch_size: int = option(512, "'rqvae': items per step", ge=1, le=LARGEST_BATCH)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.codebook_size != 1,
            "codebook_size",
            self.codebook_size,
            "use a whole number from 2, or 0 for one that follows the catalogue's size",
        )
        require(
            self.codebook_size**self.num_levels < 2**63,
            "num_levels",
            self.num_levels,
            f"codebook_size={self.codebook_size} to this power must stay below 2^63; use fewer "
            "levels",
        )

    def codes_per_level(self, num_items: int) -> int:
        """K for a catalogue: `codebook_size`, or what follows from the number of items.

        K is about the root of N, so that N / K items share a first code and few of the K^L code
        combinations are taken; more in small catalogues, which would outgrow their IDs.

        Examples:
            >>> [TokenizerConfig().codes_per_level(n) for n in (24, 2000, 7500, 25645, 1_000_000)]
            [4, 32, 64, 128, 512]
        """
        if self.codebook_size:
            return self.codebook_size
        most = min(LARGEST_CODEBOOK, 2 ** (62 // self.num_levels), max(num_items, 2))
        size = 2
        while 2 * size <= most and (
            (2 * size) ** 2 <= num_items or size ** (self.num_levels + 1) < IDS_PER_ITEM * num_items
        ):
            size *= 2
        return size
