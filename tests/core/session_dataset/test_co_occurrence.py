"""Pairs of items against a dense product, whatever the size of blocks, and memory of a block."""

import doctest
import tracemalloc
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onerec.session_dataset import co_occurrence, incidence
from onerec.session_dataset.co_occurrence import (
    co_occurrence_blocks,
    largest_per_row,
    nearest_items,
)
from onerec.session_dataset.incidence import (
    Incidence,
    IncidenceWriter,
    UserItemPairs,
    filled_on_disk,
    incidence_of,
)

ROWS, ITEMS = 40, 17


def dense(matrix: Incidence) -> np.ndarray:
    return matrix.matrix(np.ones(len(matrix.columns), np.int64)).toarray()


def random_matrix(seed: int, num_ones: int = 150) -> tuple[Incidence, np.ndarray]:
    """A matrix on disk from ones that repeat, and the same in memory."""
    rng = np.random.default_rng(seed)
    row, column = rng.integers(0, ROWS, num_ones), (ITEMS * rng.random(num_ones) ** 2).astype(int)
    expected = np.zeros((ROWS, ITEMS), int)
    expected[row, column] = 1
    return incidence_of(row, column, (ROWS, ITEMS)), expected


@pytest.fixture(params=[1, 23, 4_000_000])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(incidence, "CHUNK", request.param)
    monkeypatch.setattr(co_occurrence, "BLOCK_CELLS", request.param)
    return request.param


def test_rows_counts_and_columns_of_a_matrix(chunk: int) -> None:
    found, expected = random_matrix(0)
    assert (dense(found) == expected).all()
    assert found.counts().tolist() == expected.sum(0).tolist()
    other, held = random_matrix(5)
    assert found.num_pairs(other).tolist() == (held.sum(1) @ expected).tolist()
    turned = found.transposed()
    assert (dense(turned) == expected.T).all()
    assert all((np.diff(part) > 0).all() for part in np.split(turned.columns, turned.starts[1:-1]))


def test_blocks_are_rows_of_the_product(chunk: int) -> None:
    (rows, a), (before, b) = random_matrix(1), random_matrix(2, 300)
    for blocks, expected in (
        (co_occurrence_blocks(rows), a.T @ a),
        (co_occurrence_blocks(rows, before), 2 * a.T @ a + a.T @ b + b.T @ a),
    ):
        seen = 0
        for first, block in blocks:
            assert first == seen
            seen += len(block.indptr) - 1
            assert (block.toarray() == expected[first:seen]).all()
            assert block.nnz <= chunk + ITEMS  # a row over the limit at most
        assert seen == ITEMS


def test_neighbours_are_the_nearest_of_the_items_that_may_be_listed(chunk: int) -> None:
    rows, ones = random_matrix(seed=3)
    listed = np.random.default_rng(0).random(ITEMS) < 0.6
    norm = np.sqrt(np.maximum(ones.sum(0), 1))
    cosine = (ones.T @ ones) / np.outer(norm, norm)
    np.fill_diagonal(cosine, 0)
    cosine[:, ~listed] = 0
    found = nearest_items(rows, 4, listed).toarray()
    for item in range(ITEMS):
        nearest = np.lexsort((np.arange(ITEMS), -cosine[item]))[:4]
        expected = np.zeros(ITEMS)
        expected[nearest] = cosine[item, nearest]
        np.testing.assert_allclose(found[item], expected)


def test_memory_does_not_grow_with_the_rows(monkeypatch) -> None:
    monkeypatch.setattr(incidence, "CHUNK", 1000)

    def peak(num_batches: int) -> int:
        rng = np.random.default_rng(0)
        tracemalloc.start()
        with UserItemPairs(ITEMS) as pairs, IncidenceWriter(ITEMS) as history:
            for _ in range(num_batches):
                pairs.append(
                    rng.integers(0, 2**64, 1000, dtype=np.uint64), rng.integers(0, 9, 1000)
                )
                history.append(rng.integers(0, 300, 1000), rng.integers(0, ITEMS, 1000), 300)
            users, sessions = pairs.finish(), history.finish()
        ones = filled_on_disk(max(len(users.columns), len(sessions.columns)), 1)
        for matrix in (users, sessions):
            assert sum(block.nnz for _, block in co_occurrence_blocks(matrix)) > 0
        assert len(ones) >= 700 * num_batches
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(40), peak(300)  # the many have 2 MB more of numbers
    assert many < few + 500_000


