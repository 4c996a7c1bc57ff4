"""A dense head with an encoder of its own: what it reads, learns, and leaves alone."""

from pathlib import Path

import pyarrow as pa
import torch
from torch.nn import functional as F

from onerec.generation import rank_by_content, score_catalogue
from onerec.generation.beam import read_histories
from onerec.model import UserHistories, UserVocabulary, load_model, save_model
from onerec.model.dense_head import followed_by
from onerec.training.generator_module import next_token_loss
from tests.core.model.small import histories, unique_codes
from tests.core.model.test_dense_head import HISTORY, ITEMS, with_dense

SESSIONS = histories([7, 2], [5, 0], [1], length=3)


def own_encoder(**shape):
    return with_dense(dense_encoder_layers=2, dropout=0.0, dense_item_dropout=0.0, **shape)


def test_sessions_stand_right_behind_their_histories() -> None:
    history = histories([3, 4], [], [1, 2, 5], length=3)
    session = histories([7, 8], [9], [6], length=2)
    expected = [[3, 4, 7, 8, -1], [9, -1, -1, -1, -1], [1, 2, 5, 6, -1]]
    assert followed_by(history, session).tolist() == expected


def test_one_pass_scores_each_item_of_a_session_as_a_history_of_those_before_it() -> None:
    model, codes = own_encoder(), unique_codes(ITEMS, 4, 3)
    with torch.no_grad():
        found = iter(model.session_dense_logits(HISTORY, SESSIONS))
        for history, session in zip(HISTORY.tolist(), SESSIONS.tolist(), strict=True):
            before = [item for item in history if item >= 0]
            for item in (item for item in session if item >= 0):
                if len(before) <= model.history_length:
                    memory = read_histories(model, histories(before), codes)
                    torch.testing.assert_close(next(found), model.dense_logits(memory)[0])
                before.append(item)
    assert next(found, None) is None, "padding has no logits"


def test_what_is_learned_is_both_mean_losses() -> None:
    model, codes = own_encoder().train(), unique_codes(ITEMS, 4, 3)
    together = next_token_loss(model, HISTORY, SESSIONS, codes)
    dense = F.cross_entropy(
        model.session_dense_logits(HISTORY, SESSIONS), torch.tensor([7, 2, 5, 0, 1])
    )
    generated = own_encoder()
    generated.dense = None
    alone = next_token_loss(generated, HISTORY, SESSIONS, codes)
    torch.testing.assert_close(together, alone + dense / 3)


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
    with torch.no_grad():
        one = model.session_dense_logits(HISTORY[:1], torch.tensor([[7, 2]]))
        other = model.session_dense_logits(HISTORY[:1], torch.tensor([[7, 9]]))
        changed = model.session_dense_logits(HISTORY[:1], torch.tensor([[8, 2]]))
    torch.testing.assert_close(one, other)
    assert torch.equal(one[0], changed[0])
    assert not torch.allclose(one[1], changed[1])


def test_who_the_user_is_counts_there_too() -> None:
    model, codes = own_encoder(), unique_codes(ITEMS, 4, 3)
    model.add_user_features(UserVocabulary({"plan": ("free", "pro")}))
    assert model.users is not None
    torch.nn.init.normal_(model.users.embedding.weight)
    model.to(model.dtype).eval()
    known = model.histories(HISTORY, pa.table({"plan": ["free", "pro", None]}))
    assert isinstance(known, UserHistories)
    with torch.no_grad():
        plain = model.dense_logits(read_histories(model, HISTORY, codes))
        theirs = model.dense_logits(read_histories(model, known, codes))
        learned = model.session_dense_logits(HISTORY, SESSIONS[:, :1], known.users)
    assert not torch.allclose(plain[0], theirs[0])
    torch.testing.assert_close(plain[2], theirs[2])
    torch.testing.assert_close(learned, theirs)


def test_new_items_are_ordered_by_content_and_a_checkpoint_keeps_it(tmp_path: Path) -> None:
    model, codes = own_encoder(), unique_codes(ITEMS, 4, 3)
    assert model.dense is not None
    memory = read_histories(model, HISTORY, codes)
    with torch.no_grad():
        expected = model.dense_logits(memory, model.dense.content()).argsort(1, descending=True)
    items, _ = rank_by_content(model, HISTORY, codes, torch.ones(ITEMS, dtype=torch.bool), top_k=4)
    assert torch.equal(items, expected[:, :4])
    save_model(model, tmp_path, tokenizer_version="g")
    loaded, _ = load_model(tmp_path, expected_tokenizer_version="g")
    again = loaded.to(model.dtype).dense_logits(read_histories(loaded, HISTORY, codes))
    torch.testing.assert_close(again, model.dense_logits(memory), atol=1e-5, rtol=1e-3)
