"""Settings of the generator and of its pretraining."""

from dataclasses import dataclass

from onerec.config.fields import option, require


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the generator: encoder over the history, session decoder with sparse MoE."""

    architecture: str = option(
        "encoder_decoder",
        "'encoder_decoder' (OneRec v1) or 'lazy_decoder' (OneRec-V2: no encoder, shared keys)",
    )
    d_model: int = option(64, "Width")
    num_heads: int = option(4, "Attention heads; divides d_model")
    d_ff: int = option(192, "Hidden width of a feed-forward block or of one expert")
    encoder_layers: int = option(1, "Encoder blocks; a lazy decoder has none")
    decoder_layers: int = option(2, "Decoder blocks")
    num_experts: int = option(4, "Experts of a decoder block; 1 is a dense block")
    active_experts: int = option(2, "Experts a token passes through")
    dense_decoder_layers: int = option(
        0, "The first decoder blocks that stay dense beside sparse ones; OneRec-V2 has 2"
    )
    context_kv_layers: int = option(
        1, "Lazy decoder: sets of keys over the history; each serves a group of decoder blocks"
    )
    context_kv_heads: int = option(
        0, "Lazy decoder: key heads, divides num_heads; 0 is num_heads, 1 is multi-query"
    )
    context_values: bool = option(
        False, "Lazy decoder: values of their own; off, the keys are the values too"
    )
    dropout: float = option(0.1, "Dropout")
    history_tokens: str = option(
        "items",
        "The encoder reads one token per history item ('items') or per token ('sid_tokens')",
    )
    separator: bool = option(
        True, "With 'sid_tokens': a separator token follows every history item (OneRec v1, Fig 2)"
    )
    causal_encoder: bool = option(
        False,
        "The encoder reads left to right and counts positions from the oldest item, so that one "
        "pass over a sequence learns every next item of it (onerec/model/next_item.py)",
    )

    def __post_init__(self) -> None:
        require(
            self.architecture in ("encoder_decoder", "lazy_decoder"),
            "architecture",
            self.architecture,
            "use 'encoder_decoder' or 'lazy_decoder'",
        )
        require(
            not (self.causal_encoder and self.architecture == "lazy_decoder"),
            "causal_encoder",
            self.causal_encoder,
            "a lazy decoder has no encoder; use architecture='encoder_decoder'",
        )
        require(
            self.context_kv_heads == 0
            or (self.context_kv_heads > 0 and self.num_heads % self.context_kv_heads == 0),
            "context_kv_heads",
            self.context_kv_heads,
            f"use 0 or a divisor of num_heads={self.num_heads}",
        )
        require(
            1 <= self.context_kv_layers <= max(1, self.decoder_layers),
            "context_kv_layers",
            self.context_kv_layers,
            f"use 1 to decoder_layers={self.decoder_layers}",
        )
        require(
            self.dense_decoder_layers >= 0,
            "dense_decoder_layers",
            self.dense_decoder_layers,
            "use 0 or more",
        )
        require(
            self.history_tokens in ("items", "sid_tokens"),
            "history_tokens",
            self.history_tokens,
            "use 'items' or 'sid_tokens'",
        )
        require(
            self.d_model % self.num_heads == 0,
            "num_heads",
            self.num_heads,
            f"use a divisor of d_model={self.d_model}",
        )
        require(
            1 <= self.active_experts <= self.num_experts,
            "active_experts",
            self.active_experts,
            f"use 1 to num_experts={self.num_experts}",
        )
        require(0 <= self.dropout < 1, "dropout", self.dropout, "use a share in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Pretraining on good sessions."""

    batch_size: int = option(128, "Sessions per step")
    micro_batch: int = option(
        0,
        "Sessions of a step whose gradients are computed at once, which bounds memory; 0 computes "
        "all of them at once",
    )
    length_window: int = option(
        64,
        "Batches whose sessions are grouped by length, so that little is padding; 1 only shuffles",
    )
    max_epochs: int = option(10, "Passes over the good sessions, at most")
    patience: int = option(2, "Epochs without a better validation loss before stopping")
    learning_rate: float = option(4e-3, "Peak learning rate")
    schedule: str = option("cosine", "After warming up: 'cosine' over max_epochs, or 'constant'")
    warmup_share: float = option(0.05, "Share of the steps spent warming up")
    weight_decay: float = option(0.01, "AdamW's")
    gradient_clip: float = option(1.0, "Largest gradient norm; 0 does not clip")
    warm_start: bool = option(True, "Start from the last checkpoint of the same generation")
    history_sessions: bool = option(
        True,
        "A training from random weights also learns everything that users watched or liked before "
        "the validation day, in good sessions or not, cut into sessions of m items",
    )
    seed: int = option(0, "Seed of weights, order and dropout")

    def __post_init__(self) -> None:
        for name in ("batch_size", "length_window", "max_epochs", "patience"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        require(self.micro_batch >= 0, "micro_batch", self.micro_batch, "use 0 for all, or more")
        require(
            self.learning_rate > 0, "learning_rate", self.learning_rate, "use a positive number"
        )
        require(
            self.schedule in ("cosine", "constant"),
            "schedule",
            self.schedule,
            "use 'cosine' or 'constant'",
        )
        require(
            0 <= self.warmup_share <= 1, "warmup_share", self.warmup_share, "use a share in [0, 1]"
        )
        for name in ("weight_decay", "gradient_clip"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "use 0 or more")
