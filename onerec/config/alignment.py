"""Settings of beam search and of preference alignment."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from onerec.config.fields import ValidatedConfig, option, require
from onerec.config.limits import (
    LARGEST_BATCH,
    LARGEST_SEED,
    LARGEST_WEIGHT,
    LONGEST_SEQUENCE,
    MOST_EPOCHS,
    MOST_USERS,
)

Precision = Literal["float64", "float32"]
PairMethod = Literal["ipa", "dpo", "ipo", "cdpo", "rdpo", "cpo", "simpo", "sdpo"]
"""Alignment methods that learn from a better session and one or several worse ones."""
GroupMethod = Literal["grpo", "ecpo"]
"""Alignment methods that learn from groups of sessions with rewards."""
AlignmentMethod = Literal[PairMethod, GroupMethod]
PairSource = Literal["beams", "sampling", "feedback"]
"""Where the sessions that are compared come from."""

PAIR_METHODS: tuple[PairMethod, ...] = get_args(PairMethod)
GROUP_METHODS: tuple[GroupMethod, ...] = get_args(GroupMethod)
PAIR_SOURCES: tuple[PairSource, ...] = get_args(PairSource)


@dataclass(frozen=True, kw_only=True)
class BeamConfig(ValidatedConfig):
    """Beam search."""

    beam: int = option(
        16, "Beams kept; at least the length of the list to make", ge=1, le=LONGEST_SEQUENCE
    )
    candidates: int = option(
        32, "N: sessions generated per user for preference pairs", ge=1, le=LONGEST_SEQUENCE
    )
    batch_size: int = option(64, "Users per batch", ge=1, le=LARGEST_BATCH)
    filter_seen: bool = option(
        True, "Recommendations leave out items of the user's history, unless the log repeats"
    )
    new_item_share: float = option(
        0.0,
        "Share of every list of recommendations that is kept for new items, ordered by the content "
        "vectors of the dense head (model.dense_head) and how like the history they are, without a "
        "head as the list is; 0 keeps none",
        ge=0,
        lt=1,
    )
    new_item_days: int = option(
        2, "Items are new for so many days, the day they were first seen included", ge=1, le=366
    )
    serving_precision: Precision = option(
        "float64",
        "Recommendations are computed in 'float64', so that a user gets the same list alone and "
        "among thousands, or in 'float32', twice as fast, where two nearly equal beams may swap",
    )


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig(ValidatedConfig):
    """Iterative preference alignment (OneRec v1, Algorithm 2)."""

    method: AlignmentMethod = option(
        "ipa",
        "Loss: 'ipa' (DPO on the model's own beams beside L_NTP), 'dpo', 'ipo', 'cdpo', 'rdpo', "
        "'cpo', 'simpo', 'sdpo', or with groups and rewards 'grpo', 'ecpo'",
    )
    pairs: PairSource = option(
        "beams",
        "Sessions compared: the model's 'beams', draws of it ('sampling'), or a user's best and "
        "worst logged ones ('feedback')",
    )

    rounds: int = option(1, "Rounds; each adds two assets to the graph", ge=1, le=20)
    sample_users: int = option(
        1000,
        "Users for whom sessions are generated per round: the paper's r_DPO as a number",
        ge=1,
        le=MOST_USERS,
    )
    group_size: int = option(
        8, "Sessions per user that 'grpo' and 'ecpo' compare", ge=2, le=LONGEST_SEQUENCE
    )
    num_rejected: int = option(
        3, "Worse sessions per user that 'sdpo' compares with the best", ge=1, le=LONGEST_SEQUENCE
    )
    temperature: float = option(
        1.0, "Of 'sampling': above 1 draws less probable sessions", gt=0, le=100
    )
    beta: float = option(
        0.1, "beta of the pair losses, 0.1 is usual; simpo's is usually 2.5", gt=0, le=1000
    )
    label_noise: float = option(
        0.1, "eps of 'cdpo' and 'rdpo': share of pairs whose label is wrong", ge=0, lt=0.5
    )
    nll_weight: float = option(1.0, "alpha of 'cpo'", ge=0, le=LARGEST_WEIGHT)
    target_margin: float = option(1.375, "gamma of 'simpo'", ge=0, le=1000)
    clip: float = option(0.2, "eps of 'grpo' and 'ecpo'", gt=0, lt=1)
    early_clip: float = option(0.1, "delta of 'ecpo'", gt=0, le=100)
    kl_weight: float = option(0.0, "beta_KL of 'grpo'", ge=0, le=LARGEST_WEIGHT)
    dpo_weight: float = option(
        1.0, "lambda: weight of the preference loss beside L_NTP", ge=0, le=LARGEST_WEIGHT
    )
    ntp_weight: float = option(
        1.0, "Weight of L_NTP; 0 leaves the log out", ge=0, le=LARGEST_WEIGHT
    )
    ntp_sessions_per_pair: int = option(
        4,
        "Further good sessions per pair whose L_NTP holds the model to the log",
        ge=0,
        le=LARGEST_BATCH,
    )
    holdout_share: float = option(0.1, "Share of the pairs that only measure", ge=0, lt=1)
    learning_rate: float = option(1e-4, "Peak learning rate", gt=0, le=1)
    warmup_share: float = option(0.1, "Share of the steps spent warming up", ge=0, le=1)
    weight_decay: float = option(0.0, "AdamW's", ge=0, le=10)
    gradient_clip: float = option(
        1.0, "Largest gradient norm; 0 does not clip", ge=0, le=LARGEST_WEIGHT
    )
    batch_size: int = option(64, "Pairs per step", ge=1, le=LARGEST_BATCH)
    epochs: int = option(2, "Passes over the pairs", ge=1, le=MOST_EPOCHS)
    gate_cases: int = option(
        500,
        "Users of the validation day on whom the evaluator's reward must rise, and a first nightly "
        "run chooses the weight of the reward, at most; 0 publishes every round",
        ge=0,
        le=MOST_USERS,
    )
    gate_recall_cases: int = option(
        5000,
        "Held-out users of the validation day on whom Recall@10 must not fall, at most",
        ge=0,
        le=MOST_USERS,
    )
    recall_tolerance: float = option(
        0.0,
        "Share of its start's Recall@10 that a round may lose significantly before it is refused",
        ge=0,
        lt=1,
    )
    reward_weights: str = option(
        "0,0.01,0.03,0.1,0.3,1,3",
        "Weights w tried for served lists, which are ordered by log-probability + w x reward, "
        "comma-separated and increasing: the largest one that loses little NDCG@10 on the test "
        "days of the nightly runs before (reward_weight_days), in a first nightly run on held-out "
        "users of the validation day; a single one is not tried",
    )
    reward_weight_days: int = option(
        7,
        "Days before day D whose nightly runs choose that weight, by what each measured on its "
        "test day, where decoding, alignment, reward model and generator have the same settings",
        ge=1,
        le=366,
    )
    reward_ndcg_tolerance: float = option(
        0.05,
        "Share of the smallest weight's NDCG@10 on those days that a larger one may lose",
        ge=0,
        lt=1,
    )
    seed: int = option(2, "Seed of the sample and of the order", ge=0, le=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            _increasing(self.reward_weights),
            "reward_weights",
            self.reward_weights,
            "use increasing numbers from 0 on with commas between them, '0,0.5,1' say",
        )
        require(
            self.method != "ipa" or (self.pairs == "beams" and self.ntp_weight > 0),
            "pairs, ntp_weight",
            (self.pairs, self.ntp_weight),
            "IPA compares the model's own beams and keeps L_NTP; use method='dpo' for others",
        )
        require(
            self.pairs != "feedback" or self.method not in (*GROUP_METHODS, "sdpo"),
            "pairs",
            self.pairs,
            f"a log holds no group of sessions for one history, which {self.method} needs; "
            "use 'beams' or 'sampling'",
        )

    @property
    def tried_reward_weights(self) -> tuple[float, ...]:
        """`reward_weights` as numbers."""
        return _numbers(self.reward_weights)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _increasing(text: str) -> bool:
    """Whether a text holds increasing finite numbers from 0 on, with commas between them."""
    try:
        found = _numbers(text)
    except ValueError:
        return False
    bounds = (0.0, *found, LARGEST_WEIGHT)
    return all(low <= high for low, high in pairwise(bounds)) and len(set(found)) == len(found)
