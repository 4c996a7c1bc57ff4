"""The dense head: what it scores, what it keeps, and how lists mix it with generation."""

from pathlib import Path

import pytest
import torch

from onerec.generation import Trie, generate_sessions, rank_items, score_catalogue
from onerec.generation.beam import read_histories
from onerec.model import load_model, save_model, session_logp
from onerec.model.dense_head import DenseHead
from tests.core.model.small import (
    assert_lists_are_sorted_by,
    histories,
    small_model,
    unique_codes,
)

ITEMS, KNOWN = 20, 5
HISTORY = histories([0, 3, 2], [], [1, 1, 4, 5, 0, 2])


def with_dense(share: float = 0.0, **shape):
    model = small_model(dense_head=True, **shape)
    generator = torch.Generator().manual_seed(5)
    head = model.add_dense_head(ITEMS, KNOWN).to(model.dtype)
    head.vectors.normal_(generator=generator)
    with torch.no_grad():
        head.items.weight.normal_(generator=generator)
    model.dense_share = share
    return model.eval()


def dense_logp(model, codes):
    with torch.no_grad():
        return model.dense_logits(read_histories(model, HISTORY, codes)).log_softmax(-1)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"history_tokens": "sid_tokens"},
        {"causal_encoder": True},
        {"dense_encoder_layers": 2},
    ],
)
def test_lists_are_sorted_by_both_log_probabilities(shape) -> None:
    model, codes = with_dense(0.7, **shape), unique_codes(ITEMS, 4, 3)
    prior = torch.linspace(0, 2, ITEMS)
    trie = Trie.build(codes, 4, prior=prior)
    scores = 0.3 * score_catalogue(model, HISTORY, codes) + 0.7 * dense_logp(model, codes) + prior
    assert_lists_are_sorted_by(scores, model, HISTORY, codes, trie)


def test_every_item_of_a_session_is_scored_by_both() -> None:
    model, codes = with_dense(0.7), unique_codes(ITEMS, 4, 3)
    beams = generate_sessions(model, HISTORY, codes, Trie.build(codes, 4), num_items=2, beam=30)
    with torch.no_grad():
        generated = session_logp(model, HISTORY, beams.items, codes)
    dense = dense_logp(model, codes).gather(1, beams.items.flatten(1)).view_as(beams.items)
    torch.testing.assert_close(beams.logp, 0.3 * generated + 0.7 * dense.sum(-1))


def test_a_share_of_one_lists_what_the_head_scores_best() -> None:
    model, codes = with_dense(1.0), unique_codes(ITEMS, 4, 3)
    expected, order = dense_logp(model, codes).sort(dim=1, descending=True)
    items, found = rank_items(model, HISTORY, codes, Trie.build(codes, 4), top_k=3, beam=3)
    assert torch.equal(items, order[:, :3])
    torch.testing.assert_close(found, expected[:, :3])


def test_without_a_share_lists_are_generated_from_items_that_the_encoder_reads() -> None:
    """The head's vectors of the history's items change what is generated, its scores do not."""
    model, codes = with_dense(0.0), unique_codes(ITEMS, 4, 3)
    trie = Trie.build(codes, 4)
    items, scores = rank_items(model, HISTORY, codes, trie, top_k=9, beam=ITEMS)
    expected, order = score_catalogue(model, HISTORY, codes).sort(dim=1, descending=True)
    assert torch.equal(items, order[:, :9])
    torch.testing.assert_close(scores, expected[:, :9])
    assert model.dense is not None
    with torch.no_grad():
        model.dense.items.weight[3] += 1  # in the first history alone
    again = score_catalogue(model, HISTORY, codes).sort(dim=1, descending=True).values
    assert not torch.allclose(again[0], expected[0])
    torch.testing.assert_close(again[1:], expected[1:])


def test_items_of_a_history_have_the_vectors_of_the_table() -> None:
    model = with_dense()
    assert model.dense is not None
    items = torch.tensor([[3, 0, -1]])
    table = model.dense.table()
    torch.testing.assert_close(model.dense.of(items)[0, :2], table[[3, 0]])
    model.dense.item_dropout = 1.0
    known = model.dense.train().known(model.dense.vectors)
    torch.testing.assert_close(model.dense.of(items)[0, :2], known[[3, 0]])


def test_a_checkpoint_keeps_it_and_a_later_catalogue_adds_items(tmp_path: Path) -> None:
    model = with_dense(0.6)
    save_model(model, tmp_path, tokenizer_version="g")
    loaded, _ = load_model(tmp_path, expected_tokenizer_version="g")
    assert loaded.dense is not None
    assert loaded.dense_share == 0.6
    table = loaded.dense.table()
    torch.testing.assert_close(table, model.dense.table().to(table))
    more = torch.cat([loaded.dense.vectors, torch.ones(3, KNOWN)])
    loaded.dense.cover(more)
    grown = loaded.dense.table()
    assert torch.equal(grown[:ITEMS], table)
    torch.testing.assert_close(grown[ITEMS:], loaded.dense.known(torch.ones(3, KNOWN)))
    with pytest.raises(ValueError, match=r"vectors has shape \(2, 5\): .* use a later day"):
        loaded.dense.cover(more[:2])


def test_a_step_leaves_out_embeddings_of_some_items() -> None:
    torch.manual_seed(0)
    head = DenseHead(2000, 3, 4, dropout=0.0, item_dropout=0.25)
    content = head.known(head.vectors)
    torch.nn.init.ones_(head.items.weight)
    assert (head.eval().table() != content).all(), "never when lists are made"
    left_out = (head.train().table() == content).all(1).float().mean()
    assert 0.2 < left_out < 0.3


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.6, 1, ITEMS - 1)])
def test_the_share_of_items_scored_as_new_ones_is_a_setting(
    share: float, least: int, most: int
) -> None:
    torch.manual_seed(0)
    model = with_dense(dense_item_dropout=share).train()
    assert model.dense is not None
    known = model.dense.known(model.dense.vectors)
    as_new = (model.dense.table() == known).all(1).sum().item()
    assert least <= as_new <= most
