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
"""Artifacts of a nightly run whose models are tested."""
NIGHTLY_ALIGNED = "dpo_checkpoint"
"""The nightly run's generator after alignment, read where an arm serves it."""
MEASURED = "offline_metrics"
"""Its manifest has the decoding of the nightly run's generators."""
CASCADE = "cascade"
BASELINE_ARMS = {
    "popularity_recent": "popularity of the last days",
    "itemknn": "item-KNN",
    CASCADE: "cascade",
}
SMALL, SMALL_IPA, START, NTP_ONLY, IPA, TRUE_PAIRS = (
    "small",
    "small_aligned",
    "larger",
    "larger_ntp_only",
    "larger_aligned",
    "larger_true_pairs",
)
"""Checkpoints: the nightly run's generator before and after its alignment, the larger one, and that
after further training."""
CEILING = "(ceiling)"
"""In the names of oracles."""
CHECKPOINTS = {
    SMALL: "OneRec small",
    SMALL_IPA: "OneRec small + IPA",
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
RETRAINED = "_retrained"
"""Ending of an arm that serves every day with the models of that day's nightly run."""
FROZEN_ARMS = BASELINE_ARMS | GENERATOR_ARMS
"""Arms that serve every day with the models of the first nightly run."""
WEEK_ARMS = tuple(
    name
    for name in FROZEN_ARMS
    if name in BASELINE_ARMS or name.removesuffix("_by_probability") in (SMALL, SMALL_IPA)
)
"""Arms whose models a nightly run makes, so that they can be retrained every day."""
ARMS = FROZEN_ARMS | {
    f"{name}{RETRAINED}": f"{FROZEN_ARMS[name]}, retrained daily" for name in WEEK_ARMS
}
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


def is_retrained(arm: str) -> bool:
    """Whether an arm serves every day with the models of that day's nightly run."""
    return arm.endswith(RETRAINED)


def frozen(arm: str) -> str:
    """The arm that serves the same system with the models of the first nightly run throughout."""
    return arm.removesuffix(RETRAINED)


def cascade_of(arm: str) -> str:
    """The cascade that an arm is compared with: retrained daily where the arm is.

    Examples:
        >>> cascade_of("small"), cascade_of("small_by_probability_retrained")
        ('cascade', 'cascade_retrained')
    """
    return f"{CASCADE}{RETRAINED}" if is_retrained(arm) else CASCADE


def checkpoint_and_way(arm: str) -> tuple[str, str]:
    """The checkpoint that a generator's arm serves, and how.

    Examples:
        >>> checkpoint_and_way("larger_aligned_by_truth"), checkpoint_and_way("small_retrained")
        (('larger_aligned', '_by_truth'), ('small', ''))
    """
    arm = frozen(arm)
    way = next((w for w in (BY_PROBABILITY, BY_TRUTH) if arm.endswith(w)), SERVED)
    return arm.removesuffix(way), way


@dataclass(frozen=True, kw_only=True)
class ABTestConfig(ValidatedConfig):
    """What is served, to whom, for how long."""

    arms: str = option(
        ",".join(name for name in FROZEN_ARMS if not name.startswith(SMALL_IPA)),
        f"Arms, comma-separated, '{CASCADE}' among them, and '{CASCADE}{RETRAINED}' where another "
        f"arm is retrained: {', '.join(ARMS)}",
    )
    days: int = option(7, "Days served, the first of them the nightly run's D")
    traffic_seeds: int = option(3, "How often the days are served, each time with other visits")
    beam: int = option(16, "Sessions a generator searches for a list")
    reward_weight: float | None = option(
        None,
        "Weight of the reward in the lists of every arm that counts it; none: chosen for each "
        "checkpoint on the validation day, as a first nightly run does",
        ge=0,
    )
    recency_prior: bool = option(
        True,
        "Whether scores count the watches of the newest days, with the weights that the nightly "
        "runs chose",
    )
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
        lacking = {cascade_of(name) for name in self.names} - {*self.names}
        require(
            not lacking,
            "arms",
            self.arms,
            f"add {', '.join(lacking)}, which arms that are retrained daily are compared with",
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
    def nights(self) -> int:
        """Nightly runs whose models serve: one, or one for each day."""
        return self.days if self.has_retrained_arms else 1

    @property
    def has_retrained_arms(self) -> bool:
        """Whether an arm serves every day with other models."""
        return any(map(is_retrained, self.names))

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The checkpoints that the arms serve, each once."""
        arms = (name for name in self.names if frozen(name) in GENERATOR_ARMS)
        return tuple(dict.fromkeys(checkpoint_and_way(arm)[0] for arm in arms))


RETRAINED_DAILY = ABTestConfig(
    arms=",".join(f"{name}{end}" for end in ("", RETRAINED) for name in WEEK_ARMS),
    traffic_seeds=1,
    return_sensitivity=0.0,
    reward_weight=1.0,
)
"""The test with models retrained every day: the arms that a nightly run makes, frozen and not, all
lists with reward at one weight that was not tuned."""
