"""IDs are unique, equal in length, append-only, and near."""

import tempfile
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onerec import schema
from onerec.config import TokenizerConfig
from onerec.embeddings.item_embeddings import ItemEmbeddings
from onerec.tokenizer.codebook import Codebook, fit_codebook
from onerec.tokenizer.semantic_ids import (
    SemanticIds,
    align_vectors,
    assign_semantic_ids,
    extend_semantic_ids,
    load_semantic_ids,
)
from onerec.tokenizer.tokenized_catalogue import (
    extend_tokenized,
    load_tokenized,
    tokenize_catalogue,
)
from tests.core.tokenizer.peers import topical

DAY = np.datetime64("2026-06-01")


def names(num_items: int, prefix: str = "i") -> np.ndarray:
    return np.array([f"{prefix}{n}" for n in range(num_items)], object)


def days(num_items: int) -> np.ndarray:
    return np.full(num_items, DAY)


def opened(
    vectors: torch.Tensor, *, size: int = 4, levels: int = 2
) -> tuple[Codebook, SemanticIds]:
    config = TokenizerConfig(num_levels=levels, codebook_size=size, iterations=5)
    codebook, codes = fit_codebook(vectors, config)
    ids = assign_semantic_ids(codebook, codes, vectors, names(len(codes)), days(len(codes)))
    return codebook, ids


@cache
def twenty() -> tuple[Codebook, SemanticIds]:
    """A tokenizer version that opened with 20 of its 64 IDs."""
    return opened(topical(20, 4, seed=1))


def nobody(codebook: Codebook) -> SemanticIds:
    empty = torch.empty(0, codebook.num_levels, dtype=torch.long)
    vectors = torch.empty(0, codebook.codebooks.shape[2])
    return assign_semantic_ids(codebook, empty, vectors, names(0), days(0))


LINE = Codebook(
    # leaves at 0, 1, 10 and 11 on a line; two items each
    torch.tensor([[[0.0, 1.0], [10.0, 1.0]], [[0.0, 0.0], [1.0, 0.0]]]),
    TokenizerConfig(num_levels=2, codebook_size=2),
)


def at(*places: float) -> torch.Tensor:
    return torch.tensor([[place, 1.0] for place in places])


def test_disambiguation_token_counts_within_a_leaf() -> None:
    ids = extend_semantic_ids(nobody(LINE), LINE, names(4), at(0, 11, 0, 10), days(4))
    assert ids.codes.tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_a_full_leaf_passes_items_to_the_nearest_with_room() -> None:
    # leaf 0 holds two; the third and fourth go to leaf 1, the fifth to leaf 10, never to 11
    ids = extend_semantic_ids(nobody(LINE), LINE, names(5), at(0, 0, 0, 0, 0), days(5))
    assert ids.codes.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0]]


def test_items_that_fit_are_not_moved_by_those_that_do_not() -> None:
    # the last one arrives at leaf 1 on its own account and is not displaced by the overflow
    ids = extend_semantic_ids(nobody(LINE), LINE, names(4), at(0, 0, 0, 1), days(4))
    assert ids.codes.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0]]


def test_every_id_can_be_given_out_and_no_more() -> None:
    ids = extend_semantic_ids(nobody(LINE), LINE, names(8), at(*[0.0] * 8), days(8))
    assert ids.num_invalid() == 0
    with pytest.raises(ValueError, match="9 items need more than the 8 IDs"):
        extend_semantic_ids(ids, LINE, names(1, "x"), at(0), days(1))


def test_the_catalogue_keeps_its_balanced_codes() -> None:
    vectors = topical(300, 8)
    config = TokenizerConfig(num_levels=2, codebook_size=16, iterations=5)
    codebook, codes = fit_codebook(vectors, config)
    ids = assign_semantic_ids(codebook, codes, vectors, names(300), days(300))
    assert ids.num_invalid() == 0
    assert torch.equal(ids.codes[:, :2], codes)


