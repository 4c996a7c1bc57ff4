"""Every method behind the same interface: fit, encode, decode, codebooks, save and load."""

import doctest
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onerec.config import TokenizerConfig
from onerec.config import tokenizer as tokenizer_config
from onerec.tokenizer import versions
from onerec.tokenizer.clusterers import algorithm_1, plain_kmeans
from onerec.tokenizer.codebook import fit_codebook, load_codebook
from onerec.tokenizer.diagnostics import (
    embedding_hit_rate,
    fit_balance,
    tokenizer_diagnostics,
)
from onerec.tokenizer.rqvae import fit_rqvae, revive_dead_codes, straight_through
from onerec.tokenizer.semantic_ids import assign_semantic_ids
from onerec.tokenizer.versions import worse_than
from tests.core.tokenizer.peers import topical

METHODS = ("balanced", "algorithm_1", "kmeans", "rqvae")


def config(method: str, **changes) -> TokenizerConfig:
    settings = {"codebook_size": 8, "num_levels": 2, "iterations": 8, "rqvae_epochs": 8}
    return TokenizerConfig(
        **{**settings, "rqvae_latent_dim": 6, "rqvae_batch_size": 64, **changes}, method=method
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_codebook_encodes_and_decodes_as_before(method: str, tmp_path: Path) -> None:
    vectors, new = topical(300, 12), topical(50, 12, seed=5)
    codebook, codes = fit_codebook(vectors, config(method))
    again, _ = fit_codebook(vectors, config(method))
    assert codebook.tokenizer_version == again.tokenizer_version
    codebook.save(tmp_path)
    loaded = load_codebook(tmp_path)
    assert loaded.tokenizer_version == codebook.tokenizer_version
    assert torch.equal(loaded.encode(new), codebook.encode(new))
    assert torch.equal(loaded.decode(codes), codebook.decode(codes))
    assert codes.shape == (300, 2)
    assert codebook.decode(codes).shape == vectors.shape
    assert loaded.codebooks.shape[:2] == (2, 8)
    # what the codes keep is worth more than nothing
    figures = tokenizer_diagnostics(codebook, codes, vectors)
    assert figures["levels"][-1]["relative_mse"] < 1
    spread = max(level["size_spread"] for level in figures["levels"])
    assert (spread <= 1) == codebook.guarantees_balance


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"method='magic': use 'balanced', 'algorithm_1', 'kmeans' or 'rqvae'"
    ):
        TokenizerConfig(method="magic")


def test_settings_that_change_no_id_do_not_change_the_generation() -> None:
    vectors = topical(100, 8)
    plain, _ = fit_codebook(vectors, config("balanced"))
    tolerant, _ = fit_codebook(vectors, config("balanced", quality_tolerance=0.5))
    assert plain.tokenizer_version == tolerant.tokenizer_version


def test_algorithm_1_fills_clusters_exactly() -> None:
    found = algorithm_1(
        topical(103, 8), 10, iterations=5, generator=torch.Generator().manual_seed(0)
    )
    assert sorted(torch.bincount(found.labels).tolist()) == [10] * 7 + [11] * 3


def test_plain_kmeans_finds_separate_groups_of_any_size_and_leaves_no_cluster_empty() -> None:
    # two items far from ninety-eight copies: random starts put every centroid on the copies
    vectors = torch.cat([torch.ones(98, 3), torch.tensor([[9.0, 0, 0], [0, 9.0, 0]])])
    found = plain_kmeans(vectors, 3, iterations=5, generator=torch.Generator().manual_seed(1))
    assert sorted(torch.bincount(found.labels, minlength=3).tolist()) == [1, 1, 98]


def test_straight_through_passes_the_value_and_the_gradient() -> None:
    latent = torch.tensor([2.0, 3.0], requires_grad=True)
    out = straight_through(torch.tensor([5.0, 7.0]), latent)
    out.square().sum().backward()
    assert out.tolist() == [5.0, 7.0]
    assert latent.grad is not None
    assert latent.grad.tolist() == [10.0, 14.0]  # 2 * value, as if nothing were quantized


def test_dead_codes_move_onto_residuals_and_living_ones_stay() -> None:
    codebooks = torch.zeros(1, 3, 2)
    used = torch.tensor([[True, False, True]])
    residuals = [torch.full((4, 2), 7.0)]
    revive_dead_codes(codebooks, used, residuals, torch.Generator().manual_seed(0))
    assert codebooks[0].tolist() == [[0, 0], [7, 7], [0, 0]]


