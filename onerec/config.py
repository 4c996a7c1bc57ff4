"""One frozen dataclass per stage, and the presets that size them together.

Each field carries its own documentation (`field.metadata["doc"]`), which Dagster's launchpad shows.
`__post_init__` raises `ValueError` naming the field, the value and the remedy.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


def option(default: Any, doc: str) -> Any:
    """A documented dataclass field."""
    return dataclasses.field(default=default, metadata={"doc": doc})


def require(condition: bool, name: str, value: object, remedy: str) -> None:
    """Raise the one kind of error a wrong setting gets."""
    if not condition:
        raise ValueError(f"{name}={value!r}: {remedy}")


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """What a session is and when it is good. Handed to dbt as variables of the same names."""

    session_mode: str = option("gap", "How sessions are cut: 'gap' or 'user_day'")
    session_gap_minutes: float = option(30.0, "Silence of at least this long opens a new session")
    watched_min_seconds: float = option(
        10.0, "An exposure is watched from this many seconds, or from the share below"
    )
    watched_min_share: float = option(
        0.8, "... or from this share of the item's duration, whichever comes first"
    )
    max_watch_seconds: float = option(86_400.0, "A longer watch is rejected as absurd")
    good_min_watched_items: int = option(3, "A good session has at least this many watched items")
    good_min_watch_seconds: float = option(60.0, "... and at least this watch time in total")
    good_min_positive_interactions: int = option(
        0, "... and at least this many likes, follows, comments or shares (0: not asked)"
    )
    history_length: int = option(20, "n: positive items kept as a session's history")
    session_items: int = option(5, "m: items of a target session")
    max_rejected_share: float = option(0.05, "The check on rejected rows fails above this share")
    max_volume_ratio: float = option(
        4.0, "The check on volume fails when a day has this many times more or fewer sessions"
    )
    min_positive_share: float = option(0.01, "The check on rates fails below this positive share")
    max_positive_share: float = option(0.99, "... and above this one")

    def __post_init__(self) -> None:
        require(
            self.session_mode in ("gap", "user_day"),
            "session_mode",
            self.session_mode,
            "use 'gap' or 'user_day'",
        )
        for name in ("history_length", "session_items", "good_min_watched_items"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        for name in ("session_gap_minutes", "watched_min_seconds", "max_watch_seconds"):
            require(getattr(self, name) > 0, name, getattr(self, name), "use a positive number")
        require(
            0 < self.watched_min_share <= 1,
            "watched_min_share",
            self.watched_min_share,
            "use a share in (0, 1]",
        )


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Which days a model of partition D learns from: [D - window_days, D - 1]."""

    window_days: int = option(13, "W: days before D; the last of them validates")

    def __post_init__(self) -> None:
        require(
            self.window_days >= 2,
            "window_days",
            self.window_days,
            "use at least 2: days to train on and one to validate on",
        )


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """Item embeddings: text, co-watching and supplied vectors, fused and normalised."""

    text_encoder: str = option(
        "minilm", "'minilm' (a sentence encoder), 'hashed' (a light fallback) or 'none'"
    )
    text_dim: int = option(128, "Text vectors are reduced to this many dimensions")
    collaborative_dim: int = option(64, "Dimensions of the co-watching vectors; 0 leaves them out")
    attributes_dim: int = option(32, "Dimensions of the category and author block; 0 leaves it out")
    text_weight: float = option(1.0, "Weight of the text block")
    collaborative_weight: float = option(1.0, "Weight of the co-watching block")
    attributes_weight: float = option(0.5, "Weight of the category and author block")
    supplied_weight: float = option(1.0, "Weight of the supplied block")
    collaborative_shrinkage: float = option(
        5.0,
        "Sessions an item needs before its co-watching counts as much as what its text predicts",
    )
    seed: int = option(0, "Seed of the reductions")

    def __post_init__(self) -> None:
        require(
            self.text_encoder in ("minilm", "hashed", "none"),
            "text_encoder",
            self.text_encoder,
            "use 'minilm', 'hashed' or 'none'",
        )
        require(self.text_dim >= 1, "text_dim", self.text_dim, "use at least 1")
        for name in (
            "collaborative_dim",
            "attributes_dim",
            "text_weight",
            "collaborative_weight",
            "attributes_weight",
            "supplied_weight",
            "collaborative_shrinkage",
        ):
            require(getattr(self, name) >= 0, name, getattr(self, name), "use 0 or more")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Residual quantization of item vectors: balanced K-means, or a method to compare it with."""

    method: str = option(
        "balanced",
        "'balanced' (exactly equal K-means clusters), 'algorithm_1' (OneRec v1's greedy one), "
        "'kmeans' (plain residual K-means) or 'rqvae'",
    )
    num_levels: int = option(3, "L: residual levels; one separating digit follows them")
    codebook_size: int = option(32, "K: codes per level")
    iterations: int = option(20, "Lloyd steps per level")
    seed: int = option(0, "Seed of the initial centroids")
    quality_tolerance: float = option(
        0.05,
        "A new generation is refused when its relative error, collision rate, entropy share or hit "
        "rate is worse than the old one's on today's vectors by more than this; 1 accepts any",
    )
    rqvae_hidden_dim: int = option(128, "'rqvae': width of the hidden layers")
    rqvae_latent_dim: int = option(32, "'rqvae': width of what is quantized")
    rqvae_epochs: int = option(60, "'rqvae': passes over the catalogue")
    rqvae_batch_size: int = option(512, "'rqvae': items per step")
    rqvae_learning_rate: float = option(1e-3, "'rqvae': Adam's rate")
    rqvae_commitment: float = option(0.25, "'rqvae': weight that ties latents to their codes")

    def __post_init__(self) -> None:
        methods = ("balanced", "algorithm_1", "kmeans", "rqvae")
        require(self.method in methods, "method", self.method, f"use one of {', '.join(methods)}")
        require(self.num_levels >= 1, "num_levels", self.num_levels, "use at least 1")
        require(self.codebook_size >= 2, "codebook_size", self.codebook_size, "use at least 2")
        require(self.iterations >= 1, "iterations", self.iterations, "use at least 1")
        require(
            0 <= self.quality_tolerance <= 1,
            "quality_tolerance",
            self.quality_tolerance,
            "use a share from 0 to 1",
        )
        for name in ("hidden_dim", "latent_dim", "epochs", "batch_size", "learning_rate"):
            value = getattr(self, f"rqvae_{name}")
            require(value > 0, f"rqvae_{name}", value, "use a positive number")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the generator: encoder over the history, session decoder with sparse MoE."""

    architecture: str = option(
        "encoder_decoder",
        "'encoder_decoder' (OneRec v1) or 'lazy_decoder' (OneRec-V2: no encoder, shared keys)",
    )
    d_model: int = option(64, "Width")
    num_heads: int = option(4, "Attention heads; divides d_model")
    d_ff: int = option(192, "Hidden width of a feed-forward block or of one expert")
    encoder_layers: int = option(1, "Encoder blocks; a lazy decoder has none")
    decoder_layers: int = option(2, "Decoder blocks")
    num_experts: int = option(4, "Experts of a decoder block; 1 is a dense block")
    active_experts: int = option(2, "Experts a token passes through")
    dense_decoder_layers: int = option(
        0, "The first decoder blocks that stay dense beside sparse ones; OneRec-V2 has 2"
    )
    context_kv_layers: int = option(
        1, "Lazy decoder: sets of keys over the history; each serves a group of decoder blocks"
    )
    context_kv_heads: int = option(
        0, "Lazy decoder: key heads, divides num_heads; 0 is num_heads, 1 is multi-query"
    )
    context_values: bool = option(
        False, "Lazy decoder: values of their own; off, the keys are the values too"
    )
    dropout: float = option(0.1, "Dropout")
    history_tokens: str = option(
        "items", "The encoder reads one token per history item ('items') or per digit ('digits')"
    )
    separator: bool = option(
        True, "With 'digits': a separator token follows every history item (OneRec v1, Fig 2)"
    )
    causal_encoder: bool = option(
        False,
        "The encoder reads left to right and counts positions from the oldest item, so that one "
        "pass over a sequence learns every next item of it (onerec/model/places.py)",
    )

    def __post_init__(self) -> None:
        require(
            self.architecture in ("encoder_decoder", "lazy_decoder"),
            "architecture",
            self.architecture,
            "use 'encoder_decoder' or 'lazy_decoder'",
        )
        require(
            not (self.causal_encoder and self.architecture == "lazy_decoder"),
            "causal_encoder",
            self.causal_encoder,
            "a lazy decoder has no encoder; use architecture='encoder_decoder'",
        )
        require(
            self.context_kv_heads == 0
            or (self.context_kv_heads > 0 and self.num_heads % self.context_kv_heads == 0),
            "context_kv_heads",
            self.context_kv_heads,
            f"use 0 or a divisor of num_heads={self.num_heads}",
        )
        require(
            1 <= self.context_kv_layers <= max(1, self.decoder_layers),
            "context_kv_layers",
            self.context_kv_layers,
            f"use 1 to decoder_layers={self.decoder_layers}",
        )
        require(
            self.dense_decoder_layers >= 0,
            "dense_decoder_layers",
            self.dense_decoder_layers,
            "use 0 or more",
        )
        require(
            self.history_tokens in ("items", "digits"),
            "history_tokens",
            self.history_tokens,
            "use 'items' or 'digits'",
        )
        require(
            self.d_model % self.num_heads == 0,
            "num_heads",
            self.num_heads,
            f"use a divisor of d_model={self.d_model}",
        )
        require(
            1 <= self.active_experts <= self.num_experts,
            "active_experts",
            self.active_experts,
            f"use 1 to num_experts={self.num_experts}",
        )
        require(0 <= self.dropout < 1, "dropout", self.dropout, "use a share in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Pretraining on good sessions."""

    batch_size: int = option(128, "Sessions per step")
    micro_batch: int = option(
        0,
        "Sessions of a step whose gradients are computed at once, which bounds memory; 0 computes "
        "all of them at once",
    )
    length_window: int = option(
        64,
        "Batches whose sessions are grouped by length, so that little is padding; 1 only shuffles",
    )
    max_epochs: int = option(10, "Passes over the good sessions, at most")
    patience: int = option(2, "Epochs without a better validation loss before stopping")
    learning_rate: float = option(4e-3, "Peak learning rate")
    schedule: str = option("cosine", "After warming up: 'cosine' over max_epochs, or 'constant'")
    warmup_share: float = option(0.05, "Share of the steps spent warming up")
    weight_decay: float = option(0.01, "AdamW's")
    gradient_clip: float = option(1.0, "Largest gradient norm; 0 does not clip")
    warm_start: bool = option(True, "Start from the last checkpoint of the same generation")
    history_sessions: bool = option(
        True,
        "A training from random weights also learns what users watched before the window, cut into "
        "sessions of m items",
    )
    seed: int = option(0, "Seed of weights, order and dropout")

    def __post_init__(self) -> None:
        for name in ("batch_size", "length_window", "max_epochs", "patience"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        require(self.micro_batch >= 0, "micro_batch", self.micro_batch, "use 0 for all, or more")
        require(
            self.learning_rate > 0, "learning_rate", self.learning_rate, "use a positive number"
        )
        require(
            self.schedule in ("cosine", "constant"),
            "schedule",
            self.schedule,
            "use 'cosine' or 'constant'",
        )
        require(
            0 <= self.warmup_share <= 1, "warmup_share", self.warmup_share, "use a share in [0, 1]"
        )
        for name in ("weight_decay", "gradient_clip"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "use 0 or more")


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
        False,
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


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
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


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Every stage's settings together: what a preset is."""

    sessions: SessionConfig = SessionConfig()
    window: WindowConfig = WindowConfig()
    embeddings: EmbeddingConfig = EmbeddingConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    reward: RewardConfig = RewardConfig()
    generation: GenerationConfig = GenerationConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    def override(self, changes: Mapping[str, Mapping[str, Any]]) -> "Stages":
        """These settings with some fields changed, e.g. `{"tokenizer": {"codebook_size": 64}}`."""
        stages = {f.name for f in dataclasses.fields(self)}
        replaced = {}
        for stage, values in changes.items():
            require(stage in stages, "stage", stage, f"use one of {', '.join(sorted(stages))}")
            current = getattr(self, stage)
            known = {f.name for f in dataclasses.fields(current)}
            for name in values:
                require(
                    name in known,
                    f"{stage}.{name}",
                    values[name],
                    f"no such setting; {stage} has {', '.join(sorted(known))}",
                )
            replaced[stage] = dataclasses.replace(current, **values)
        return dataclasses.replace(self, **replaced)


PRESETS: dict[str, Stages] = {
    "tiny": Stages(),
    "small": Stages().override(
        {
            "sessions": {"history_length": 64},
            "tokenizer": {"codebook_size": 256},
            "model": {
                "d_model": 192,
                "num_heads": 6,
                "d_ff": 512,
                "encoder_layers": 4,
                "decoder_layers": 4,
                "num_experts": 8,
            },
            "training": {"learning_rate": 1e-3},
            "generation": {"beam": 64, "candidates": 128, "serving_precision": "float32"},
            "alignment": {"rounds": 2, "sample_users": 5000},
        }
    ),
    # Shapes of the technical report's 0.1B and 1B models (algorithm reference, 1.10): the v1 paper
    # does not disclose its own.
    "base": Stages().override(
        {
            "sessions": {"history_length": 256},
            "tokenizer": {"codebook_size": 8192},
            "model": {
                "d_model": 1024,
                "num_heads": 8,
                "d_ff": 2048,
                "encoder_layers": 4,
                "decoder_layers": 4,
                "num_experts": 1,
                "active_experts": 1,
                "history_tokens": "digits",
            },
            "training": {"learning_rate": 2e-4},
            "generation": {"beam": 128, "candidates": 128, "serving_precision": "float32"},
        }
    ),
    "large": Stages().override(
        {
            "sessions": {"history_length": 256},
            "tokenizer": {"codebook_size": 8192},
            "model": {
                "d_model": 1024,
                "num_heads": 8,
                "d_ff": 2816,
                "encoder_layers": 4,
                "decoder_layers": 4,
                "num_experts": 24,
                "active_experts": 2,
                "history_tokens": "digits",
            },
            "training": {"learning_rate": 2e-4},
            "generation": {"beam": 128, "candidates": 128, "serving_precision": "float32"},
        }
    ),
}
"""`tiny` is the demo (CPU minutes), `small` CPU hours or one GPU, `base` 0.1 B, `large` 1 B."""
