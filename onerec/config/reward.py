"""Settings of the reward model and of the evaluator."""

from dataclasses import dataclass

from onerec.config.fields import ValidatedConfig, option, require
from onerec.config.limits import (
    LARGEST_BATCH,
    LARGEST_SEED,
    LARGEST_WEIGHT,
    LARGEST_WIDTH,
    MOST_EPOCHS,
)


@dataclass(frozen=True, kw_only=True)
class RewardConfig(ValidatedConfig):
    """The reward model; the evaluator is a second one on disjoint users."""

    d_model: int = option(32, "Width", ge=1, le=LARGEST_WIDTH)
    evaluator_d_model: int = option(
        24, "Width of the evaluator: another architecture on purpose", ge=1, le=LARGEST_WIDTH
    )
    num_heads: int = option(4, "Attention heads; divides both widths", ge=1, le=LARGEST_WIDTH)
    target_attention: bool = option(
        True, "Each item of a session attends over the history; off, all see the history's mean"
    )
    history_similarity: bool = option(
        True,
        "Each item of a session also brings its vector's mean and largest cosine with the history",
    )
    facts: bool = option(
        True,
        "Point-in-time facts of items and users: earlier outcomes, duration, age, hour, place",
    )
    boosting: bool = option(
        True,
        "LightGBM on the facts beside the network, with a share per tower chosen on the "
        "validation day",
    )
    user_facts_dropout: float = option(
        0.1,
        "Share of training blocks whose user is unknown, as the user of a candidate is",
        ge=0,
        lt=1,
    )
    quantiles: int = option(
        10, "Quantiles of the watched share that expected watch time is made of", ge=2, le=1000
    )
    dropout: float = option(0.1, "Dropout", ge=0, lt=1)
    embedding_dropout: float = option(
        0.7,
        "Share of items trained without their learned embedding, as new items have none",
        ge=0,
        lt=1,
    )
    batch_size: int = option(256, "Blocks per step", ge=1, le=LARGEST_BATCH)
    max_epochs: int = option(8, "Passes over the training blocks, at most", ge=1, le=MOST_EPOCHS)
    patience: int = option(
        2, "Epochs without a better validation loss before stopping", ge=1, le=MOST_EPOCHS
    )
    learning_rate: float = option(
        1e-3, "Peak learning rate; it falls to 0 at the end of max_epochs", gt=0, le=1
    )
    warmup_share: float = option(0.05, "Share of the steps spent warming up", ge=0, le=1)
    weight_decay: float = option(0.05, "AdamW's", ge=0, le=10)
    gradient_clip: float = option(
        1.0, "Largest gradient norm; 0 does not clip", ge=0, le=LARGEST_WEIGHT
    )
    evaluator_user_share: float = option(
        0.5,
        "Share of users kept for the evaluator alone: both models need users of their own",
        gt=0,
        lt=1,
    )
    weight_swt: float = option(
        1.0,
        "Weight of session watch time in the scalar reward; other signals than the four declare "
        "their own",
        ge=0,
        le=LARGEST_WEIGHT,
    )
    weight_vtr: float = option(1.0, "Weight of the view rate", ge=0, le=LARGEST_WEIGHT)
    weight_wtr: float = option(1.0, "Weight of the follow rate", ge=0, le=LARGEST_WEIGHT)
    weight_ltr: float = option(1.0, "Weight of the like rate", ge=0, le=LARGEST_WEIGHT)
    weight_watch_seconds: float = option(
        0.1,
        "Weight of the expected watch seconds per item: 0.1 counts ten of them as one signal; "
        "alone, the reward is in seconds and prefers long items",
        ge=0,
        le=LARGEST_WEIGHT,
    )
    weight_watch_share: float = option(
        3.0,
        "Weight of the expected share of an item's duration that is watched: prefers short items",
        ge=0,
        le=LARGEST_WEIGHT,
    )
    ensemble_size: int = option(
        1,
        "Reward models of different seeds whose mean is the reward; the evaluator stays one",
        ge=1,
        le=100,
    )
    ensemble_caution: float = option(
        1.0,
        "The better session of a pair is the one whose mean minus this many deviations is best",
        ge=0,
        le=1000,
    )
    seed: int = option(
        1, "Seed of the reward model; the evaluator adds 1,000", ge=0, le=LARGEST_SEED
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("d_model", "evaluator_d_model"):
            require(
                getattr(self, name) % self.num_heads == 0,
                name,
                getattr(self, name),
                f"use a multiple of num_heads={self.num_heads}",
            )
        names = ("swt", "vtr", "wtr", "ltr", "watch_seconds", "watch_share")
        weights = [getattr(self, f"weight_{name}") for name in names]
        require(
            max(weights) > 0,
            ", ".join(f"weight_{name}" for name in names),
            weights,
            "use at least one weight above 0",
        )
