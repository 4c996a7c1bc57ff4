"""A catalogue's vectors may lie on disk: they are read in parts, and never copied whole."""

import pytest
import torch
from torch import Tensor

from onerec.tokenizer import distances, min_cost_flow
from onerec.tokenizer.balanced_kmeans import balanced_kmeans
from onerec.tokenizer.codebook import check_vectors
from onerec.tokenizer.distances import Residuals
from tests.core.tokenizer.peers import topical

NUM_ITEMS, NUM_CODES, WIDTH = 6000, 8, 16


class Counted:
    """Rows that note the most that were read at once."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.most = rows, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        found = self.rows[rows]
        self.most = max(self.most, len(found))
        return found


def test_balanced_kmeans_reads_parts_whatever_the_number_of_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distances, "BLOCK_SCORES", 500 * NUM_CODES)
    monkeypatch.setattr(min_cost_flow, "POOL_CELLS", 160 * NUM_CODES * WIDTH)
    rows = Counted(topical(NUM_ITEMS, WIDTH))
    found, wanted = (
        balanced_kmeans(of, NUM_CODES, iterations=3, generator=torch.Generator().manual_seed(0))
        for of in (rows, rows.rows)
    )
    assert torch.equal(found.labels, wanted.labels)
    assert torch.equal(found.centroids, wanted.centroids)
    # blocks of 500, a sample of 64 items a cluster, and 160 of each that may move
    assert 500 <= rows.most <= 160 * NUM_CODES < NUM_ITEMS


def test_residuals_are_what_the_levels_leave_over() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = topical(50, 6)
    codebooks = [torch.randn(4, 6, generator=generator) for _ in range(2)]
    codes = [torch.randint(0, 4, (50,), generator=generator) for _ in range(2)]
    stored = vectors.clone()
    for table, code in zip(codebooks, codes, strict=True):
        stored -= table[code]
    residuals = Residuals(vectors, codebooks, codes)
    assert len(residuals) == 50
    assert torch.equal(residuals[:], stored)
    assert torch.equal(residuals[7:20], stored[7:20])
    rows = torch.tensor([3, 49, 3])
    assert torch.equal(residuals[rows], stored[rows])
    assert torch.equal(Residuals(vectors, [], [])[:], vectors)


@pytest.mark.parametrize("row", [0, 4095, 4096, 9000])
def test_a_bad_vector_is_named_by_its_row(row: int) -> None:
    vectors = torch.ones(9001, 2)
    vectors[row, 1] = torch.nan
    with pytest.raises(ValueError, match=rf"row {row} is not finite \(1 such rows of 9001\)"):
        check_vectors(vectors)
