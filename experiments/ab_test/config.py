"""Settings of the simulated A/B test."""

from dataclasses import dataclass

from experiments.variants.grids import (
    ALIGNED,
    LARGER,
    LARGER_IPA,
    LARGER_NTP,
    LARGER_TRUE,
    PRETRAINED,
)
from experiments.variants.stored_results import VariantPartition
from onerec.config import ValidatedConfig, option, require

NIGHTLY = ("session_dataset", "semantic_ids", "baselines", "pretrained_checkpoint", "reward_model")
"""Artifacts of the nightly run whose models are tested."""
MEASURED = "offline_metrics"
"""Its manifest has the decoding of the nightly run's generators."""
CASCADE = "cascade"
BASELINE_ARMS = {
    "popularity_recent": "popularity of the last days",
    "itemknn": "item-KNN",
    CASCADE: "cascade",
}
SMALL, START, NTP_ONLY, IPA, TRUE_PAIRS = (
    "small",
    "larger",
    "larger_ntp_only",
    "larger_aligned",
    "larger_true_pairs",
)
"""Checkpoints: the nightly run's generator, the larger one, and that after further training."""
CEILING = "(ceiling)"
"""In the names of oracles."""
CHECKPOINTS = {
    SMALL: "OneRec small",
    START: "OneRec larger",
    NTP_ONLY: "OneRec larger + L_NTP alone",
    IPA: "OneRec larger + IPA",
    TRUE_PAIRS: f"OneRec larger + IPA on true pairs {CEILING}",
}
SERVED, BY_PROBABILITY, BY_TRUTH = "", "_by_probability", "_by_truth"
"""Ways to serve a checkpoint, as the suffix of its arm: as the nightly run's recommendations, where
the weighted reward counts beside the log-probability; by log-probability alone; and the best of
what the generator proposes, chosen by the simulator's ground truth."""
WAYS = {SERVED: "", BY_PROBABILITY: ", by probability", BY_TRUTH: f", lists by truth {CEILING}"}
CHOSEN_BY_TRUTH = (START, IPA, TRUE_PAIRS)
"""Checkpoints that are served by the truth, too."""
GENERATOR_ARMS = {
    f"{checkpoint}{way}": f"{label}{suffix}"
    for checkpoint, label in CHECKPOINTS.items()
    for way, suffix in WAYS.items()
    if way != BY_TRUTH or checkpoint in CHOSEN_BY_TRUTH
}
ARMS = BASELINE_ARMS | GENERATOR_ARMS
"""Arms and their names in the table."""
VARIANTS = {
    START: VariantPartition(PRETRAINED, LARGER, seed=0),
    NTP_ONLY: VariantPartition(ALIGNED, LARGER_NTP, seed=0),
    IPA: VariantPartition(ALIGNED, LARGER_IPA, seed=0),
    TRUE_PAIRS: VariantPartition(ALIGNED, LARGER_TRUE, seed=0),
}
"""Checkpoints that are variants of the nightly run."""
RETURNING = "returning"
"""The pass in which good days bring users back sooner."""


def checkpoint_and_way(arm: str) -> tuple[str, str]:
    """The checkpoint that a generator's arm serves, and how.

    Examples:
        >>> checkpoint_and_way("larger_aligned_by_truth"), checkpoint_and_way("small")
        (('larger_aligned', '_by_truth'), ('small', ''))
    """
    way = next((w for w in (BY_PROBABILITY, BY_TRUTH) if arm.endswith(w)), SERVED)
    return arm.removesuffix(way), way


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

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The checkpoints that the arms serve, each once."""
        arms = (name for name in self.names if name in GENERATOR_ARMS)
        return tuple(dict.fromkeys(checkpoint_and_way(arm)[0] for arm in arms))
