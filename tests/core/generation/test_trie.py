"""The trie holds exactly the allowed semantic IDs."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onerec.generation import Trie
from tests.core.model.small import unique_codes


def paths(trie: Trie) -> list[tuple[tuple[int, ...], int]]:
    """Every (tokens, item) of the trie, by walking down from the root."""
    found = [((), 0)]
    for level in range(trie.num_sid_tokens):
        first = trie.first_child[level].tolist()
        found = [
            ((*prefix, int(trie.code[level][child])), child)
            for prefix, node in found
            for child in range(first[node], first[node + 1])
        ]
    return [(prefix, int(trie.leaf_items[leaf])) for prefix, leaf in found]


@settings(max_examples=50, deadline=None)
@given(
    num_items=st.integers(1, 27),
    seed=st.integers(0, 100),
    allowed=st.lists(st.booleans(), min_size=27, max_size=27),
)
def test_walking_gives_the_allowed_ids_in_order(num_items, seed, allowed):
    codes = unique_codes(num_items, 3, 3, seed)
    mask = torch.tensor(allowed[:num_items])
    if not mask.any():
        with pytest.raises(ValueError, match="allows none"):
            Trie.build(codes, 3, mask)
        return
    trie = Trie.build(codes, 3, mask)
    items = mask.nonzero()[:, 0].tolist()
    expected = sorted((tuple(codes[item].tolist()), item) for item in items)
    assert paths(trie) == expected
    leaves = trie.leaves(torch.arange(-1, num_items))
    assert leaves[0] == -1
    assert trie.leaf_items[leaves[1:][mask]].tolist() == items
    assert (leaves[1:][~mask] == -1).all()


def test_runs_of_leaves():
    # sorted: 001 (item 1), 010 (item 3), 011 (item 0), 100 (item 2)
    codes = torch.tensor([[0, 1, 1], [0, 0, 1], [1, 0, 0], [0, 1, 0]])
    trie = Trie.build(codes, 2)
    assert trie.leaf_items.tolist() == [1, 3, 0, 2]
    assert [first.tolist() for first in trie.first_leaf] == [
        [0, 4],  # root
        [0, 3, 4],  # 0, 1
        [0, 1, 3, 4],  # 00, 01, 10
        [0, 1, 2, 3, 4],
    ]
    assert [first.tolist() for first in trie.first_child] == [[0, 2], [0, 2, 3], [0, 1, 3, 4]]
    assert trie.max_children == (2, 2, 2)
    moved = trie.to("cpu")
    assert moved.num_leaves == 4
    assert moved.num_sid_tokens == 3


@settings(max_examples=30, deadline=None)
@given(num_items=st.integers(1, 40), seed=st.integers(0, 100), data=st.data())
def test_children_of_nodes_with_and_without_a_table(num_items, seed, data):
    codes = unique_codes(num_items, 4, 3, seed)
    tabled = Trie.build(codes, 4)
    assert all(table is not None for table in tabled.tables)
    compressed = dataclasses.replace(tabled, tables=(None, None, None))
    for level in range(3):
        count = len(tabled.first_child[level]) - 1
        node = torch.tensor(
            [data.draw(st.lists(st.integers(0, count - 1), min_size=3, max_size=3))]
        )
        first = tabled.first_child[level].tolist()
        expected = [tabled.code[level][first[n] : first[n + 1]].tolist() for n in node[0].tolist()]
        for trie, least in ((tabled, 1), (compressed, 1), (compressed, 4)):
            code, missing = trie.children(level, node, at_least=least)
            there = missing == 0
            assert [c[t].tolist() for c, t in zip(code[0], there[0], strict=True)] == expected
            assert (missing[~there] == -torch.inf).all()
            assert code.shape[2] >= min(least, trie.max_children[level])


def test_nodes_above_leaves():
    trie = Trie.build(torch.tensor([[0, 1, 1], [0, 0, 1], [1, 0, 0], [0, 1, 0]]), 2)
    leaves = torch.tensor([[0, 3], [1, 2]])
    assert trie.above(0, leaves).tolist() == [[0, 0], [0, 0]]
    assert trie.above(1, leaves).tolist() == [[0, 1], [0, 0]]
    assert trie.above(2, leaves).tolist() == [[0, 2], [1, 1]]
    assert trie.above(3, leaves).tolist() == leaves.tolist()


@pytest.mark.parametrize(
    ("codes", "allowed", "message"),
    [
        ([[0, 1], [0, 1]], None, "1 items share the semantic ID"),
        ([[0, 4]], None, "tokens in"),
        ([[-1, 0]], None, "tokens in"),
        ([0, 1], None, "shape"),
        ([[0, 1]], [True, True], "one bool per item"),
        ([[0, 1]], [False], "allows none of 1 items"),
    ],
)
def test_bad_input_is_named(codes, allowed, message):
    mask = None if allowed is None else torch.tensor(allowed)
    with pytest.raises(ValueError, match=message):
        Trie.build(torch.tensor(codes), 4, mask)


def test_an_empty_catalogue_is_named():
    with pytest.raises(ValueError, match="no items"):
        Trie.build(torch.zeros(0, 3, dtype=torch.long), 4)
