"""Settings of the baselines, the metrics and the promotion rule."""

from dataclasses import dataclass

from onerec.config.fields import ValidatedConfig, option, require
from onerec.config.limits import LARGEST_SEED, LARGEST_WIDTH, MOST_EPOCHS, MOST_USERS

BASELINES = (
    "popularity",
    "popularity_recent",
    "own_repeats",
    "itemknn",
    "sasrec_ce",
    "sasrec_bce",
    "sasrec_ss",
    "esasrec",
    "bert4rec",
    "tiger",
    "cascade",
)
"""Systems that a generator can be measured against."""
OWN_REPEATS = "own_repeats"
SIMPLE_SYSTEMS = ("popularity", "popularity_recent", "itemknn", OWN_REPEATS)
"""Systems without a trained model: the best of a nightly run is what a challenger has to beat, and
serves where there is no champion."""
CHALLENGER_SERVES = "challenger"
"""What `champion.json` says of a nightly run whose challenger is the champion."""
_WITHOUT_RECENCY = "_without_recency"
PRETRAINED, ALIGNED, CHAMPION = "pretrained", "dpo", "champion"
"""Generators: before alignment, after it, and the champion of the nightly run before. One of the
first two is the challenger."""
WITHOUT_RECENCY = PRETRAINED + _WITHOUT_RECENCY
"""The generator before alignment by log-probability alone, without its recency prior."""
BY_PROBABILITY, WITH_REWARD = "by_probability", "with_reward"
"""The aligned model as it would serve, by log-probability alone and with the weighted reward."""
SERVED = (BY_PROBABILITY, WITH_REWARD)
"""Seen items are left out of these lists only, so they compare with nothing but one another."""
SYSTEMS = (
    *(name + end for name in BASELINES for end in (_WITHOUT_RECENCY, "")),
    CHAMPION,
    WITHOUT_RECENCY,
    PRETRAINED,
    ALIGNED,
    *SERVED,
)
"""Every system of a nightly run, in the order of tables."""
MOST_TRIALS = 4
"""Settings that there are to try for a sequence baseline."""


def without_recency(system: str) -> str:
    """Name in metrics of a system by its own scores alone, without its recency prior.

    >>> without_recency("sasrec_ce")
    'sasrec_ce_without_recency'
    """
    return system + _WITHOUT_RECENCY


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(ValidatedConfig):
    """Item-level metrics over the full catalogue, and the promotion rule."""

    baselines: str = option(
        "popularity,popularity_recent,own_repeats,itemknn",
        "Systems measured beside the generators, comma-separated; popularity is always one. Also "
        "'sasrec_ce', 'sasrec_bce', 'sasrec_ss', 'esasrec', 'bert4rec', 'tiger', and 'cascade'",
    )
    baseline_epochs: int = option(
        40, "Passes over the windows of a sequence baseline, at most", ge=1, le=MOST_EPOCHS
    )
    baseline_width: int = option(
        64, "Width of the sequence baselines; two heads share it", ge=2, le=LARGEST_WIDTH
    )
    baseline_trials: int = option(
        1,
        "Settings of learning rate and dropout tried for each sequence baseline, each for "
        "baseline_epochs; the best on the validation day counts",
        ge=1,
        le=MOST_TRIALS,
    )
    baseline_last_phase: bool = option(
        True,
        "Sequence baselines learn the newest days when the epoch is chosen, as the generator does "
        "(training.fresh_days, fresh_epochs, fresh_learning_rate)",
    )
    baseline_recency: bool = option(
        True,
        "Sequence baselines, item-KNN and the cascade get a recency prior, chosen as the "
        "generator's is (training.recency_days, recency_weight_days); they are measured without "
        "it, too",
    )

    cutoffs: str = option("5,10,20", "List lengths, comma-separated, 10 among them")
    bootstrap_samples: int = option(
        1000, "Resamples of the users behind an interval", ge=1, le=1_000_000
    )
    confidence: float = option(0.95, "Confidence of the intervals, 0.95 is usual", gt=0, lt=1)
    max_cases: int = option(
        5000, "Users of the test day, a seeded sample beyond that", ge=1, le=MOST_USERS
    )
    neighbours: int = option(50, "Neighbours per item of item-KNN", ge=1, le=100_000)
    recall_tolerance: float = option(
        0.10,
        "A challenger may lose this share of the champion's Recall@10 before it is refused",
        ge=0,
        lt=1,
    )
    aligned_recall_tolerance: float = option(
        0.0,
        "Share of the pretrained model's Recall@10 that the aligned one may lose significantly; if "
        "it loses more, the pretrained one is the challenger. Above 0 trades Recall for reward",
        ge=0,
        lt=1,
    )
    seed: int = option(3, "Seed of the resamples and of the sample of cases", ge=0, le=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = [part.strip() for part in self.cutoffs.split(",")]
        require(
            all(part.isascii() and part.isdigit() and 0 < len(part) < 5 for part in parts)
            and 10 in self.lengths
            and self.lengths[0] > 0,
            "cutoffs",
            self.cutoffs,
            "use numbers from 1 to 9999 with commas between them, 10 among them",
        )
        unknown = [name for name in self.systems if name not in BASELINES]
        require(
            not unknown and "popularity" in self.systems,
            "baselines",
            self.baselines,
            f"use names out of {', '.join(BASELINES)}, popularity among them",
        )
        require(
            self.baseline_width % 2 == 0,
            "baseline_width",
            self.baseline_width,
            "use an even number",
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