def test_a_matrix_without_ones_has_no_pairs() -> None:
    nobody = incidence_of(np.zeros(0, int), np.zeros(0, int), (0, ITEMS))
    assert [block.nnz for _, block in co_occurrence_blocks(nobody, nobody)] == [0]


def test_appending_batches_equals_appending_all() -> None:
    rng = np.random.default_rng(3)
    row, column = np.sort(rng.integers(0, ROWS, 200)), rng.integers(0, ITEMS, 200)
    with IncidenceWriter(ITEMS) as writer:
        for first in range(0, ROWS, 7):
            num = min(7, ROWS - first)
            mine = (row >= first) & (row < first + num)
            writer.append(row[mine] - first, column[mine], num)
        found = writer.finish()
    whole = incidence_of(row, column, (ROWS, ITEMS))
    assert found.starts.tolist() == whole.starts.tolist()
    assert found.columns.tolist() == whole.columns.tolist()


def test_pairs_of_users_in_any_order_become_their_sets_of_items() -> None:
    rng = np.random.default_rng(4)
    hashes = rng.integers(0, 2**64, 30, dtype=np.uint64)
    expected: dict[int, set[int]] = {}
    with UserItemPairs(ITEMS) as pairs:
        for _ in range(5):
            user, item = hashes[rng.integers(0, 30, 40)], rng.integers(0, ITEMS, 40)
            pairs.append(user, item)
            for u, i in zip(user.tolist(), item.tolist(), strict=True):
                expected.setdefault(u, set()).add(i)
        found = pairs.finish()
    sets = np.split(found.columns, found.starts[1:-1])
    assert sorted(map(tuple, sets)) == sorted(tuple(sorted(s)) for s in expected.values())


def test_of_a_long_row_a_sample_counts_and_of_another_row_another(monkeypatch) -> None:
    monkeypatch.setattr(incidence, "LONGEST_ROW", 10)
    row, column = np.repeat([0, 1, 2], [100, 100, 10]), np.r_[0:100, 0:100, 0:10]
    found = incidence_of(row, column, (3, 100))
    assert np.diff(found.starts).tolist() == [10, 10, 10]
    first, second, third = (set(part) for part in np.split(found.columns, found.starts[1:-1]))
    assert third == set(range(10))
    assert first != second
    again = incidence_of(row[::-1], column[::-1], (3, 100))
    assert again.columns.tolist() == found.columns.tolist()


def test_a_sample_takes_every_item_equally_often(monkeypatch) -> None:
    monkeypatch.setattr(incidence, "LONGEST_ROW", 25)
    num = 4000
    found = incidence_of(np.repeat(np.arange(num), 50), np.tile(np.arange(50), num), (num, 50))
    # half of the rows; the standard deviation is 32
    assert np.abs(found.counts() - num / 2).max() < 160


def test_more_ones_than_indices_count_are_an_error(monkeypatch) -> None:
    monkeypatch.setattr(incidence, "MOST_ONES", 5)
    with pytest.raises(ValueError, match="more than 5 pairs"):
        incidence_of(np.zeros(6, int), np.arange(6), (1, 6))


@given(
    st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=6),
    st.integers(1, 13),
    st.randoms(use_true_random=False),
)
def test_the_largest_of_each_row_and_of_equals_the_lowest_columns(rows, most, random) -> None:
    columns = [random.sample(range(20), len(row)) for row in rows]
    expected = []
    for values, places in zip(rows, columns, strict=True):
        best = sorted(range(len(values)), key=lambda at: (-values[at], places[at]))[:most]
        expected += [at in best for at in range(len(values))]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    found = largest_per_row(
        starts,
        np.array(list(chain(*columns)), np.int32),
        np.array(list(chain(*rows)), float),
        most,
    )
    assert found.tolist() == expected


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(co_occurrence)
    assert result.attempted > 0
    assert result.failed == 0
