"""Settings of the simulated A/B test."""

from dataclasses import dataclass

from experiments.variants.grids import ALIGNED, LARGER, LARGER_IPA, PRETRAINED
from experiments.variants.stored_results import VariantPartition
from onerec.config import ValidatedConfig, option, require

NIGHTLY = ("session_dataset", "semantic_ids", "baselines", "pretrained_checkpoint", "reward_model")
"""Artifacts of the nightly run whose models are tested."""
MEASURED = "offline_metrics"
"""Its manifest has the decoding of the nightly run's generators."""
CASCADE, BY_PROBABILITY = "cascade", "small_by_probability"
BASELINE_ARMS = {
    "popularity_recent": "popularity of the last days",
    "itemknn": "item-KNN",
    CASCADE: "cascade",
}
GENERATOR_ARMS = {
    BY_PROBABILITY: "OneRec small, by probability alone",
    "small": "OneRec small",
    "larger": "OneRec larger",
    "larger_aligned": "OneRec larger + IPA",
}
ARMS = BASELINE_ARMS | GENERATOR_ARMS
"""Arms and their names in the table. Generators serve as the nightly run's recommendations do: the
weighted reward counts beside the log-probability, except for the one by probability."""
ALIGNED_ARM = "larger_aligned"
VARIANTS = {
    "larger": VariantPartition(PRETRAINED, LARGER, seed=0),
    ALIGNED_ARM: VariantPartition(ALIGNED, LARGER_IPA, seed=0),
}
"""Arms that a variant of the nightly run serves; the others are its own models."""
RETURNING = "returning"
"""The pass in which good days bring users back sooner."""


@dataclass(frozen=True, kw_only=True)
class ABTestConfig(ValidatedConfig):
    """What is served, to whom, for how long."""

    arms: str = option(
        ",".join(ARMS), f"Arms, comma-separated, '{CASCADE}' among them: {', '.join(ARMS)}"
    )
    days: int = option(7, "Days served, the first of them the nightly run's D")
    traffic_seeds: int = option(3, "How often the days are served, each time with other visits")
    beam: int = option(16, "Sessions a generator searches for a list")
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
        super().__post_init__()
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
