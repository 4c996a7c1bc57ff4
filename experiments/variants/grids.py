"""All variants, and the variants that each table compares."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.variants.variant import DEFAULT, Variant
from onerec.config import PipelineConfig

PRETRAINED, ALIGNED = "pretrained_variant", "aligned_variant"
"""The assets whose partitions are variants and seeds."""
LARGER = "larger"
LARGER_NTP, LARGER_IPA, LARGER_TRUE = "larger_ntp_only", "larger_ipa", "larger_ipa_true_pairs"
"""The larger generator of the simulated A/B test, and after the same steps of L_NTP alone, of IPA,
and of IPA on pairs by the simulator's ground truth (an oracle)."""

METHODS: dict[str, Mapping[str, Any]] = {
    "ntp_only": {"dpo_weight": 0.0},
    "ipa": {},
    "dpo": {"method": "dpo", "ntp_weight": 0.0, "dpo_weight": 1.0},
    "ipo": {"method": "ipo"},
    "cdpo": {"method": "cdpo"},
    "rdpo": {"method": "rdpo"},
    "cpo": {"method": "cpo"},
    "simpo": {"method": "simpo", "beta": 2.5},
    "sdpo": {"method": "sdpo"},
    "grpo": {"method": "grpo", "pairs": "sampling", "dpo_weight": 10.0},
    "ecpo": {"method": "ecpo", "pairs": "sampling", "dpo_weight": 10.0},
}
"""Settings of `alignment` per method. All but `dpo` add L_NTP to the preference loss with the same
weights, so that only the losses differ; `dpo` is the preference loss alone, `ntp_only` L_NTP alone.
The two group methods learn from sampled sessions, as policy gradients require, with ten times the
weight, as their gradients are much smaller (at 3 against .3, docs/log.md)."""
SHARES = {f"share_{percent}_percent": percent / 100 for percent in (1, 2, 3, 4, 5)}
UNGATED = {"gate_cases": 0}
"""Rounds have no gate here: a refused round would publish its start, and the table its metrics."""


def pretrained_variants(base: PipelineConfig) -> dict[str, Variant]:
    """Variants of tokenizer, model, session length and good-session criteria, by name.

    All start from random weights; if the nightly run did so too, the default with seed 0 is its own
    checkpoint. A dense decoder of equal active parameters routes tokens through all of its experts.
    Variants of the criteria learn good sessions only, not all watched items, which they would
    share; `good_sessions_alone` does so with the default criteria.

    Args:
        base: Settings of the nightly run.
    """
    model, good = base.model, base.sessions
    off = {
        "good_min_watched_items": 1,
        "good_min_watch_seconds": 0.0,
        "good_min_positive_interactions": 0,
    }
    by_items = {"good_min_watched_items": good.good_min_watched_items}
    by_seconds = {"good_min_watch_seconds": good.good_min_watch_seconds}

    def elite(**criteria: float) -> Mapping[str, Mapping[str, Any]]:
        return {"sessions": criteria, "training": {"history_sessions": False}}

    def times(factor: float) -> Mapping[str, Mapping[str, Any]]:
        items, seconds = good.good_min_watched_items, good.good_min_watch_seconds
        return elite(
            good_min_watched_items=math.ceil(factor * items),
            good_min_watch_seconds=factor * seconds,
        )

    layers = model.encoder_layers + model.decoder_layers
    changes: dict[str, Mapping[str, Mapping[str, Any]]] = {
        DEFAULT: {},
        "tokens_kmeans": {"tokenizer": {"method": "kmeans"}},
        "tokens_rqvae": {"tokenizer": {"method": "rqvae"}},
        "tokens_algorithm_1": {"tokenizer": {"method": "algorithm_1"}},
        "dense": {"model": {"num_experts": model.active_experts}},
        "no_dense_head": {"model": {"dense_head": False}},
        "no_item_neighbours": {"training": {"item_neighbours": 0}},
        "lazy_decoder": {"model": {"architecture": "lazy_decoder", "decoder_layers": layers}},
        "point_wise": {"sessions": {"session_items": 1}},
        "good_sessions_alone": elite(),
        "elite_all_sessions": elite(**off),
        "elite_by_items": elite(**off | by_items),
        "elite_by_seconds": elite(**off | by_seconds),
        "elite_by_interactions": elite(**off | {"good_min_positive_interactions": 1}),
        "elite_half_as_strict": times(0.5),
        "elite_half_stricter": times(1.5),
        "elite_twice_as_strict": times(2),
        LARGER: _larger(base),
    }
    return {
        name: Variant(
            overrides={**change, "training": {**change.get("training", {}), "warm_start": False}}
        )
        for name, change in changes.items()
    }