@pytest.mark.parametrize("distinct", [4, 5])
def test_duplicates_beyond_a_leaf_still_get_ids(distinct: int) -> None:
    vectors = topical(distinct, 8).repeat(60 // distinct, 1)
    _, ids = opened(vectors)  # 4 ** 3 = 64 IDs for 60 items
    assert ids.codes.shape == (60, 3)
    assert ids.num_invalid() == 0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    arrivals=st.lists(st.integers(0, 14), max_size=6),
    copies=st.booleans(),
)
def test_published_ids_never_move(seed: int, arrivals: list[int], copies: bool) -> None:
    codebook, ids = twenty()
    pool = topical(200, 4, seed=seed)
    if copies:  # everyone wants the same leaf
        pool = pool[:1].expand(200, -1)
    taken = 0
    arrivals = [n for n, total in zip(arrivals, np.cumsum(arrivals), strict=True) if total <= 44]
    for count in arrivals:
        earlier = ids
        new = names(count, f"s{taken}-")
        ids = extend_semantic_ids(ids, codebook, new, pool[taken : taken + count], days(count))
        taken += count
        assert len(ids) == len(earlier) + count
        assert ids.num_moved_since(earlier) == 0
        assert ids.num_invalid() == 0
        assert ids.codes.shape == (len(ids), 3)
        assert (ids.index_of(new) == np.arange(len(earlier), len(ids))).all()


@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10_000), wanted_leaves=st.integers(1, 44))
def test_ids_hold_in_any_order_of_arrival(data: st.DataObject, seed: int, wanted_leaves: int):
    """The same 44 items, which fill every ID there is, in a random order over random nights."""
    codebook, ids = twenty()
    pool = topical(44, 4, seed=seed)[torch.arange(44) % wanted_leaves]
    order = np.array(data.draw(st.permutations(range(44))))
    nights = sorted(data.draw(st.lists(st.integers(0, 44), max_size=8)))
    item_ids = names(44, "s")
    published: dict[str, list[int]] = dict(zip(ids.item_ids, ids.codes.tolist(), strict=True))
    for arrived in np.split(order, nights):
        when = np.full(len(arrived), DAY)
        ids = extend_semantic_ids(ids, codebook, item_ids[arrived], pool[arrived], when)
        now = dict(zip(ids.item_ids, ids.codes.tolist(), strict=True))
        assert {item: now[item] for item in published} == published
        assert len({tuple(code) for code in now.values()}) == len(now)
        assert bool(((ids.codes >= 0) & (ids.codes < 4)).all())
        leaves = ids.codes[:, :2].unique(dim=0, return_counts=True)[1]
        assert int(leaves.max()) <= codebook.size
        published = now
    assert len(published) == 4**3
    assert set(published) == {*names(20), *item_ids}


def test_the_order_of_arrival_decides_who_gets_which_id():
    """So that the property above is not one of a function that ignores the order."""
    codebook, ids = twenty()
    same = topical(1, 4, seed=2).expand(9, -1)
    there, back = (
        extend_semantic_ids(ids, codebook, item_ids, same, days(9))
        for item_ids in (names(9, "s"), names(9, "s")[::-1])
    )
    assert torch.equal(there.codes, back.codes)
    assert there.item_ids[20:].tolist() == back.item_ids[20:][::-1].tolist()


