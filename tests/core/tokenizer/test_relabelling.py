"""Renumbered codes: nothing is lost, and no other numbering keeps more."""

import doctest
from itertools import permutations

import numpy as np
import pytest
import torch

from onerec.config import TokenizerConfig
from onerec.tokenizer import relabelling
from onerec.tokenizer.codebook import fit_codebook
from onerec.tokenizer.relabelling import match_codes, relabelled
from onerec.tokenizer.semantic_ids import assign_semantic_ids
from tests.core.tokenizer.peers import topical

CONFIG = TokenizerConfig(num_levels=2, codebook_size=5, iterations=8)


def test_the_example() -> None:
    assert doctest.testmod(relabelling).attempted > 0
    assert doctest.testmod(relabelling).failed == 0


@pytest.mark.parametrize("seed", range(6))
def test_no_permutation_keeps_more_codes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    before, after = torch.randint(0, 5, (2, 23, 2), generator=generator)
    numbers = match_codes(before, after, 5)
    for level in range(2):
        assert sorted(numbers[level].tolist()) == list(range(5))
        kept = int((numbers[level][after[:, level]] == before[:, level]).sum())
        best = max(
            sum(p[n] == o for n, o in zip(after[:, level], before[:, level], strict=True))
            for p in permutations(range(5))
        )
        assert kept == best


def test_a_renumbered_fit_gets_its_numbers_back_and_the_same_fit_none() -> None:
    vectors = topical(100, 8)
    codebook, codes = fit_codebook(vectors, CONFIG)
    same = torch.arange(5).expand(2, 5)
    assert torch.equal(match_codes(codes, codes, 5), same)
    assert torch.equal(match_codes(codes[:0], codes[:0], 5), same)  # no item in both
    shuffle = torch.tensor([[3, 1, 4, 0, 2], [1, 2, 3, 4, 0]])
    other, moved = relabelled(codebook, codes, shuffle)
    assert not torch.equal(moved, codes)
    back, again = relabelled(other, moved, match_codes(codes, moved, 5))
    assert torch.equal(again, codes)
    assert torch.equal(back.codebooks, codebook.codebooks)


def test_nothing_but_the_numbers_changes() -> None:
    vectors = topical(110, 8)
    _, before = fit_codebook(vectors, CONFIG)
    later = torch.nn.functional.normalize(vectors + 0.2 * topical(110, 8).flip(0), dim=1)
    codebook, codes = fit_codebook(later, CONFIG)
    renumbered, moved = relabelled(codebook, codes, match_codes(before, codes, 5))
    torch.testing.assert_close(renumbered.decode(moved), codebook.decode(codes), rtol=0, atol=0)
    assert torch.equal(
        renumbered.decode(renumbered.encode(later)), codebook.decode(codebook.encode(later))
    )
    assert (moved == before).float().mean() > (codes == before).float().mean()
    names, days = (
        np.array([f"i{n}" for n in range(110)], object),
        np.full(110, "2026-06-01", "M8[D]"),
    )
    ids = [assign_semantic_ids(c, k, later, names, days) for c, k in
           ((codebook, codes), (renumbered, moved))]  # fmt: skip
    assert [i.num_invalid() for i in ids] == [0, 0]
    # the same items share a leaf
    for level in (1, 2):
        sizes = [torch.unique(i.codes[:, :level], dim=0, return_counts=True)[1] for i in ids]
        assert torch.equal(*(s.sort().values for s in sizes))


def test_codes_of_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match="codes of the same items at the same levels"):
        match_codes(torch.zeros(3, 2, dtype=torch.long), torch.zeros(4, 2, dtype=torch.long), 5)
