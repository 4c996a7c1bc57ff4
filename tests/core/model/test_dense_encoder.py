"""A dense head with an encoder of its own: what it reads, learns, and leaves alone."""

import math
from pathlib import Path

import pytest
import torch

from onerec.generation import Trie, rank_by_content, rank_first_items, score_catalogue
from onerec.generation.beam import read_histories
from onerec.generation.ranking import CONTENT_SIMILARITY
from onerec.model import load_model, save_model
from onerec.model.dense_head import SOFTNESS, followed_by
from onerec.training.dense_head import next_item_loss
from onerec.training.generator_module import next_token_loss
from tests.core.model.small import histories, unique_codes
from tests.core.model.test_dense_head import HISTORY, ITEMS, with_dense

SESSIONS = histories([7, 2], [5, 0], [1], length=3)


def own_encoder(**shape):
    return with_dense(dense_encoder_layers=2, dense_dropout=0.0, dense_item_dropout=0.0, **shape)


def test_sessions_stand_right_behind_their_histories() -> None:
    history = histories([3, 4], [], [1, 2, 5], length=3)
    session = histories([7, 8], [9], [6], length=2)
    expected = [[3, 4, 7, 8, -1], [9, -1, -1, -1, -1], [1, 2, 5, 6, -1]]
    assert followed_by(history, session).tolist() == expected


def test_one_pass_scores_each_item_of_a_session_as_a_history_of_those_before_it() -> None:
    model, codes = own_encoder(), unique_codes(ITEMS, 4, 3)
    assert model.dense is not None
    with torch.no_grad():
        found = iter(model.dense.session_logits(HISTORY, SESSIONS))
        for history, session in zip(HISTORY.tolist(), SESSIONS.tolist(), strict=True):
            before = [item for item in history if item >= 0]
            for item in (item for item in session if item >= 0):
                if len(before) <= model.history_length:
                    memory = read_histories(model, histories(before), codes)
                    torch.testing.assert_close(next(found), model.dense_logits(memory)[0])
                before.append(item)
    assert next(found, None) is None, "padding has no logits"


def test_all_items_drawn_are_all_items() -> None:
    model = own_encoder(dense_negatives=ITEMS)
    assert model.dense is not None
    assert not model.dense.draws_negatives
    with torch.no_grad():
        exact = model.dense.session_logits(HISTORY, SESSIONS).log_softmax(1)
        sampled = model.dense.sampled_logits(HISTORY, SESSIONS).log_softmax(1)
    own = SESSIONS[SESSIONS >= 0].unsqueeze(1)
    torch.testing.assert_close(sampled[:, :1], exact.gather(1, own))


def test_drawn_items_stand_for_all_on_average() -> None:
    model = own_encoder(dense_negatives=3)
    assert model.dense is not None
    assert model.dense.draws_negatives
    with torch.no_grad():
        model.dense.items.weight.mul_(10)
        exact = model.dense.session_logits(HISTORY, SESSIONS).logsumexp(1)
        draws = [model.dense.sampled_logits(HISTORY, SESSIONS) for _ in range(3000)]
    assert draws[0].shape == (len(exact), 4)
    sums = torch.stack(draws).logsumexp(2).exp()
    far = (sums.mean(0) - exact.exp()).abs() / (sums.std(0) / len(draws) ** 0.5)
    assert float(sums.std(0).min()) > 0
    assert float(far.max()) < 5


def test_a_lazy_decoder_has_lists_with_it_too() -> None:
    model, codes = own_encoder(architecture="lazy_decoder"), unique_codes(ITEMS, 4, 3)
    assert model.dense is not None
    model.dense_share = 1.0
    with torch.no_grad():
        best = model.dense.next_item_logits(HISTORY).argmax(1)
    trie = Trie.build(codes, model.codebook_size)
    lists = rank_first_items(model, HISTORY, codes, trie, top_k=1, beam=ITEMS, batch_size=4)
    assert lists.items[:, 0].tolist() == best.tolist()


