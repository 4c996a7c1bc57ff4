"""Settings of the baselines, the metrics and the promotion rule."""

from dataclasses import dataclass

from onerec.config.fields import option, require

BASELINES = (
    "popularity",
    "popularity_recent",
    "itemknn",
    "sasrec_ce",
    "sasrec_bce",
    "bert4rec",
    "tiger",
    "cascade",
)
"""Systems that a generator can be measured against."""
BY_PROBABILITY, BY_REWARD = "by_probability", "by_reward"
"""The challenger as it serves, without and with the reward model choosing."""
SERVED = (BY_PROBABILITY, BY_REWARD)
"""Seen items are left out of these lists only, so they compare with nothing but one another."""
MOST_TRIALS = 4
"""Settings that there are to try for a sequence baseline."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Item-level metrics over the full catalogue, and the promotion rule."""

    baselines: str = option(
        "popularity,popularity_recent,itemknn",
        "Systems measured beside the generators, comma-separated; popularity is always one. Also "
        "'sasrec_ce', 'sasrec_bce', 'bert4rec', 'tiger', and 'cascade' (needs LightGBM)",
    )
    baseline_epochs: int = option(40, "Passes over the windows of a sequence baseline, at most")
    baseline_width: int = option(64, "Width of the sequence baselines; two heads share it")
    baseline_trials: int = option(
        1,
        "Settings of learning rate and dropout tried for each sequence baseline, each for "
        "baseline_epochs; the best on the validation day counts",
    )

    cutoffs: str = option("5,10,20", "List lengths, comma-separated")
    bootstrap_samples: int = option(1000, "Resamples of the users behind an interval")
    confidence: float = option(0.95, "Confidence of the intervals")
    max_cases: int = option(5000, "Users of the test day, a seeded sample beyond that")
    neighbours: int = option(50, "Neighbours per item of item-KNN")
    recall_tolerance: float = option(
        0.10, "A challenger may lose this share of the champion's Recall@10 before it is refused"
    )
    seed: int = option(3, "Seed of the resamples and of the sample of cases")

    def __post_init__(self) -> None:
        parts = self.cutoffs.split(",")
        require(
            all(p.strip().isdigit() and int(p) > 0 for p in parts) and 10 in self.lengths,
            "cutoffs",
            self.cutoffs,
            "use positive numbers with commas between them, 10 among them",
        )
        require(
            0 < self.confidence < 1, "confidence", self.confidence, "use a share, 0.95 is usual"
        )
        unknown = [name for name in self.systems if name not in BASELINES]
        require(
            not unknown and "popularity" in self.systems,
            "baselines",
            self.baselines,
            f"use names out of {', '.join(BASELINES)}, popularity among them",
        )
        require(
            self.baseline_width >= 2 and self.baseline_width % 2 == 0,
            "baseline_width",
            self.baseline_width,
            "use an even number",
        )
        require(
            1 <= self.baseline_trials <= MOST_TRIALS,
            "baseline_trials",
            self.baseline_trials,
            f"use 1 to {MOST_TRIALS}",
        )
        for name in ("bootstrap_samples", "max_cases", "neighbours", "baseline_epochs"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        require(
            0 <= self.recall_tolerance < 1,
            "recall_tolerance",
            self.recall_tolerance,
            "use a share in [0, 1)",
        )

    @property
    def lengths(self) -> tuple[int, ...]:
        """The list lengths as numbers, shortest first."""
        return tuple(sorted({int(part) for part in self.cutoffs.split(",")}))

    @property
    def systems(self) -> tuple[str, ...]:
        """The baselines by name, each once, in the order of `BASELINES`."""
        named = [part.strip() for part in self.baselines.split(",")]
        order = (*BASELINES, *(name for name in named if name not in BASELINES))
        return tuple(name for name in order if name in named)
