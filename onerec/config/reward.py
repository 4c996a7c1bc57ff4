"""Settings of the reward model and of the evaluator."""

from dataclasses import dataclass

from onerec.config.fields import option, require


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """The four-tower reward model; the evaluator is a second one on disjoint users."""

    d_model: int = option(32, "Width")
    evaluator_d_model: int = option(24, "Width of the evaluator: another architecture on purpose")
    num_heads: int = option(4, "Attention heads; divides both widths")
    target_attention: bool = option(
        True, "Each item of a session attends over the history; off, all see the history's mean"
    )
    history_similarity: bool = option(
        True,
        "Each item of a session also brings its vector's mean and largest cosine with the history",
    )
    dropout: float = option(0.3, "Dropout")
    embedding_dropout: float = option(
        0.7, "Share of items trained without their learned embedding, as new items have none"
    )
    batch_size: int = option(256, "Blocks per step")
    max_epochs: int = option(8, "Passes over the training blocks, at most")
    patience: int = option(2, "Epochs without a better validation loss before stopping")
    learning_rate: float = option(
        1e-3, "Peak learning rate; it falls to 0 at the end of max_epochs"
    )
    warmup_share: float = option(0.05, "Share of the steps spent warming up")
    weight_decay: float = option(0.05, "AdamW's")
    gradient_clip: float = option(1.0, "Largest gradient norm")
    evaluator_user_share: float = option(0.5, "Share of users kept for the evaluator alone")
    weight_swt: float = option(1.0, "Weight of session watch time in the scalar reward")
    weight_vtr: float = option(1.0, "Weight of the view rate")
    weight_wtr: float = option(1.0, "Weight of the follow rate")
    weight_ltr: float = option(1.0, "Weight of the like rate")
    ensemble_size: int = option(
        1, "Reward models of different seeds whose mean is the reward; the evaluator stays one"
    )
    ensemble_caution: float = option(
        1.0, "The better session of a pair is the one whose mean minus this many deviations is best"
    )
    seed: int = option(1, "Seed of the reward model; the evaluator adds 1,000")

    def __post_init__(self) -> None:
        require(self.ensemble_size >= 1, "ensemble_size", self.ensemble_size, "use at least 1")
        require(
            self.ensemble_caution >= 0, "ensemble_caution", self.ensemble_caution, "use 0 or more"
        )
        for name in ("d_model", "evaluator_d_model"):
            require(
                getattr(self, name) % self.num_heads == 0,
                name,
                getattr(self, name),
                f"use a multiple of num_heads={self.num_heads}",
            )
        require(
            0 < self.evaluator_user_share < 1,
            "evaluator_user_share",
            self.evaluator_user_share,
            "use a share in (0, 1): both models need users of their own",
        )
        for name in ("dropout", "embedding_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "use [0, 1)")
        weights = [self.weight_swt, self.weight_vtr, self.weight_wtr, self.weight_ltr]
        require(
            min(weights) >= 0 and max(weights) > 0,
            "weight_swt, weight_vtr, weight_wtr, weight_ltr",
            weights,
            "use weights >= 0, at least one above 0",
        )