def test_training_rqvae_lowers_the_error() -> None:
    vectors = topical(400, 12)
    errors = []
    for epochs in (1, 40):
        book, codes = fit_codebook(vectors, config("rqvae", rqvae_epochs=epochs))
        errors.append((vectors - book.decode(codes)).square().sum().item())
    assert errors[1] < 0.7 * errors[0]
    told: list[str] = []
    fit_rqvae(vectors, config("rqvae", rqvae_epochs=10), on_progress=told.append)
    assert len(told) == 1
    assert told[0].startswith("RQ-VAE: 10 epochs, loss ")


def test_hit_rate_against_hand_arithmetic() -> None:
    # two pairs of near-equal directions; the nearest neighbour of each is its partner
    vectors = torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1]])
    codes = torch.tensor([[0, 0], [0, 1], [1, 0], [2, 0]])
    # first codes agree for items 0 and 1 only, both codes for nobody
    assert embedding_hit_rate(codes, vectors, neighbours=1) == [0.5, 0.0]


def test_a_generation_is_worse_beyond_the_tolerance_only() -> None:
    old = {"relative_mse": 0.2, "collision_rate": 0.1, "hit_rate": 0.5}
    assert worse_than(old, {**old, "relative_mse": 0.24, "hit_rate": 0.46}, 0.05) == []
    assert worse_than(old, {**old, "relative_mse": 0.1, "hit_rate": 0.9}, 0.05) == []
    assert worse_than(old, {**old, "collision_rate": 0.2}, 0.05) == [
        "collision_rate rises from 0.1000 to 0.2000"
    ]
    assert worse_than(old, {**old, "relative_mse": 9.0}, 1.0) == []  # on purpose
    assert len(worse_than(old, dict.fromkeys(old, float("nan")), 0.05)) == 3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("distinct", [1, 5])
def test_fewer_distinct_vectors_than_codes_still_get_unique_ids(method: str, distinct: int) -> None:
    vectors = topical(distinct, 8).repeat(60 // distinct, 1)
    codebook, codes = fit_codebook(vectors, config(method))
    names, days = (
        np.arange(60).astype(str).astype(object),
        np.full(60, "2026-06-01", "datetime64[D]"),
    )
    ids = assign_semantic_ids(codebook, codes, vectors, names, days)
    assert ids.num_invalid() == 0
    assert torch.isfinite(codebook.codebooks).all()


def test_copies_beyond_a_clusters_capacity_are_reported_and_split() -> None:
    vectors = torch.cat([topical(60, 8), topical(1, 8, seed=3).repeat(40, 1)])
    messages: list[str] = []
    _, codes = fit_codebook(vectors, config("balanced"), on_progress=messages.append)
    assert "40 items share one vector, more than the 13" in messages[0]
    sizes = torch.bincount(codes[:, 0], minlength=8)
    assert sizes.max() - sizes.min() <= 1


def test_balance_is_that_of_the_fit_not_of_items_that_moved_from_a_full_leaf() -> None:
    vectors = torch.cat([topical(1900, 16), topical(1, 16, seed=3).repeat(100, 1)])
    codebook, codes = fit_codebook(vectors, config("balanced", codebook_size=32, num_levels=3))
    names, days = np.arange(2000).astype(object), np.full(2000, "2026-06-01", "datetime64[D]")
    ids = assign_semantic_ids(codebook, codes, vectors, names.astype(str).astype(object), days)
    balance = fit_balance(codes, ids.codes, 32)
    assert balance["size_spread"] == [1, 1, 1]
    assert balance["utilisation"] == [1.0, 1.0, 1.0]
    assert balance["overflowed_items"] == int((ids.codes[:, :3] != codes).any(1).sum())


def test_fit_balance_by_hand() -> None:
    fitted = torch.tensor([[0, 0], [0, 1], [0, 0], [1, 1]])
    published = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]])  # the third one moved
    assert fit_balance(fitted, published, 3) == {
        "utilisation": pytest.approx([2 / 3, 2 / 3]),
        "size_spread": [3, 2],
        "overflowed_items": 1,
    }


@given(num_items=st.integers(2, 10**8), num_levels=st.integers(1, 16))
def test_the_codebook_size_follows_the_catalogue(num_items: int, num_levels: int) -> None:
    settings = TokenizerConfig(num_levels=num_levels)
    size = settings.codes_per_level(num_items)
    assert size & (size - 1) == 0  # a power of two
    assert 2 <= size <= num_items
    assert size**num_levels < 2**63
    assert replace(settings, codebook_size=300 if num_levels < 8 else 3).codes_per_level(
        num_items
    ) == (300 if num_levels < 8 else 3)
    larger = settings.codes_per_level(2 * num_items)
    assert size <= larger <= 4 * size


def test_the_example_of_the_codebook_size() -> None:
    assert doctest.testmod(tokenizer_config).failed == 0
    assert doctest.testmod(versions).failed == 0
