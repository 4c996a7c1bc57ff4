"""Settings of the simulated A/B test."""

from dataclasses import dataclass

from onerec.config import PipelineConfig, option, require

READ = ("session_dataset", "semantic_ids", "baselines", "pretrained_checkpoint", "reward_model")
"""Artifacts of the night whose models are tested."""
CASCADE, UNJUDGED, ALIGNED = "cascade", "small_unjudged", "larger_aligned"
ARMS = {
    "popularity_recent": "popularity of the last days",
    "itemknn": "item-KNN",
    CASCADE: "cascade",
    UNJUDGED: "OneRec small, by probability alone",
    "small": "OneRec small",
    "larger": "OneRec larger",
    ALIGNED: "OneRec larger + IPA",
}
"""Arms and their names in the table. Generators serve as the night's recommendations do: a reward
model chooses among what they generate, but for the one by probability."""
RETURNING = "returning"
"""The pass in which good days bring users back sooner."""


@dataclass(frozen=True, kw_only=True)
class ABTestConfig:
    """What is served, to whom, for how long."""

    arms: str = option(
        ",".join(ARMS), f"Arms, comma-separated, '{CASCADE}' among them: {', '.join(ARMS)}"
    )
    days: int = option(7, "Days served, the first of them the night's D")
    traffic_seeds: int = option(3, "How often the days are served, each time with other visits")
    beam: int = option(16, "Sessions a generator searches for a list")
    larger_width: int = option(96, "Width of the larger generator; heads and d_ff scale with it")
    larger_encoder_layers: int = option(2, "Its encoder blocks")
    larger_decoder_layers: int = option(2, "Its decoder blocks")
    larger_experts: int = option(8, "Its experts per decoder block")
    larger_learning_rate: float = option(2e-3, "Its peak learning rate")
    larger_dropout: float = option(0.25, "Its dropout; by .1 it stops early (docs/log.md)")
    fresh_days: float = option(2.0, "Age in days up to which an item is fresh")
    return_sensitivity: float = option(
        1.0,
        "How much a good day brings users back sooner in a further pass: log activity per share "
        "of exposures watched; 0 leaves that pass out",
    )
    bootstrap_samples: int = option(1000, "Resamples of the users and seeds behind an interval")
    confidence: float = option(0.95, "Confidence of the intervals")
    seed: int = option(0, "Seed of the resamples")

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in ARMS]
        require(
            not unknown and CASCADE in self.names,
            "arms",
            self.arms,
            f"use names out of {', '.join(ARMS)}, {CASCADE} among them",
        )
        for name in ("days", "traffic_seeds", "beam", "bootstrap_samples"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        require(
            self.return_sensitivity >= 0,
            "return_sensitivity",
            self.return_sensitivity,
            "use 0 or more",
        )
        require(
            0 < self.confidence < 1, "confidence", self.confidence, "use a share, 0.95 is usual"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The arms, each once, in the order of `ARMS`."""
        named = {part.strip() for part in self.arms.split(",")}
        return (*(n for n in ARMS if n in named), *sorted(named - set(ARMS)))

    def larger(self, stages: PipelineConfig) -> PipelineConfig:
        """A night's settings with the larger generator's shape; heads and d_ff scale with width."""
        small = stages.model
        scale = self.larger_width / small.d_model
        model = {
            "d_model": self.larger_width,
            "num_heads": max(1, round(small.num_heads * scale)),
            "d_ff": round(small.d_ff * scale),
            "encoder_layers": self.larger_encoder_layers,
            "decoder_layers": self.larger_decoder_layers,
            "num_experts": self.larger_experts,
            "active_experts": min(small.active_experts, self.larger_experts),
            "dropout": self.larger_dropout,
        }
        training = {"learning_rate": self.larger_learning_rate, "warm_start": False}
        return stages.override({"model": model, "training": training})