def _larger(base: PipelineConfig) -> Mapping[str, Mapping[str, Any]]:
    """1.5 times the width, twice the encoder blocks and experts; a dropout of .1 stopped it too
    early (docs/log.md)."""
    small = base.model
    heads = math.ceil(1.5 * small.num_heads)
    return {
        "model": {
            "d_model": heads * (small.d_model // small.num_heads),
            "num_heads": heads,
            "d_ff": small.d_ff * heads // small.num_heads,
            "encoder_layers": 2 * small.encoder_layers,
            "num_experts": 2 * small.num_experts,
            "dropout": 0.25,
        },
        "training": {"learning_rate": 2e-3},
    }


def aligned_variants(base: PipelineConfig) -> dict[str, Variant]:
    """Variants of alignment, by name.

    They differ in method, users, source and number of sessions, number of rounds, or use elites.

    Args:
        base: Settings of the nightly run.
    """
    held = base.decoding.candidates
    changes: dict[str, dict[str, Mapping[str, Any]]] = {
        **{name: {"alignment": settings} for name, settings in METHODS.items()},
        "rounds_2": {"alignment": {"rounds": 2}},
        "rounds_3": {"alignment": {"rounds": 3}},
        "candidates_quarter": {"decoding": {"candidates": max(2, held // 4)}},
        "candidates_half": {"decoding": {"candidates": max(2, held // 2)}},
        "candidates_double": {"decoding": {"candidates": held * 2}},
        "pairs_sampling": {"alignment": {"method": "dpo", "pairs": "sampling"}},
        "pairs_feedback": {"alignment": {"method": "dpo", "pairs": "feedback"}},
    }
    ungated = {
        name: change | {"alignment": {**change.get("alignment", {}), **UNGATED}}
        for name, change in changes.items()
    }
    ntp_only, ipa = ungated["ntp_only"], ungated["ipa"]
    return {
        **{name: Variant(overrides=change) for name, change in ungated.items()},
        **{name: Variant(overrides=ipa, sample_share=share) for name, share in SHARES.items()},
        "elite_second_iteration": Variant(elite_share=0.1),
        LARGER_NTP: Variant(overrides=ntp_only, start=LARGER),
        LARGER_IPA: Variant(overrides=ipa, start=LARGER),
        LARGER_TRUE: Variant(overrides=ipa, start=LARGER, true_pairs=True),
    }


VARIANTS = {PRETRAINED: pretrained_variants, ALIGNED: aligned_variants}
NAMES = {asset: tuple(variants(PipelineConfig())) for asset, variants in VARIANTS.items()}
"""Names of each asset's variants; they do not depend on the nightly run."""
STARTS = {name: variant.start for name, variant in aligned_variants(PipelineConfig()).items()}
"""Aligned variant -> the pretrained variant that it starts from."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Variants that a table compares with the first of them.

    Attributes:
        file: Name of the result table, `{}` standing for the data set.
        systems: Row of the table -> the asset and the variant that it shows.
    """

    file: str
    systems: Mapping[str, tuple[str, str]]

    @property
    def reference(self) -> str:
        """The reference row."""
        return next(iter(self.systems))


def _aligned(*names: str) -> dict[str, tuple[str, str]]:
    return {name: (ALIGNED, name) for name in names}


COMPARISONS = {
    "alignment": Comparison(
        file="alignment_{}", systems={"pretrained": (PRETRAINED, DEFAULT), **_aligned(*METHODS)}
    ),
    "ablation_training": Comparison(
        file="ablation_{}_training",
        systems={
            **{name: (PRETRAINED, name) for name in NAMES[PRETRAINED] if name != LARGER},
            **_aligned("elite_second_iteration"),
        },
    ),
    "ablation_alignment": Comparison(
        file="ablation_{}_alignment",
        systems=_aligned(
            "ipa",
            *(name for name in NAMES[ALIGNED] if name.startswith(("rounds_", "candidates_"))),
            "pairs_sampling",
            "pairs_feedback",
            *SHARES,
        ),
    ),
}
"""Comparisons by the name used in `make tables`."""
