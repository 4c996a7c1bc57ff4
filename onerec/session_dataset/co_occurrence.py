"""How many rows hold two items, for every pair of items, a block of items at a time.

Exact counts; memory is that of a block, whatever the number of rows. The work is the sum over the
rows of their squared lengths, which `incidence.LONGEST_ROW` limits: linear in the rows.

Shapes: R rows, N items, C cells of a block.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from onerec.session_dataset.incidence import Incidence, filled_on_disk

BLOCK_CELLS = 4_000_000
"""Counts held at once, and a row of N more at most."""


def co_occurrence_blocks(
    rows: Incidence, before: Incidence | None = None
) -> Iterator[tuple[int, sp.csr_array]]:
    """Pairs of items in the same row, and of an item in a row with one before the row.

    Args:
        rows: (R, N) A.
        before: (R, N) B, what precedes each row.

    Yields:
        The first item of a block, and (block, N) int32 rows of A'A, or of 2 A'A + A'B + B'A where
        there is B; an item with itself included, columns in any order.
    """
    most = max(len(rows.columns), 0 if before is None else len(before.columns))
    ones = filled_on_disk(most, 1)
    by_item, right = rows.transposed(), rows.matrix(ones)
    products = [(by_item, right, 1 if before is None else 2)]
    work = rows.num_pairs(rows)
    if before is not None:
        products += [(by_item, before.matrix(ones), 1), (before.transposed(), right, 1)]
        work += rows.num_pairs(before) + before.num_pairs(rows)
    bounds = _blocks(np.minimum(work, rows.num_columns))
    for first, end in pairwise(bounds):
        block = None
        for left, matrix, weight in products:
            found = weight * sp.csr_array(left.matrix(ones, first, end) @ matrix)
            block = found if block is None else block + found
        assert block is not None, "there is a product at least"
        yield int(first), sp.csr_array(block)


def nearest_items(rows: Incidence, most: int, listed: np.ndarray) -> sp.csr_array:
    """Cosine similarities of the items' sets of rows, the nearest neighbours of each item kept.

    Pairs are counted exactly, a block of items at a time: memory grows with N x `most`, not with
    the rows. Of a row of more than `incidence.LONGEST_ROW` items a sample counts.

    Args:
        rows: (R, N), such as the items that each user watched.
        most: Neighbours kept per item; equal similarities keep the lower item index.
        listed: (N,) booleans: items that may be listed. No other one takes a neighbour's place.

    Returns:
        (N, N) sparse, neighbours of item i in row i. An item is not its own neighbour.
    """
    count = rows.counts().astype(float)
    blocks = []
    for first, block in co_occurrence_blocks(rows):
        num_rows = len(block.indptr) - 1
        row, column = np.repeat(np.arange(num_rows), np.diff(block.indptr)), block.indices
        cosine = block.data / np.sqrt(count[row + first] * count[column])
        no_neighbour = (column == row + first) | ~listed[column]
        cosine[no_neighbour] = -np.inf
        near = largest_per_row(block.indptr, column, cosine, most) & ~no_neighbour
        nearest, shape = (cosine[near], (row[near], column[near])), (num_rows, len(count))
        blocks.append(sp.coo_array(nearest, shape=shape).tocsr())
    return sp.csr_array(sp.vstack(blocks, format="csr"))


def largest_per_row(
    starts: np.ndarray, columns: np.ndarray, values: np.ndarray, most: int
) -> np.ndarray:
    """(C,) bool: which entries are among the `most` largest of their row.

    Args:
        starts: (rows + 1,) where each row's entries begin, and the end.
        columns: (C,) columns, distinct within a row; of equal values the lower column is kept.
        values: (C,) finite, or -inf.
        most: At least 1.

    Examples:
        >>> largest_per_row(
        ...     np.array([0, 4, 5]), np.array([7, 3, 1, 2, 0]), np.array([1.0, 2, 1, 1, 9]), 2
        ... ).tolist()
        [False, True, True, False, True]
    """
    lengths = np.diff(starts)
    kept = np.ones(len(values), bool)
    doublings = np.ceil(np.log2(np.maximum(lengths, 1)))  # padding at most doubles a row
    doublings[lengths <= most] = -1
    for doubling in np.unique(doublings[doublings >= 0]):
        rows = np.flatnonzero(doublings == doubling)
        width = int(lengths[rows].max())
        at = np.minimum(starts[rows, None] + np.arange(width), len(values) - 1)
        inside = np.arange(width) < lengths[rows, None]
        padded = np.where(inside, values[at], -np.inf)
        least = np.partition(padded, width - most, axis=1)[:, width - most, None]
        largest, equal = padded > least, inside & (padded == least)
        missing = most - largest.sum(1)
        drawn = np.flatnonzero(equal.sum(1) > missing)
        column = np.where(equal[drawn], columns[at[drawn]], np.iinfo(np.int32).max)
        last = np.sort(column, axis=1)[np.arange(len(drawn)), missing[drawn] - 1, None]
        equal[drawn] &= column <= last
        kept[at[inside]] = (largest | equal)[inside]
    return kept


def _blocks(cells: np.ndarray) -> np.ndarray:
    """Bounds of runs of items with some `BLOCK_CELLS` cells each."""
    block = np.cumsum(cells) // BLOCK_CELLS
    return np.concatenate([[0], np.flatnonzero(np.diff(block)) + 1, [len(cells)]])
