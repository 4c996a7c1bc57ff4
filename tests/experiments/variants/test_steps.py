"""Which stages a variant makes again: the earliest it changes, and everything that reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.variants import grids as lists
from experiments.variants.steps import PRETRAINED, Variant, earliest_made, plan, with_share
from onerec.config import AlignmentConfig, PipelineConfig

BASE = PipelineConfig()
PUBLISHED = {
    "night": "n",
    "sessions": "s",
    "tokens": "t",
    "pretraining": "p",
    "pairs_1": "q",
    "alignment_1": "a",
}
CHANGES = {
    "sessions": {"sessions": {"good_min_watch_seconds": 1.0}},
    "tokens": {"tokenizer": {"method": "kmeans"}},
    "pretraining": {"model": {"d_ff": 8}},
    "pairs_1": {"decoding": {"candidates": 4}},
    "alignment_1": {"alignment": {"beta": 0.5}},
}
READERS = {
    "sessions": {"pretraining", "pairs_1", "alignment_1"},
    "tokens": {"pretraining", "pairs_1", "alignment_1"},
    "pretraining": {"pairs_1", "alignment_1"},
    "pairs_1": {"alignment_1"},
    "alignment_1": set(),
}


def made(variant: Variant, published: dict[str, str] = PUBLISHED) -> set[str]:
    return {step.name for step in plan(variant, BASE, published) if step.made}


def test_nothing_changed_is_nothing_made():
    assert made(Variant(name="as it is")) == set()
    assert earliest_made(plan(Variant(name="as it is"), BASE, PUBLISHED)) is None


@pytest.mark.parametrize("changed", CHANGES)
def test_a_stage_and_all_that_reads_it_is_made(changed: str):
    variant = Variant(name="x", overrides=CHANGES[changed])
    assert made(variant) == {changed} | READERS[changed]
    assert earliest_made(plan(variant, BASE, PUBLISHED)) == changed


@given(st.sets(st.sampled_from(sorted(CHANGES))), st.integers(0, 2))
def test_what_is_made_is_closed_downstream_and_nothing_more(changed: set[str], seed: int):
    overrides: dict[str, dict] = {}
    for name in changed:
        overrides |= CHANGES[name]
    found = made(Variant(name="x", overrides=overrides, seed=seed))
    expected = set(changed) | ({"pretraining", "pairs_1", "alignment_1"} if seed else set())
    for name in set(expected):
        expected |= READERS[name]
    assert found == expected


def test_a_step_that_was_not_published_is_made():
    cold = {name: version for name, version in PUBLISHED.items() if name != "pretraining"}
    assert made(Variant(name="x"), cold) == {"pretraining", "pairs_1", "alignment_1"}


def test_a_variant_measured_after_pretraining_ends_there():
    steps = plan(Variant(name="x", measured=PRETRAINED), BASE, PUBLISHED)
    assert [step.name for step in steps] == ["sessions", "tokens", "pretraining"]


def test_a_warm_started_night_is_aligned_as_it_is_and_trained_anew_for_ablations():
    warm = BASE.override({"training": {"warm_start": True}})
    cold = BASE.override({"training": {"warm_start": False}})
    for base, earliest in ((warm, "pretraining"), (cold, None)):
        default = lists.training_ablations(base)[lists.DEFAULT]
        assert earliest_made(plan(default, base, PUBLISHED)) == earliest
        reference = lists.alignment_variants(base)[lists.REFERENCE]
        assert earliest_made(plan(reference, base, PUBLISHED)) is None


def keys(variant: Variant) -> dict[str, str]:
    return {step.name: step.key for step in plan(variant, BASE, PUBLISHED)}


def test_methods_over_pairs_share_them_and_groups_have_their_own():
    methods = lists.alignment_variants(BASE, seed=1)
    pairs = {name: keys(v)["pairs_1"] for name, v in methods.items() if name != lists.REFERENCE}
    assert pairs["ipa"] == pairs["simpo"] == pairs["dpo"] == pairs["ntp_only"]
    assert pairs["grpo"] == pairs["ecpo"]
    assert len({pairs["ipa"], pairs["grpo"], pairs["sdpo"]}) == 3
    assert len({keys(v)["pretraining"] for v in methods.values()}) == 1
    losses = {keys(v)["alignment_1"] for n, v in methods.items() if n != lists.REFERENCE}
    assert len(losses) == len(lists.METHODS)


def test_a_later_round_stands_on_the_one_before():
    two = keys(Variant(name="x", overrides={"alignment": {"rounds": 2}}))
    three = keys(Variant(name="y", overrides={"alignment": {"rounds": 3}}))
    assert set(three) - set(two) == {"pairs_3", "alignment_3"}
    assert all(three[name] == key for name, key in two.items())
    assert two["pairs_1"] == PUBLISHED["pairs_1"]


def test_a_further_elite_iteration_is_a_start_of_its_own():
    steps = plan(Variant(name="x", elite_iterations=1), BASE, PUBLISHED)
    needs = {step.name: step.needs for step in steps}
    assert "elite_1" in needs["pairs_1"]
    assert "pretraining" not in needs["pairs_1"]
    assert made(Variant(name="x", elite_iterations=1)) == {"elite_1", "pairs_1", "alignment_1"}


def test_a_share_of_the_sessions_is_a_number_of_users():
    assert with_share(BASE, 0.02, 5000).alignment.sample_users == 100
    assert with_share(BASE, 0.01, 10).alignment.sample_users == 1
    assert with_share(BASE, None, 5000) == BASE


def test_every_listed_variant_is_valid_and_named_as_its_key():
    for seed in (0, 1):
        variants = lists.ablation_variants(BASE, seed) | lists.alignment_variants(BASE, seed)
        for name, variant in variants.items():
            assert variant.name == name
            assert plan(variant, BASE, PUBLISHED)
            assert variant.stages(BASE).alignment.seed == AlignmentConfig().seed + seed


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
        Variant(name="x", overrides=overrides).stages(BASE)
