"""Residual codebooks: encode and decode agree, levels add up, bad input is named."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from onerec.config import TokenizerConfig
from onerec.tokenizer.codebook import Codebook, fit_codebook, load_codebook
from onerec.tokenizer.diagnostics import tokenizer_diagnostics
from tests.core.tokenizer.peers import topical

CONFIG = TokenizerConfig(num_levels=3, codebook_size=8, iterations=10)


def shrinking_codebook() -> Codebook:
    """Each level's centroids are ten times closer together than those of the level before."""
    generator = torch.Generator().manual_seed(0)
    base = torch.nn.functional.normalize(torch.randn(3, 8, 16, generator=generator), dim=2)
    return Codebook(base * torch.tensor([1.0, 0.1, 0.01])[:, None, None], CONFIG)


def test_decode_then_encode_gives_every_code_back() -> None:
    codebook = shrinking_codebook()
    codes = torch.tensor(list(product(range(8), repeat=3)))
    sums = codebook.decode(codes)
    torch.testing.assert_close(
        sums[100],  # 100 = 1 * 64 + 4 * 8 + 4
        codebook.codebooks[0, 1] + codebook.codebooks[1, 4] + codebook.codebooks[2, 4],
    )
    assert torch.equal(codebook.encode(sums), codes)
    torch.testing.assert_close(codebook.decode(codebook.encode(sums)), sums)


def test_decode_ignores_the_disambiguation_token() -> None:
    codebook = shrinking_codebook()
    assert torch.equal(
        codebook.decode(torch.tensor([[1, 2, 3, 7]])), codebook.decode(torch.tensor([[1, 2, 3]]))
    )


def test_every_level_is_balanced_and_leaves_less_over() -> None:
    vectors = topical(1003, 16)
    codebook, codes = fit_codebook(vectors, CONFIG)
    assert codebook.codebooks.shape == (3, 8, 16)
    figures = tokenizer_diagnostics(codebook, codes, vectors)
    errors = [1.0] + [level["relative_mse"] for level in figures["levels"]]
    assert errors == sorted(errors, reverse=True)
    left = (vectors - codebook.decode(codes)).square().sum() / vectors.square().sum()
    assert errors[-1] == pytest.approx(left.item(), rel=1e-4)
    for level in figures["levels"]:
        assert (level["size_spread"], level["utilisation"]) == (1, 1.0)
        assert level["entropy_share"] > 0.9999
        assert level["gini"] < 0.01


def test_balanced_clusters_leave_less_over_than_the_papers_algorithm() -> None:
    vectors = topical(400, 8)
    ours = tokenizer_diagnostics(*fit_codebook(vectors, CONFIG), vectors)
    peer = tokenizer_diagnostics(
        *fit_codebook(vectors, replace(CONFIG, method="algorithm_1")), vectors
    )
    assert ours["levels"][-1]["relative_mse"] < peer["levels"][-1]["relative_mse"]


def test_diagnostics_against_hand_arithmetic() -> None:
    codebook = Codebook(
        torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), TokenizerConfig(num_levels=1, codebook_size=2)
    )
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.5], [0.0, 1.0]])
    figures = tokenizer_diagnostics(codebook, torch.tensor([[0], [0], [0], [1]]), vectors)
    (level,) = figures["levels"]
    assert level["usage"] == [3, 1]
    assert level["entropy"] == pytest.approx(0.562335)  # -(3/4 ln 3/4 + 1/4 ln 1/4)
    assert level["entropy_share"] == pytest.approx(0.811278)  # the same in bits
    assert level["gini"] == pytest.approx(0.25)  # 2 (1 * 1 + 2 * 3) / (2 * 4) - 3 / 2
    assert level["relative_mse"] == pytest.approx(0.25 / 4.25)
    assert figures["collision_rate"] == 0.75
    assert figures["largest_leaf"] == 3
    assert figures["argmin_agreement"] == 1.0


def test_saved_and_loaded_is_the_same_generation(tmp_path: Path) -> None:
    codebook, _ = fit_codebook(topical(200, 8), CONFIG)
    codebook.save(tmp_path)
    first = (tmp_path / "codebook.safetensors").read_bytes()
    loaded = load_codebook(tmp_path)
    assert torch.equal(loaded.codebooks, codebook.codebooks)
    assert loaded.config == CONFIG
    assert loaded.tokenizer_version == codebook.tokenizer_version
    loaded.save(tmp_path)
    assert (tmp_path / "codebook.safetensors").read_bytes() == first


def test_generation_names_centroids_and_settings() -> None:
    vectors = topical(200, 8)
    codebook, _ = fit_codebook(vectors, CONFIG)
    again, _ = fit_codebook(vectors, CONFIG)
    assert codebook.tokenizer_version == again.tokenizer_version
    assert len(codebook.tokenizer_version) == 16
    others = {
        fit_codebook(vectors, replace(CONFIG, seed=1))[0].tokenizer_version,
        fit_codebook(vectors + 0.01, CONFIG)[0].tokenizer_version,
        replace(codebook, config=replace(CONFIG, iterations=11)).tokenizer_version,
    }
    assert len(others) == 3
    assert codebook.tokenizer_version not in others


def test_progress_is_reported() -> None:
    messages: list[str] = []
    fit_codebook(topical(100, 8), CONFIG, on_progress=messages.append)
    assert messages == [
        f"level {level} of 3: {n} steps" for level in (1, 2, 3) for n in (10, 20, 30)
    ]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (topical(5, 4), "codebook_size=8.*only 5 items.*to at most 5, or to 0"),
        (topical(1, 4), "1 items were first seen before the day: two are the fewest"),
        (topical(9, 4).index_fill(0, torch.tensor([3]), torch.nan), "row 3 is not finite"),
        (topical(9, 4).index_fill(0, torch.tensor([0, 8]), 0.0), r"row 0 is all zeros \(2 such"),
    ],
)
def test_unusable_vectors_are_named(vectors: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_codebook(vectors, CONFIG)


def test_more_items_than_ids() -> None:
    with pytest.raises(ValueError, match=r"17 items need more than the 16 IDs.*raise"):
        fit_codebook(topical(17, 4), TokenizerConfig(num_levels=3, codebook_size=2))


def test_a_codebook_without_a_size_gets_the_catalogues() -> None:
    vectors = topical(300, 8)
    codebook, _ = fit_codebook(vectors, replace(CONFIG, codebook_size=0))
    assert codebook.size == codebook.config.codebook_size == 16
    explicit, _ = fit_codebook(vectors, replace(CONFIG, codebook_size=16))
    assert codebook.tokenizer_version == explicit.tokenizer_version


def test_one_code_is_refused() -> None:
    with pytest.raises(ValueError, match="codebook_size=1: use a whole number from 2, or 0"):
        TokenizerConfig(codebook_size=1)
