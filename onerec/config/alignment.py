"""Settings of tokenizer version and of preference alignment."""

from dataclasses import dataclass

from onerec.config.fields import option, require


@dataclass(frozen=True, kw_only=True)
class BeamConfig:
    """Beam search."""

    beam: int = option(16, "Beams kept; at least the length of the list asked for")
    candidates: int = option(32, "N: sessions generated per user for preference pairs")
    batch_size: int = option(64, "Users per batch")
    filter_seen: bool = option(True, "Recommendations leave out items of the user's history")
    serving_precision: str = option(
        "float64",
        "Recommendations are computed in 'float64', so that a user gets the same list alone and "
        "among thousands, or in 'float32', twice as fast, where two nearly equal beams may swap",
    )

    def __post_init__(self) -> None:
        require(
            self.serving_precision in ("float32", "float64"),
            "serving_precision",
            self.serving_precision,
            "use 'float32' or 'float64'",
        )


PAIR_METHODS = ("ipa", "dpo", "ipo", "cdpo", "rdpo", "cpo", "simpo", "sdpo")
"""Alignment methods that learn from a better session and one or several worse ones."""
GROUP_METHODS = ("grpo", "ecpo")
"""Alignment methods that learn from groups of sessions with rewards."""
PAIR_SOURCES = ("beams", "sampling", "feedback")
"""Where the sessions that are compared come from."""


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """Iterative preference alignment (OneRec v1, Algorithm 2)."""

    method: str = option(
        "ipa",
        "Loss: 'ipa' (DPO on the model's own beams beside L_NTP), 'dpo', 'ipo', 'cdpo', 'rdpo', "
        "'cpo', 'simpo', 'sdpo', or with groups and rewards 'grpo', 'ecpo'",
    )
    pairs: str = option(
        "beams",
        "Sessions compared: the model's 'beams', draws of it ('sampling'), or a user's best and "
        "worst logged ones ('feedback')",
    )

    rounds: int = option(1, "Rounds; each adds two assets to the graph")
    sample_users: int = option(
        1000, "Users for whom sessions are generated per round: the paper's r_DPO as a number"
    )
    group_size: int = option(8, "Sessions per user that 'grpo' and 'ecpo' compare")
    num_rejected: int = option(3, "Worse sessions per user that 'sdpo' compares with the best")
    temperature: float = option(1.0, "Of 'sampling': above 1 draws less probable sessions")
    beta: float = option(0.1, "beta of the pair losses; simpo's is usually 2.5")
    label_noise: float = option(0.1, "eps of 'cdpo' and 'rdpo': share of pairs told wrongly")
    nll_weight: float = option(1.0, "alpha of 'cpo'")
    target_margin: float = option(1.375, "gamma of 'simpo'")
    clip: float = option(0.2, "eps of 'grpo' and 'ecpo'")
    early_clip: float = option(0.1, "delta of 'ecpo'")
    kl_weight: float = option(0.0, "beta_KL of 'grpo'")
    dpo_weight: float = option(0.3, "lambda: weight of the preference loss beside L_NTP")
    ntp_weight: float = option(1.0, "Weight of L_NTP; 0 leaves the log out")
    ntp_sessions_per_pair: int = option(
        4, "Further good sessions per pair whose L_NTP holds the model to the log"
    )
    holdout_share: float = option(0.1, "Share of the pairs that only measure")
    learning_rate: float = option(1e-4, "Peak learning rate")
    warmup_share: float = option(0.1, "Share of the steps spent warming up")
    weight_decay: float = option(0.0, "AdamW's")
    gradient_clip: float = option(1.0, "Largest gradient norm")
    batch_size: int = option(64, "Pairs per step")
    epochs: int = option(2, "Passes over the pairs")
    gate_cases: int = option(
        500,
        "Users of the validation day on whom a round must prove itself; 0 publishes every round",
    )
    recall_tolerance: float = option(
        0.10, "A round may lose this share of its start's Recall@10 before it is refused"
    )
    seed: int = option(2, "Seed of the sample and of the order")

    def __post_init__(self) -> None:
        methods = (*PAIR_METHODS, *GROUP_METHODS)
        require(self.method in methods, "method", self.method, f"use one of {', '.join(methods)}")
        require(
            self.pairs in PAIR_SOURCES,
            "pairs",
            self.pairs,
            f"use one of {', '.join(PAIR_SOURCES)}",
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
        for name in ("rounds", "sample_users", "batch_size", "epochs", "num_rejected"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        require(self.group_size >= 2, "group_size", self.group_size, "use at least 2")
        for name in (
            "dpo_weight",
            "ntp_weight",
            "ntp_sessions_per_pair",
            "nll_weight",
            "gate_cases",
        ):
            require(getattr(self, name) >= 0, name, getattr(self, name), "use 0 or more")
        require(self.beta > 0, "beta", self.beta, "use a positive number, 0.1 is usual")
        require(self.temperature > 0, "temperature", self.temperature, "use a positive number")
        for name in ("holdout_share", "recall_tolerance"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "use [0, 1)")
