"""Settings of item embeddings and of the tokenizer."""

from dataclasses import dataclass

from onerec.config.fields import option, require


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """Item embeddings: text, co-watching and supplied vectors, fused and normalised."""

    text_encoder: str = option(
        "minilm", "'minilm' (a sentence encoder), 'hashed' (a light fallback) or 'none'"
    )
    text_dim: int = option(128, "Text vectors are reduced to this many dimensions")
    collaborative_dim: int = option(64, "Dimensions of the co-watching vectors; 0 leaves them out")
    attributes_dim: int = option(32, "Dimensions of the category and author block; 0 leaves it out")
    text_weight: float = option(1.0, "Weight of the text block")
    collaborative_weight: float = option(1.0, "Weight of the co-watching block")
    attributes_weight: float = option(0.5, "Weight of the category and author block")
    supplied_weight: float = option(1.0, "Weight of the supplied block")
    collaborative_shrinkage: float = option(
        5.0,
        "Sessions an item needs before its co-watching counts as much as what its text predicts",
    )
    seed: int = option(0, "Seed of the reductions")

    def __post_init__(self) -> None:
        require(
            self.text_encoder in ("minilm", "hashed", "none"),
            "text_encoder",
            self.text_encoder,
            "use 'minilm', 'hashed' or 'none'",
        )
        require(self.text_dim >= 1, "text_dim", self.text_dim, "use at least 1")
        for name in (
            "collaborative_dim",
            "attributes_dim",
            "text_weight",
            "collaborative_weight",
            "attributes_weight",
            "supplied_weight",
            "collaborative_shrinkage",
        ):
            require(getattr(self, name) >= 0, name, getattr(self, name), "use 0 or more")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Residual quantization of item vectors: balanced K-means, or a method to compare it with."""

    method: str = option(
        "balanced",
        "'balanced' (exactly equal K-means clusters), 'algorithm_1' (OneRec v1's greedy one), "
        "'kmeans' (plain residual K-means) or 'rqvae'",
    )
    num_levels: int = option(3, "L: residual levels; one disambiguation token follows them")
    codebook_size: int = option(32, "K: codes per level")
    iterations: int = option(20, "Lloyd steps per level")
    seed: int = option(0, "Seed of the initial centroids")
    quality_tolerance: float = option(
        0.05,
        "A new tokenizer version is refused when its relative error, collision rate, entropy "
        "share or hit "
        "rate is worse than the old one's on today's vectors by more than this; 1 accepts any",
    )
    rqvae_hidden_dim: int = option(128, "'rqvae': width of the hidden layers")
    rqvae_latent_dim: int = option(32, "'rqvae': width of what is quantized")
    rqvae_epochs: int = option(60, "'rqvae': passes over the catalogue")
    rqvae_batch_size: int = option(512, "'rqvae': items per step")
    rqvae_learning_rate: float = option(1e-3, "'rqvae': Adam's rate")
    rqvae_commitment: float = option(0.25, "'rqvae': weight that ties latents to their codes")

    def __post_init__(self) -> None:
        methods = ("balanced", "algorithm_1", "kmeans", "rqvae")
        require(self.method in methods, "method", self.method, f"use one of {', '.join(methods)}")
        require(self.num_levels >= 1, "num_levels", self.num_levels, "use at least 1")
        require(self.codebook_size >= 2, "codebook_size", self.codebook_size, "use at least 2")
        require(self.iterations >= 1, "iterations", self.iterations, "use at least 1")
        require(
            0 <= self.quality_tolerance <= 1,
            "quality_tolerance",
            self.quality_tolerance,
            "use a share from 0 to 1",
        )
        for name in ("hidden_dim", "latent_dim", "epochs", "batch_size", "learning_rate"):
            value = getattr(self, f"rqvae_{name}")
            require(value > 0, f"rqvae_{name}", value, "use a positive number")
