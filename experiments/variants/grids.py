"""The variants that are compared: alignment methods, and ablations of the default."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from experiments.variants.steps import PRETRAINED, Variant
from onerec.config import PipelineConfig

Overrides = Mapping[str, Mapping[str, Any]]

REFERENCE, DEFAULT, ALIGNED_DEFAULT = "pretrained", "default", "ipa"
"""What methods, ablations of pretraining, and ablations of alignment are compared with."""

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
    "grpo": {"method": "grpo", "pairs": "sampling", "dpo_weight": 3.0},
    "ecpo": {"method": "ecpo", "pairs": "sampling", "dpo_weight": 3.0},
}
"""Settings of `alignment` per method. All but `dpo` keep L_NTP beside the loss, with the same
weights, so that losses are compared and nothing else; `dpo` is the loss alone, `ntp_only` the log
alone. The two that learn from groups learn from draws, which policy gradients are defined on, and
with ten times the weight, as their gradients are much the smaller ones (docs/log.md)."""

UNGATED = {"gate_cases": 0}
"""A refused round would show its start's figures under its own name."""


def alignment_variants(base: PipelineConfig, seed: int = 0) -> dict[str, Variant]:
    """The reference and every method, by name.

    Args:
        base: Settings of the night.
        seed: Of all of them, so that they share their start and their pairs.
    """
    aligned = {
        name: Variant(name=name, overrides={"alignment": {**settings, **UNGATED}}, seed=seed)
        for name, settings in METHODS.items()
    }
    return {REFERENCE: Variant(name=REFERENCE, measured=PRETRAINED, seed=seed), **aligned}


def training_ablations(base: PipelineConfig, seed: int = 0) -> dict[str, Variant]:
    """What tokens, model, sessions and elite pretraining learns from; measured after pretraining.

    All of them start from random weights, the default too. A dense decoder of equal active
    parameters is one whose tokens pass through all of its experts. Elites are learned alone,
    without what was watched besides, which all of them would share; `good_sessions_alone` is the
    default's.
    """
    model, good = base.model, base.sessions
    off = {
        "good_min_watched_items": 1,
        "good_min_watch_seconds": 0.0,
        "good_min_positive_interactions": 0,
    }
    counted = {"good_min_watched_items": good.good_min_watched_items}
    watched = {"good_min_watch_seconds": good.good_min_watch_seconds}

    def elite(**criteria: float) -> Overrides:
        return {"sessions": criteria, "training": {"history_sessions": False}}

    def times(factor: float) -> Overrides:
        items, seconds = good.good_min_watched_items, good.good_min_watch_seconds
        return elite(
            good_min_watched_items=math.ceil(factor * items),
            good_min_watch_seconds=factor * seconds,
        )

    changes: dict[str, Overrides] = {
        DEFAULT: {},
        "tokens_kmeans": {"tokenizer": {"method": "kmeans"}},
        "tokens_rqvae": {"tokenizer": {"method": "rqvae"}},
        "tokens_algorithm_1": {"tokenizer": {"method": "algorithm_1"}},
        "dense": {"model": {"num_experts": model.active_experts}},
        "lazy_decoder": {
            "model": {
                "architecture": "lazy_decoder",
                "decoder_layers": model.encoder_layers + model.decoder_layers,
            }
        },
        "point_wise": {"sessions": {"session_items": 1}},
        "good_sessions_alone": elite(),
        "elite_all_sessions": elite(**off),
        "elite_by_items": elite(**off | counted),
        "elite_by_seconds": elite(**off | watched),
        "elite_by_interactions": elite(**off | {"good_min_positive_interactions": 1}),
        "elite_half_as_strict": times(0.5),
        "elite_half_stricter": times(1.5),
        "elite_twice_as_strict": times(2),
    }
    cold = {"warm_start": False}
    variants = {
        name: Variant(
            name=name,
            overrides={**change, "training": {**change.get("training", {}), **cold}},
            measured=PRETRAINED,
            seed=seed,
        )
        for name, change in changes.items()
    }
    name = "elite_second_iteration"
    return {**variants, name: replace(variants[DEFAULT], name=name, elite_iterations=1)}


def alignment_ablations(base: PipelineConfig, seed: int = 0) -> dict[str, Variant]:
    """Whose and which sessions are compared, how many, how often; measured after IPA."""
    held = base.decoding.candidates
    changes: dict[str, dict[str, dict[str, Any]]] = {
        ALIGNED_DEFAULT: {},
        "rounds_2": {"alignment": {"rounds": 2}},
        "rounds_3": {"alignment": {"rounds": 3}},
        "candidates_quarter": {"decoding": {"candidates": max(2, held // 4)}},
        "candidates_half": {"decoding": {"candidates": max(2, held // 2)}},
        "candidates_double": {"decoding": {"candidates": held * 2}},
        "pairs_sampling": {"alignment": {"method": "dpo", "pairs": "sampling"}},
        "pairs_feedback": {"alignment": {"method": "dpo", "pairs": "feedback"}},
    }
    variants = {
        name: Variant(
            name=name,
            overrides=change | {"alignment": change.get("alignment", {}) | UNGATED},
            seed=seed,
        )
        for name, change in changes.items()
    }
    shares = {
        f"share_{percent}_percent": Variant(
            name=f"share_{percent}_percent",
            overrides={"alignment": UNGATED},
            seed=seed,
            sample_share=percent / 100,
        )
        for percent in (1, 2, 3, 4, 5)
    }
    return {**variants, **shares}


def ablation_variants(base: PipelineConfig, seed: int = 0) -> dict[str, Variant]:
    """Both kinds of ablations, by name."""
    return training_ablations(base, seed) | alignment_ablations(base, seed)
