"""Settings of the generator and of its pretraining."""

from dataclasses import dataclass
from typing import Literal

from onerec.config.fields import ValidatedConfig, option, require
from onerec.config.limits import (
    LARGEST_BATCH,
    LARGEST_SEED,
    LARGEST_WEIGHT,
    LARGEST_WIDTH,
    MOST_EPOCHS,
    MOST_LAYERS,
)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ValidatedConfig):
    """Shape of the generator: encoder over the history, session decoder with sparse MoE."""

    architecture: Literal["encoder_decoder", "lazy_decoder"] = option(
        "encoder_decoder",
        "'encoder_decoder' (OneRec v1) or 'lazy_decoder' (OneRec-V2: no encoder, shared keys)",
    )
    d_model: int = option(64, "Width", ge=1, le=LARGEST_WIDTH)
    num_heads: int = option(4, "Attention heads; divides d_model", ge=1, le=LARGEST_WIDTH)
    d_ff: int = option(
        192, "Hidden width of a feed-forward block or of one expert", ge=1, le=LARGEST_WIDTH
    )
    encoder_layers: int = option(1, "Encoder blocks; a lazy decoder has none", ge=0, le=MOST_LAYERS)
    decoder_layers: int = option(2, "Decoder blocks", ge=1, le=MOST_LAYERS)
    num_experts: int = option(
        4, "Experts of a decoder block; 1 is a dense block", ge=1, le=LARGEST_WIDTH
    )
    active_experts: int = option(2, "Experts a token passes through", ge=1, le=LARGEST_WIDTH)
    dense_decoder_layers: int = option(
        0,
        "The first decoder blocks that stay dense beside sparse ones; OneRec-V2 has 2",
        ge=0,
        le=MOST_LAYERS,
    )
    context_kv_layers: int = option(
        1,
        "Lazy decoder: sets of keys over the history; each serves a group of decoder blocks",
        ge=1,
        le=MOST_LAYERS,
    )
    context_kv_heads: int = option(
        0,
        "Lazy decoder: key heads, divides num_heads; 0 is num_heads, 1 is multi-query",
        ge=0,
        le=LARGEST_WIDTH,
    )
    context_values: bool = option(
        False, "Lazy decoder: values of their own; off, the keys are the values too"
    )
    dropout: float = option(0.1, "Dropout", ge=0, lt=1)
    history_tokens: Literal["items", "sid_tokens"] = option(
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

    user_features: bool = option(
        True, "Uses the attributes of users where the log has them (onerec/model/user_features.py)"
    )
    dense_head: bool = option(
        False,
        "A softmax over the items beside generation; lists mix both, with a share chosen on the "
        "last validation days (onerec/model/dense_head.py)",
    )
    dense_encoder_layers: int = option(
        0,
        "Dense head: blocks of an encoder of its own over the item vectors, trained by itself "
        "after the generator; 0 scores items from the generator's encoder, which then reads these "
        "vectors",
        ge=0,
        le=MOST_LAYERS,
    )
    dense_dropout: float = option(0.2, "Dropout of a dense head with its own encoder", ge=0, lt=1)
    dense_item_dropout: float = option(
        0.3,
        "Dense head: share of the items that a step scores by their known vectors alone, as it "
        "does new items",
        ge=0,
        lt=1,
    )
    dense_negatives: int = option(
        16_384,
        "Dense head with its own encoder: where the catalogue has more items, each step's softmax "
        "is over the sessions' items and so many others, drawn uniformly; 0: over all items",
        ge=0,
        le=LARGEST_WIDTH,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        shares_encoder = self.dense_head and self.dense_encoder_layers == 0
        require(
            not (shares_encoder and self.architecture == "lazy_decoder"),
            "dense_head",
            self.dense_head,
            "a lazy decoder has no encoder that the head could share; give it one of its own with "
            "dense_encoder_layers=2, or use architecture='encoder_decoder'",
        )
        require(
            not (self.causal_encoder and self.architecture == "lazy_decoder"),
            "causal_encoder",
            self.causal_encoder,
            "a lazy decoder has no encoder; use architecture='encoder_decoder'",
        )
        for name, most, limit in (
            ("active_experts", self.num_experts, "num_experts"),
            ("context_kv_layers", self.decoder_layers, "decoder_layers"),
            ("dense_decoder_layers", self.decoder_layers, "decoder_layers"),
        ):
            value = getattr(self, name)
            require(value <= most, name, value, f"use at most {limit}={most}")
        require(
            self.context_kv_heads == 0 or self.num_heads % self.context_kv_heads == 0,
            "context_kv_heads",
            self.context_kv_heads,
            f"use 0 or a divisor of num_heads={self.num_heads}",
        )
        require(
            self.d_model % self.num_heads == 0,
            "num_heads",
            self.num_heads,
            f"use a divisor of d_model={self.d_model}",
        )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(ValidatedConfig):
    """Pretraining on good sessions."""

    batch_size: int = option(128, "Sessions per step", ge=1, le=LARGEST_BATCH)
    micro_batch: int = option(
        0,
        "Sessions of a step whose gradients are computed at once, which bounds memory; 0 computes "
        "all of them at once",
        ge=0,
        le=LARGEST_BATCH,
    )
    max_epochs: int = option(10, "Passes over the good sessions, at most", ge=1, le=MOST_EPOCHS)
    patience: int = option(
        2,
        "Epochs without a better validation loss before stopping; a dense head with its own "
        "encoder stops after 5 without better lists",
        ge=1,
        le=MOST_EPOCHS,
    )
    learning_rate: float = option(4e-3, "Peak learning rate", gt=0, le=1)
    dense_learning_rate: float = option(
        1e-3,
        "Learning rate of a dense head with its own encoder, constant until the last phase",
        gt=0,
        le=1,
    )
    schedule: Literal["cosine", "constant"] = option(
        "cosine", "After warming up: 'cosine' over max_epochs, or 'constant'"
    )
    warmup_share: float = option(0.05, "Share of the steps spent warming up", ge=0, le=1)
    weight_decay: float = option(0.01, "AdamW's", ge=0, le=10)
    gradient_clip: float = option(
        1.0, "Largest gradient norm; 0 does not clip", ge=0, le=LARGEST_WEIGHT
    )
    warm_start: bool = option(True, "Start from the last checkpoint of the same tokenizer version")
    warm_epochs: int = option(
        0,
        "Passes over the good sessions after such a start, at most; 0: it learns the newest days "
        "alone (fresh_days), since the checkpoint has learned the others",
        ge=0,
        le=MOST_EPOCHS,
    )
    history_sessions: bool = option(
        True,
        "A training from random weights also learns everything that users watched or liked before "
        "the validation day, in good sessions or not, cut into sessions of m items",
    )
    fresh_days: int = option(
        3,
        "When the epoch is chosen, a last phase learns everything that users watched or liked on "
        "this many days before the test day, the validation day included; after a warm start also "
        "on those since its checkpoint, where they are more",
        ge=1,
        le=366,
    )
    fresh_epochs: int = option(
        3, "Passes over those days; 0 leaves the phase out", ge=0, le=MOST_EPOCHS
    )
    fresh_learning_rate: float = option(1e-3, "Peak learning rate of that phase", gt=0, le=1)
    recency_prior: bool = option(
        True,
        "Lists add w log(1 + watches on the newest days) to an item's log-probability; the weight "
        "w is chosen on the last validation days (recency_weight_days), 0 among its values",
    )
    recency_days: int = option(1, "The newest days that this prior counts", ge=1, le=366)
    item_neighbours: int = option(
        0,
        "Lists add w log(similarity) of an item to the history's items, by who watched both; this "
        "many neighbours are kept per item. The weight w is chosen as the recency prior's is. 0 "
        "leaves the term out",
        ge=0,
        le=1000,
    )
    recency_weight_days: int = option(
        7,
        "Days up to the validation day whose users choose these weights and the share of a dense "
        "head: those of the nightly runs before count as they measured them, where the generator "
        "has the same settings",
        ge=1,
        le=366,
    )
    seed: int = option(0, "Seed of weights, order and dropout", ge=0, le=LARGEST_SEED)