def test_each_learns_its_own_loss() -> None:
    """The generator's loss has no gradient of the head, and the head's is its own."""
    model, codes = own_encoder().train(), unique_codes(ITEMS, 4, 3)
    assert model.dense is not None
    assert not any(parameter.requires_grad for parameter in model.dense.parameters())
    generated = own_encoder()
    generated.dense = None
    expected = next_token_loss(generated, HISTORY, SESSIONS, codes)
    torch.testing.assert_close(next_token_loss(model, HISTORY, SESSIONS, codes), expected)
    logp = model.dense.session_logits(HISTORY, SESSIONS).log_softmax(-1)
    mean = -logp[torch.arange(5), [7, 2, 5, 0, 1]].mean()
    torch.testing.assert_close(next_item_loss(model.dense, HISTORY, SESSIONS), mean)
    nobody = torch.full((2, 3), -1)
    assert next_item_loss(model.dense, nobody, nobody) == 0, "padding alone has no loss"


def test_the_generator_reads_nothing_of_it() -> None:
    model, codes = own_encoder(), unique_codes(ITEMS, 4, 3)
    before = score_catalogue(model, HISTORY, codes)
    scored = model.dense_logits(read_histories(model, HISTORY, codes))
    assert model.dense is not None
    with torch.no_grad():
        model.dense.items.weight[3] += 1  # in the first history
    assert torch.equal(score_catalogue(model, HISTORY, codes), before)
    again = model.dense_logits(read_histories(model, HISTORY, codes))
    assert not torch.allclose(again[0], scored[0])


def test_later_items_do_not_change_the_state_before_them() -> None:
    model = own_encoder()
    assert model.dense is not None
    with torch.no_grad():
        one = model.dense.session_logits(HISTORY[:1], torch.tensor([[7, 2]]))
        other = model.dense.session_logits(HISTORY[:1], torch.tensor([[7, 9]]))
        changed = model.dense.session_logits(HISTORY[:1], torch.tensor([[8, 2]]))
    torch.testing.assert_close(one, other)
    assert torch.equal(one[0], changed[0])
    assert not torch.allclose(one[1], changed[1])


def test_similarity_is_the_soft_maximum_of_the_cosines_with_the_history() -> None:
    model = own_encoder()
    assert model.dense is not None
    wanted = torch.tensor([5, 0, 11])
    unit = torch.nn.functional.normalize(model.dense.vectors, dim=1).double()
    for history, row in zip(HISTORY, model.dense.similarity(HISTORY, wanted), strict=True):
        read = [int(item) for item in history if item >= 0]
        for item, found in zip(wanted, row, strict=True):
            powers = [math.exp(float(unit[i] @ unit[item]) / SOFTNESS) for i in read]
            expected = SOFTNESS * math.log(sum(powers) / len(read)) if read else 0.0
            assert float(found) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("at_once", [1, 1 << 24])
def test_new_items_are_ordered_by_content_and_a_checkpoint_keeps_it(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onerec.generation.ranking.SIMILARITIES_AT_ONCE", at_once)
    model, codes = own_encoder(), unique_codes(ITEMS, 4, 3)
    assert model.dense is not None
    memory = read_histories(model, HISTORY, codes)
    with torch.no_grad():
        logp = model.dense_logits(memory, model.dense.content()).log_softmax(1)
        near = model.dense.similarity(HISTORY, torch.arange(ITEMS))
        expected = (logp + CONTENT_SIMILARITY * near).argsort(1, descending=True)
    items, _ = rank_by_content(model, HISTORY, codes, torch.ones(ITEMS, dtype=torch.bool), top_k=4)
    assert torch.equal(items, expected[:, :4])
    save_model(model, tmp_path, tokenizer_version="g")
    loaded, _ = load_model(tmp_path, expected_tokenizer_version="g")
    again = loaded.to(model.dtype).dense_logits(read_histories(loaded, HISTORY, codes))
    torch.testing.assert_close(again, model.dense_logits(memory), atol=1e-5, rtol=1e-3)
