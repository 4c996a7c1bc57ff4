"""Variants: what they may change, and that every one in the grids is valid."""

import dataclasses

import pytest

from experiments.variants.grids import (
    ALIGNED,
    COMPARISONS,
    LARGER,
    METHODS,
    NAMES,
    PRETRAINED,
    STARTS,
    VARIANTS,
    pretrained_variants,
)
from experiments.variants.variant import DEFAULT, Variant
from onerec.config import PRESETS, AlignmentConfig, PipelineConfig

BASE = PipelineConfig()


@pytest.mark.parametrize("asset", VARIANTS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_variant_is_valid_for_every_preset(asset: str, preset: str):
    base = PRESETS[preset]
    variants = VARIANTS[asset](base)
    assert tuple(variants) == NAMES[asset], "the names do not depend on the night"
    for variant in variants.values():
        settings = variant.settings(base, seed=2)
        assert settings.alignment.seed == base.alignment.seed + 2
        assert settings.training.seed == base.training.seed + 2
        assert variant.start in NAMES[PRETRAINED]


def test_variants_differ_from_one_another():
    for asset, variants in VARIANTS.items():
        made = [dataclasses.astuple(v) for v in variants(BASE).values()]
        assert all(made.count(one) == 1 for one in made), asset


def test_the_default_is_the_night_where_that_began_from_random_weights():
    default = pretrained_variants(BASE)[DEFAULT]
    cold = BASE.override({"training": {"warm_start": False}})
    assert default.settings(cold, 0) == cold
    warm = BASE.override({"training": {"warm_start": True}})
    assert default.settings(warm, 0) == cold


def test_the_larger_generator_is_larger_in_every_way():
    model = pretrained_variants(BASE)[LARGER].settings(BASE, 0).model
    assert (model.d_model, model.num_heads, model.d_ff) == (96, 6, 288)
    assert (model.encoder_layers, model.num_experts) == (2, 8)


def test_a_comparison_names_variants_that_there_are_and_begins_with_its_reference():
    for name, compared in COMPARISONS.items():
        assert all(variant in NAMES[asset] for asset, variant in compared.systems.values()), name
    assert COMPARISONS["alignment"].systems["pretrained"] == (PRETRAINED, DEFAULT)
    assert set(COMPARISONS["alignment"].systems) == {"pretrained", *METHODS}
    assert COMPARISONS["ablation_training"].reference == DEFAULT
    assert COMPARISONS["ablation_alignment"].systems["ipa"] == (ALIGNED, "ipa")


def test_every_aligned_variant_starts_from_a_pretrained_one():
    assert set(STARTS) == set(NAMES[ALIGNED])
    assert set(STARTS.values()) == {DEFAULT, LARGER}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"embeddings": {"text_dim": 8}}, "a variant can change"),
        ({"sessions": {"session_gap_minutes": 5.0}}, "of this stage a variant can change"),
        ({"sessions": {"session_items": 9}}, "the published sessions hold 5"),
        ({"model": {"width": 9}}, "no such setting"),
    ],
)
def test_what_a_night_does_not_hold_is_refused(overrides: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Variant(overrides=overrides).settings(BASE, 0)


def test_a_share_is_a_share():
    with pytest.raises(ValueError, match=r"sample_share=1\.5"):
        Variant(sample_share=1.5)
    assert AlignmentConfig().rounds == 1, "variants named for their rounds add to one"
