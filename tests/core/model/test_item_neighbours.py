"""Item neighbours: what they say of items, and how lists add it."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onerec.generation import Trie, generate_sessions, rank_items, score_catalogue
from onerec.generation.beam import read_histories
from onerec.model import OneRec, load_model, save_model, session_logp
from onerec.model.item_neighbours import SMOOTHING, ItemNeighbours
from tests.core.model.small import (
    assert_lists_are_sorted_by,
    histories,
    small_model,
    unique_codes,
)

ITEMS = 20
HISTORY = histories([0, 3, 2], [], [1, 1, 4, 5, 0, 2])


def similarities(seed: int = 0, share: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((ITEMS, ITEMS)) * (rng.random((ITEMS, ITEMS)) < share)


def with_neighbours(weight: float, dense_share: float = 0.0) -> OneRec:
    model = small_model(dense_head=dense_share > 0)
    if dense_share:
        torch.nn.init.normal_(model.add_dense_head(ITEMS, 5).to(model.dtype).items.weight)
        model.dense_share = dense_share
    model.neighbours = ItemNeighbours.of(sp.csr_array(similarities())).to(model.dtype)
    model.neighbour_weight = weight
    return model.eval()


@settings(deadline=None)
@given(
    history=st.lists(st.integers(-1, ITEMS + 1), max_size=8),
    share=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_similarities_to_the_distinct_items_of_a_history_are_summed(
    history: list[int], share: float
) -> None:
    similarity = similarities(share=share)
    known = sorted({item for item in history if 0 <= item < ITEMS})
    expected = np.log(similarity[known].sum(0) + SMOOTHING)
    rows = torch.tensor([[*history, -1], [*history[::-1], -1]])
    found = ItemNeighbours.of(sp.csr_array(similarity)).log_similarity(rows, ITEMS + 2)
    assert found.shape == (2, ITEMS + 2)
    for row in found:
        torch.testing.assert_close(row[:ITEMS], torch.from_numpy(expected).float())
        torch.testing.assert_close(row[ITEMS:], torch.full((2,), SMOOTHING).log())


@pytest.mark.parametrize("dense_share", [0.0, 0.6])
@pytest.mark.parametrize("has_prior", [False, True])
def test_lists_add_what_neighbours_say(dense_share: float, has_prior: bool) -> None:
    model, codes = with_neighbours(0.4, dense_share), unique_codes(ITEMS, 4, 3)
    prior = torch.linspace(0, 2, ITEMS) if has_prior else None
    trie = Trie.build(codes, 4, prior=prior)
    similarity = similarities()
    near = [
        similarity[sorted({int(i) for i in row if i >= 0})].sum(0) + SMOOTHING for row in HISTORY
    ]
    scores = (1 - dense_share) * score_catalogue(model, HISTORY, codes)
    scores += 0.4 * torch.from_numpy(np.log(near))
    if dense_share:
        with torch.no_grad():
            logits = model.dense_logits(read_histories(model, HISTORY, codes))
        scores += dense_share * logits.log_softmax(-1)
    if prior is not None:
        scores += prior
    assert_lists_are_sorted_by(scores, model, HISTORY, codes, trie)


def test_every_item_of_a_session_gets_what_neighbours_say() -> None:
    model, codes = with_neighbours(0.4), unique_codes(ITEMS, 4, 3)
    beams = generate_sessions(model, HISTORY, codes, Trie.build(codes, 4), num_items=2, beam=30)
    with torch.no_grad():
        generated = session_logp(model, HISTORY, beams.items, codes)
    assert model.neighbours is not None
    near = model.neighbours.log_similarity(HISTORY, ITEMS).gather(1, beams.items.flatten(1))
    torch.testing.assert_close(beams.logp, generated + 0.4 * near.view_as(beams.items).sum(-1))


def test_without_a_weight_lists_stay_as_they_are() -> None:
    codes = unique_codes(ITEMS, 4, 3)
    trie = Trie.build(codes, 4)
    weighted, plain = with_neighbours(0.0), small_model().eval()
    for a, b in zip(
        rank_items(weighted, HISTORY, codes, trie, top_k=9, beam=ITEMS),
        rank_items(plain, HISTORY, codes, trie, top_k=9, beam=ITEMS),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_a_checkpoint_keeps_them(tmp_path: Path) -> None:
    model, codes = with_neighbours(0.4), unique_codes(ITEMS, 4, 3)
    save_model(model, tmp_path, tokenizer_version="g")
    loaded, _ = load_model(tmp_path, expected_tokenizer_version="g")
    assert loaded.neighbour_weight == 0.4
    trie = Trie.build(codes, 4)
    for a, b in zip(
        rank_items(loaded.to(model.dtype), HISTORY, codes, trie, top_k=9, beam=ITEMS),
        rank_items(model, HISTORY, codes, trie, top_k=9, beam=ITEMS),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