@settings(max_examples=10, deadline=None)
@given(data=st.data(), copies=st.booleans())
def test_nights_hold_in_any_order_of_the_catalogue(data: st.DataObject, copies: bool):
    """A night's catalogue lists old and new items, and items that left, in any order."""
    vectors = topical(60, 4, seed=3).numpy()
    if copies:
        vectors[30:] = vectors[30]
    first_seen = np.concatenate([days(20), DAY + np.arange(1, 41) // 10])
    everything = ItemEmbeddings(names(60), first_seen, vectors, {})

    def catalogue(until: int) -> ItemEmbeddings:
        rows = np.array(data.draw(st.permutations(range(until))))
        left = rows[data.draw(st.integers(0, until)) :]
        kept = rows[~np.isin(rows, left) | (rows < 10)]  # not all that it opened with may leave
        return ItemEmbeddings(names(60)[kept], first_seen[kept], vectors[kept], {})

    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        config = TokenizerConfig(num_levels=2, codebook_size=4, iterations=5)
        night, _ = tokenize_catalogue(everything, date(2026, 6, 2), config, directory)
        for until in (30, 45, 60):
            later = extend_tokenized(directory, night, catalogue(until))
            assert later.ids.num_moved_since(night.ids) == 0
            assert later.ids.num_invalid() == 0
            night = later


def test_the_vectors_before_validation_come_into_the_codebooks_space(tmp_path: Path) -> None:
    vectors = topical(60, 8, seed=3)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]
    first_seen = np.concatenate([days(40), DAY + np.ones(20, int)])
    night = ItemEmbeddings(
        names(60), first_seen, vectors.numpy(), {}, before_validation=(vectors @ turn).numpy()
    )
    config = TokenizerConfig(num_levels=2, codebook_size=8, iterations=5)
    tokenize_catalogue(night, date(2026, 6, 2), config, tmp_path)
    first = extend_tokenized(tmp_path, None, night)
    assert first.before_validation is not None
    at = first.ids.index_of(night.item_ids)
    np.testing.assert_allclose(first.before_validation[at], vectors, atol=1e-5)
    # what has left the catalogue keeps its last vector
    left = night.rows(np.arange(1, 60))
    second = extend_tokenized(tmp_path, first, left)
    second.save(tmp_path)
    loaded = load_tokenized(tmp_path)
    assert loaded.before_validation is not None
    np.testing.assert_allclose(loaded.before_validation[at], vectors, atol=1e-5)
    gone = extend_tokenized(tmp_path, second, replace(left, before_validation=None))
    assert gone.before_validation is None


def test_extending_twice_gives_the_same(tmp_path: Path) -> None:
    codebook, ids = opened(topical(40, 8))
    new = topical(15, 8, seed=3)
    first = extend_semantic_ids(ids, codebook, names(15, "n"), new, days(15))
    again = extend_semantic_ids(ids, codebook, names(15, "n"), new, days(15))
    assert torch.equal(first.codes, again.codes)


def test_new_items_go_to_their_nearest_codes_when_there_is_room() -> None:
    codebook, ids = opened(topical(64, 8), size=8)
    new = topical(10, 8, seed=4)
    extended = extend_semantic_ids(ids, codebook, names(10, "n"), new, days(10))
    assert torch.equal(extended.codes[64:, :2], codebook.encode(new))


def test_saved_table_follows_the_schema_and_loads_back(tmp_path: Path) -> None:
    _, ids = opened(topical(30, 4))
    ids.save(tmp_path)
    table = pq.read_table(tmp_path / "semantic_ids.parquet")
    assert table.schema.equals(schema.SEMANTIC_IDS)
    assert table["item_index"].to_pylist() == list(range(30))
    loaded = load_semantic_ids(tmp_path)
    assert torch.equal(loaded.codes, ids.codes)
    assert loaded.codes.dtype == torch.long
    assert loaded.item_ids.tolist() == ids.item_ids.tolist()
    assert loaded.first_seen.tolist() == ids.first_seen.tolist()
    assert (loaded.tokenizer_version, loaded.codebook_size) == (ids.tokenizer_version, 4)


def test_another_generation_is_refused() -> None:
    _, ids = opened(topical(30, 4))
    other, _ = opened(topical(30, 4, seed=9))
    with pytest.raises(ValueError, match=f"{ids.tokenizer_version}.*{other.tokenizer_version}"):
        extend_semantic_ids(ids, other, names(1, "n"), topical(1, 4), days(1))


@pytest.mark.parametrize(
    ("item", "vector", "message"),
    [
        ("i3", torch.ones(1, 4), "'i3' has an ID already"),
        ("new", torch.zeros(1, 4), "row 0 is all zeros"),
        ("new", torch.full((1, 4), torch.inf), "row 0 is not finite"),
    ],
)
def test_unusable_arrivals_are_named(item: str, vector: torch.Tensor, message: str) -> None:
    codebook, ids = opened(topical(30, 4))
    with pytest.raises(ValueError, match=message):
        extend_semantic_ids(ids, codebook, np.array([item], object), vector, days(1))


@pytest.mark.parametrize("width", [6, 8, 11])
def test_turned_axes_are_turned_back(width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.zeros(50, 8)
    reference[:, :6] = topical(50, 6)  # six real dimensions, so that width 6 can hold them
    turn = torch.linalg.qr(torch.randn(max(8, width), max(8, width), generator=generator))[0]
    padded = torch.nn.functional.pad(reference, (0, max(0, width - 8)))
    tonight = padded @ turn if width >= 8 else reference[:, :6] @ turn[:6, :6].svd()[0]
    rows = torch.arange(40)
    torch.testing.assert_close(
        align_vectors(tonight, rows, reference[:40]), reference, rtol=1e-4, atol=1e-5
    )
