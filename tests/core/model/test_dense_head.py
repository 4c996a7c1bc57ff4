"""The dense head: what it scores, what it keeps, and how lists mix it with generation."""

from pathlib import Path

import pytest
import torch

from onerec.generation import Trie, generate_sessions, rank_items, score_catalogue, score_items
from onerec.generation.beam import read_histories
from onerec.model import load_model, save_model, session_logp
from onerec.model.dense_head import DenseHead
from tests.core.model.small import histories, small_model, unique_codes

ITEMS, KNOWN = 20, 5
HISTORY = histories([0, 3, 2], [], [1, 1, 4, 5, 0, 2])


def with_dense(weight: float = 0.0, **shape):
    model = small_model(dense_head=True, **shape)
    generator = torch.Generator().manual_seed(5)
    head = model.add_dense_head(ITEMS, KNOWN).to(model.dtype)
    head.vectors.normal_(generator=generator)
    with torch.no_grad():
        head.items.weight.normal_(generator=generator)
    model.dense_weight = weight
    return model.eval()


def dense_logp(model, codes):
    with torch.no_grad():
        return model.dense_logits(read_histories(model, HISTORY, codes)).log_softmax(-1)


@pytest.mark.parametrize("shape", [{}, {"history_tokens": "sid_tokens"}, {"causal_encoder": True}])
def test_lists_are_sorted_by_both_log_probabilities(shape) -> None:
    model, codes = with_dense(0.7, **shape), unique_codes(ITEMS, 4, 3)
    prior = torch.linspace(0, 2, ITEMS)
    trie = Trie.build(codes, 4, prior=prior)
    scores = score_catalogue(model, HISTORY, codes) + 0.7 * dense_logp(model, codes) + prior
    expected, order = scores.sort(dim=1, descending=True)
    items, found = rank_items(model, HISTORY, codes, trie, top_k=ITEMS, beam=ITEMS)
    assert torch.equal(items, order)
    torch.testing.assert_close(found, expected)
    again = score_items(model, HISTORY, items[:, :1], codes, trie)
    torch.testing.assert_close(again, expected[:, :1])


def test_every_item_of_a_session_is_scored_by_both() -> None:
    model, codes = with_dense(0.7), unique_codes(ITEMS, 4, 3)
    beams = generate_sessions(model, HISTORY, codes, Trie.build(codes, 4), num_items=2, beam=30)
    with torch.no_grad():
        generated = session_logp(model, HISTORY, beams.items, codes)
    dense = dense_logp(model, codes).gather(1, beams.items.flatten(1)).view_as(beams.items)
    torch.testing.assert_close(beams.logp, generated + 0.7 * dense.sum(-1))


def test_without_a_weight_the_head_changes_no_list() -> None:
    model, codes = with_dense(0.0), unique_codes(ITEMS, 4, 3)
    plain = small_model()
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith("dense.")}
    )
    trie = Trie.build(codes, 4)
    for found, expected in zip(
        rank_items(model, HISTORY, codes, trie, top_k=9, beam=9),
        rank_items(plain, HISTORY, codes, trie, top_k=9, beam=9),
        strict=True,
    ):
        assert torch.equal(found, expected)


def test_a_checkpoint_keeps_it_and_a_later_catalogue_adds_items(tmp_path: Path) -> None:
    model = with_dense(2.0)
    save_model(model, tmp_path, tokenizer_version="g")
    loaded, _ = load_model(tmp_path, expected_tokenizer_version="g")
    assert loaded.dense is not None
    assert loaded.dense_weight == 2.0
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
