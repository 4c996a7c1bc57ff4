"""What a generator knows of users: numbers of their attributes, one vector at the start token."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from onerec.generation import Trie, generate_sessions, rank_items, score_catalogue
from onerec.model import UserHistories, UserVocabulary, load_model, save_model, session_logp
from onerec.model import user_features as module
from tests.core.model.small import LAZY, histories, small_model, unique_codes

VOCABULARY = UserVocabulary({"plan": ("free", "pro"), "country": ("DE",)})
HISTORY = histories([1, 2, 3], [4], [])
CODES = unique_codes(20, 4, 3)
KINDS = [{}, LAZY, {"causal_encoder": True}, {"history_tokens": "sid_tokens"}]


def known(*rows: tuple[str | None, str | None]) -> pa.Table:
    plans, countries = (pa.array(column, pa.string()) for column in zip(*rows, strict=True))
    return pa.table({"plan": plans, "country": countries})


def knowing_model(**config):
    """With embeddings of attributes that are not zero."""
    model = small_model(**config)
    model.add_user_features(VOCABULARY)
    assert model.users is not None
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(5, 16, generator=generator, dtype=torch.double)
    model.users.double().embedding.weight.data.copy_(weight)
    return model.eval()


def test_the_most_frequent_values_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_VALUES", 3)
    values = ["b"] * 6 + ["a"] * 6 + ["z"] * 9 + ["c"] * 5 + ["rare"] * 4 + [None] * 20
    found = UserVocabulary.of(pa.table({"x": values, "a": ["rare"] * 4 + [None] * 46}))
    assert found.values == {"x": ("z", "a", "b"), "a": ()}  # of equals the first; 4 users are few
    assert found.names == ("a", "x")
    parts = [pa.array(values[n::2]).dictionary_encode() for n in (0, 1)]  # numbered differently
    assert UserVocabulary.of(pa.table({"x": pa.chunked_array(parts)})).values["x"] == (
        "z",
        "a",
        "b",
    )


def test_codes_number_the_values_and_0_is_unknown() -> None:
    table = known(("pro", "DE"), ("free", None), ("never seen", "FR"))
    # in alphabetical order: country, plan
    assert VOCABULARY.codes(table, 3).tolist() == [[1, 2], [0, 1], [0, 0]]
    more = table.append_column("zodiac", pa.array(["?"] * 3)).drop_columns("country")
    assert VOCABULARY.codes(more, 3).tolist() == [[0, 2], [0, 1], [0, 0]]
    parts = [pa.array(part).dictionary_encode() for part in (["pro", None, "x"], ["free", "pro"])]
    numbered = pa.table({"plan": pa.chunked_array(parts)})
    assert VOCABULARY.codes(numbered, 5)[:, 1].tolist() == [2, 0, 0, 1, 2]
    assert VOCABULARY.codes(None, 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("config", KINDS)
def test_nothing_moves_until_something_is_learned(config: dict) -> None:
    plain, model = small_model(**config), small_model(**config)
    state = torch.random.get_rng_state()
    model.add_user_features(VOCABULARY)
    assert torch.equal(state, torch.random.get_rng_state())
    model.double().eval()
    sessions = torch.tensor([[5, 6], [7, 8], [9, 3]])
    given = model.histories(HISTORY, known(("pro", "DE"), ("free", None), (None, None)))
    assert isinstance(given, UserHistories)
    assert torch.equal(
        session_logp(model, given, sessions, CODES), session_logp(plain, HISTORY, sessions, CODES)
    )
    assert plain.histories(HISTORY, known(("pro", "DE"))) is HISTORY


@pytest.mark.parametrize("config", KINDS)
def test_attributes_are_a_vector_on_the_start_token(config: dict) -> None:
    model, plain = knowing_model(**config), small_model(**config)
    assert model.users is not None
    weight = model.users.embedding.weight  # rows: country unknown, DE; plan unknown, free, pro
    plain.start.data.add_((weight[1] + weight[4]).detach() / 2**0.5)
    history = histories([1, 2, 3])
    sessions = torch.tensor([[5, 6]])
    given = model.histories(history, known(("pro", "DE")))
    torch.testing.assert_close(
        session_logp(model, given, sessions, CODES), session_logp(plain, history, sessions, CODES)
    )
    other = session_logp(model, model.histories(history, None), sessions, CODES)
    assert not torch.allclose(session_logp(model, given, sessions, CODES), other)
    # a bare history is of an unknown user
    assert torch.equal(session_logp(model, history, sessions, CODES), other)


@pytest.mark.parametrize("config", KINDS)
def test_lists_and_sessions_are_those_of_the_user(config: dict) -> None:
    model, trie = knowing_model(**config), Trie.build(CODES, 4)
    given = model.histories(HISTORY, known(("pro", "DE"), ("free", None), ("free", "DE")))
    assert isinstance(given, UserHistories)
    items, logp = rank_items(model, given, CODES, trie, top_k=5, beam=20)
    exact = score_catalogue(model, given, CODES).topk(5)
    assert torch.equal(items, exact.indices)
    torch.testing.assert_close(logp, exact.values)
    beams = generate_sessions(model, given, CODES, trie, num_items=2, beam=4)
    torch.testing.assert_close(beams.logp, session_logp(model, given, beams.items, CODES))
    for row in range(3):  # whoever else is in the batch
        alone = rank_items(model, given[row : row + 1], CODES, trie, top_k=5, beam=20)
        assert torch.equal(alone[0][0], items[row])
        torch.testing.assert_close(alone[1][0], logp[row], rtol=0, atol=1e-12)
    plain = rank_items(model, HISTORY, CODES, trie, top_k=5, beam=20)[0]
    assert not torch.equal(plain, items)


def test_users_are_joined_where_both_are_known_or_none() -> None:
    known = UserHistories(HISTORY, torch.tensor([[1], [0], [2]]))
    both = module.joined(known, known[:1])
    assert isinstance(both, UserHistories)
    assert both.users.tolist() == [[1], [0], [2], [1]]
    assert torch.equal(module.joined(HISTORY, HISTORY[:1]), both.items)
    for one, other in ((known, HISTORY), (HISTORY, known)):
        with pytest.raises(AssertionError, match="known or none"):
            module.joined(one, other)


def test_training_forgets_a_share_of_the_users() -> None:
    model = knowing_model()
    assert model.users is not None
    users = torch.ones(20_000, 2, dtype=torch.long)
    unknown = model.users(torch.zeros(1, 2, dtype=torch.long))
    assert not torch.equal(model.users(users[:1]), unknown)
    model.users.train()
    forgotten = (model.users(users) == unknown).all(1).double().mean().item()
    assert forgotten == pytest.approx(0.1, abs=0.01)  # 5 standard errors
    model.users.eval()
    assert not (model.users(users) == unknown).all(1).any()


def test_a_checkpoint_keeps_what_it_knows(tmp_path: Path) -> None:
    model = knowing_model().float()
    save_model(model, tmp_path, tokenizer_version="g")
    found, _ = load_model(tmp_path, expected_tokenizer_version="g")
    assert found.users is not None
    assert found.users.vocabulary == UserVocabulary({"country": ("DE",), "plan": ("free", "pro")})
    given = known(("pro", "DE"), ("free", None), (None, "DE"))
    sessions = torch.tensor([[5, 6], [7, 8], [9, 3]])
    scores = [session_logp(m, m.histories(HISTORY, given), sessions, CODES) for m in (model, found)]
    assert torch.equal(*scores)
    save_model(small_model(), tmp_path / "plain", tokenizer_version="g")
    assert load_model(tmp_path / "plain", expected_tokenizer_version="g")[0].users is None
