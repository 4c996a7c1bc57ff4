"""Beam search against exhaustive enumeration, and what it must never do."""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onerec.generation import Trie, generate_sessions, rank_items, score_catalogue
from onerec.generation import beam as beam_module
from onerec.model import session_logp
from onerec.model.item_neighbours import ItemNeighbours
from tests.core.model.small import LAZY, histories, small_model, unique_codes

HISTORY = histories([0, 3, 2], [], [1, 1, 4, 5, 0, 2])


def exact(model, history_row, codes, legal, num_items):
    """Every session of distinct legal items with its log-probability, best first."""
    sessions = torch.tensor(list(itertools.permutations(legal, num_items)))
    with torch.no_grad():
        rows = history_row.expand(len(sessions), -1)
        logp = session_logp(model, rows, sessions, codes)
    order = logp.argsort(descending=True)
    return sessions[order], logp[order]


@pytest.mark.parametrize("mode", [{}, {"history_tokens": "sid_tokens"}, LAZY])
@pytest.mark.parametrize("num_items", [1, 2, 3])
def test_wide_beam_equals_enumeration(mode, num_items):
    model, codes = small_model(**mode), unique_codes(7, 4, 3)
    beam = 7 if num_items == 1 else 400
    beams = generate_sessions(
        model, HISTORY, codes, Trie.build(codes, 4), num_items=num_items, beam=beam
    )
    for user in range(len(HISTORY)):
        sessions, logp = exact(model, HISTORY[user], codes, range(7), num_items)
        torch.testing.assert_close(beams.items[user, : len(sessions)], sessions)
        torch.testing.assert_close(beams.logp[user, : len(sessions)], logp)
        assert (beams.items[user, len(sessions) :] == -1).all()
        assert (beams.logp[user, len(sessions) :] == -torch.inf).all()


@pytest.mark.parametrize("tables", [True, False])
@pytest.mark.parametrize("num_items", [1, 2])
def test_a_prior_is_added_once_for_every_item(num_items, tables):
    model, codes = small_model(), unique_codes(9, 4, 3)
    prior = torch.linspace(-3, 5, 9)[torch.tensor([4, 0, 8, 2, 6, 1, 7, 3, 5])]
    trie = Trie.build(codes, 4, prior=prior)
    if not tables:
        trie = dataclasses.replace(trie, tables=(None, None, None))
    beam = 9 if num_items == 1 else 100
    beams = generate_sessions(model, HISTORY, codes, trie, num_items=num_items, beam=beam)
    for user in range(len(HISTORY)):
        sessions, logp = exact(model, HISTORY[user], codes, range(9), num_items)
        scores = logp + prior[sessions].sum(-1).to(logp)
        order = scores.argsort(descending=True)
        torch.testing.assert_close(beams.items[user, : len(sessions)], sessions[order])
        torch.testing.assert_close(beams.logp[user, : len(sessions)], scores[order])


def test_a_narrow_beam_finds_what_the_prior_lifts():
    model, codes = small_model(), unique_codes(40, 4, 3)
    least = score_catalogue(model, HISTORY, codes).mean(0).argmin()
    prior = torch.zeros(40)
    prior[least] = 30.0
    found, _ = rank_items(model, HISTORY, codes, Trie.build(codes, 4, prior=prior), top_k=1, beam=1)
    assert (found == least).all()


@pytest.mark.parametrize("neighbours", [False, True])
@pytest.mark.parametrize("barred_by", ["exclude", "allowed", "allowed per user"])
def test_a_narrow_beam_is_not_held_by_what_the_user_must_not_get(barred_by, neighbours):
    model, codes = small_model(), unique_codes(40, 4, 3)
    least = score_catalogue(model, HISTORY, codes).mean(0).argsort()
    barred, wanted = least[0], next(i for i in least if codes[i, 0] != codes[least[0], 0])
    prior = torch.zeros(40)
    prior[barred], prior[wanted] = 60.0, 30.0
    if neighbours:  # numbers for each user
        model.neighbours, model.neighbour_weight = ItemNeighbours(40, 1).double(), 1.0
    allowed = torch.arange(40) != barred
    filters = {
        "exclude": {"exclude": barred.expand(len(HISTORY), 1)},
        "allowed": {"allowed": allowed},
        "allowed per user": {"allowed": allowed.expand(len(HISTORY), -1)},
    }[barred_by]
    trie = Trie.build(codes, 4, prior=prior)
    found, _ = rank_items(model, HISTORY, codes, trie, top_k=1, beam=1, **filters)
    assert (found == wanted).all()


@pytest.mark.parametrize("leaves", [0, 100])
def test_filters_and_a_prior_equal_enumeration_at_any_size_of_catalogue(monkeypatch, leaves):
    monkeypatch.setattr(beam_module, "PER_USER_LEAVES", leaves)
    model, codes = small_model(), unique_codes(12, 4, 3, seed=1)
    prior = torch.linspace(-3, 5, 12).double()
    exclude = torch.tensor([[11, 10, 3, -1], [-1, -1, -1, -1], [2, 11, 9, 8]])
    scores = score_catalogue(model, HISTORY, codes) + prior
    for user, row in enumerate(exclude.tolist()):
        scores[user, [i for i in row if i >= 0]] = -torch.inf
    expected, order = scores.sort(dim=1, descending=True)
    trie = Trie.build(codes, 4, prior=prior)
    items, found = rank_items(model, HISTORY, codes, trie, top_k=12, beam=12, exclude=exclude)
    torch.testing.assert_close(found, expected)
    assert torch.equal(items, order.masked_fill(expected == -torch.inf, -1))


def test_a_prior_of_another_length_or_infinite_is_refused():
    codes = unique_codes(5, 4, 3)
    with pytest.raises(ValueError, match=r"prior has shape \(4,\): use one finite number"):
        Trie.build(codes, 4, prior=torch.zeros(4))
    with pytest.raises(ValueError, match="prior has shape"):
        Trie.build(codes, 4, prior=torch.tensor([0, 0, 0, 0, torch.inf]))


@pytest.mark.parametrize("num_items", [1, 2])
def test_exclusions_and_allow_list_equal_enumeration(num_items):
    model, codes = small_model(), unique_codes(9, 4, 3, seed=1)
    allowed = torch.tensor([True] * 6 + [False] + [True] * 2)
    exclude = torch.tensor([[0, 3, 3, -1], [-1, -1, -1, -1], [6, 8, 1, 2]])
    trie = Trie.build(codes, 4, allowed)
    beam = 8 if num_items == 1 else 100
    beams = generate_sessions(
        model, HISTORY, codes, trie, num_items=num_items, beam=beam, exclude=exclude
    )
    for user in range(3):
        legal = [i for i in range(9) if allowed[i] and i not in exclude[user].tolist()]
        sessions, logp = exact(model, HISTORY[user], codes, legal, num_items)
        torch.testing.assert_close(beams.items[user, : len(sessions)], sessions)
        torch.testing.assert_close(beams.logp[user, : len(sessions)], logp)
        assert (beams.items[user, len(sessions) :] == -1).all()


@settings(max_examples=40, deadline=None)
@given(
    num_items=st.integers(1, 20),
    length=st.integers(1, 3),
    beam=st.integers(1, 12),
    seed=st.integers(0, 5),
    exclude=st.lists(st.integers(-1, 19), max_size=8),
)
def test_always_legal_unique_and_scored_as_the_model_does(num_items, length, beam, seed, exclude):
    model, codes = small_model(seed=seed), unique_codes(num_items, 4, 3, seed=seed)
    beam = min(beam, num_items) if length == 1 else beam
    history = histories([0], [num_items - 1, 0])
    excluded = torch.tensor([[i for i in exclude if i < num_items]] * 2, dtype=torch.long)
    beams = generate_sessions(
        model,
        history,
        codes,
        Trie.build(codes, 4),
        num_items=length,
        beam=beam,
        exclude=excluded.reshape(2, -1),
    )
    assert beams.items.shape == (2, beam, length)
    found = beams.logp.isfinite()
    assert ((beams.items >= 0).all(-1) == found).all()
    assert ((beams.items == -1).all(-1) == ~found).all()
    assert (beams.logp[:, :-1] >= beams.logp[:, 1:]).all()
    legal = num_items - len({i for i in exclude if 0 <= i < num_items})
    assert bool(found[:, 0].all()) == (legal >= length)
    for user in range(2):
        sessions = [tuple(s) for s in beams.items[user][found[user]].tolist()]
        assert len(set(sessions)) == len(sessions)
        for session in sessions:
            assert len(set(session)) == length
            assert not set(session) & set(exclude)
    with torch.no_grad():
        logp = session_logp(model, history, beams.items, codes)
    torch.testing.assert_close(beams.logp[found], logp[found])


@pytest.mark.parametrize("num_items", [1, 3])
def test_without_tables_and_with_copied_caches_the_sessions_are_the_same(monkeypatch, num_items):
    model, codes = small_model(), unique_codes(40, 4, 3)
    trie = Trie.build(codes, 4)
    exclude = torch.tensor([[0, 3], [7, -1], [1, 30]])
    options = {"num_items": num_items, "beam": 11, "exclude": exclude}
    expected = generate_sessions(model, HISTORY, codes, trie, **options)
    monkeypatch.setattr("onerec.generation.beam.SHARED_BEAMS", 0)
    compressed = dataclasses.replace(trie, tables=(None, None, None))
    found = generate_sessions(model, HISTORY, codes, compressed, **options)
    assert torch.equal(found.items, expected.items)
    torch.testing.assert_close(found.logp, expected.logp)


def test_users_without_a_history_get_the_list_of_the_start_token():
    model, codes = small_model(), unique_codes(12, 4, 3)
    trie = Trie.build(codes, 4)
    empty = histories([], [])
    none = torch.zeros(1, 0, dtype=torch.long)
    items, logp = rank_items(model, empty, codes, trie, top_k=4, beam=12)
    alone, alone_logp = rank_items(model, none, codes, trie, top_k=4, beam=12)
    assert items[0].tolist() == items[1].tolist() == alone[0].tolist()
    torch.testing.assert_close(logp[:1], alone_logp)
    others = rank_items(model, histories([0, 1]), codes, trie, top_k=4, beam=12)[1]
    assert not torch.allclose(others, alone_logp)


def test_the_same_alone_and_in_a_batch_and_with_any_padding():
    model, codes = small_model(), unique_codes(30, 4, 3)
    trie = Trie.build(codes, 4)
    together = generate_sessions(model, HISTORY, codes, trie, num_items=2, beam=8)
    for user, length in enumerate([3, 0, 6]):
        alone = generate_sessions(
            model, HISTORY[user : user + 1, :length], codes, trie, num_items=2, beam=8
        )
        torch.testing.assert_close(alone.items[0], together.items[user])
        torch.testing.assert_close(alone.logp[0], together.logp[user], rtol=1e-12, atol=1e-12)


def test_rank_items_is_the_head_of_the_exact_list():
    model, codes = small_model(), unique_codes(40, 4, 3)
    with torch.no_grad():
        scores = score_catalogue(model, HISTORY, codes)
    exact_scores, exact_items = scores.sort(dim=1, descending=True)
    items, logp = rank_items(model, HISTORY, codes, Trie.build(codes, 4), top_k=10, beam=40)
    torch.testing.assert_close(items, exact_items[:, :10])
    torch.testing.assert_close(logp, exact_scores[:, :10])


def test_rank_items_pads_a_list_longer_than_the_legal_catalogue():
    model, codes = small_model(), unique_codes(5, 4, 3)
    items, logp = rank_items(
        model, HISTORY[:1], codes, Trie.build(codes, 4), top_k=6, beam=2,
        exclude=torch.tensor([[2]]),
    )  # fmt: skip
    assert sorted(items[0, :4].tolist()) == [0, 1, 3, 4]
    assert items[0, 4:].tolist() == [-1, -1]
    assert logp[0, 4:].tolist() == [-torch.inf, -torch.inf]


@pytest.mark.parametrize("chunk", [1, 7, 65_536])
@pytest.mark.parametrize("num_items", [1, 25])
def test_score_catalogue_is_session_logp_of_every_item(chunk, num_items):
    model, codes = small_model(), unique_codes(num_items, 4, 3)
    history = histories([0], [], [0, 0])
    scores = score_catalogue(model, history, codes, chunk=chunk)
    sessions = torch.arange(num_items).view(1, -1, 1).expand(3, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(scores, session_logp(model, history, sessions, codes))


def test_scores_of_a_full_code_space_are_probabilities():
    model, codes = small_model(), unique_codes(64, 4, 3)  # every ID there is
    total = score_catalogue(model, HISTORY, codes).exp().sum(1)
    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64))


def test_errors_name_what_is_wrong():
    model, codes = small_model(), unique_codes(10, 4, 3)
    trie = Trie.build(codes, 4)
    other = unique_codes(9, 4, 3)

    def generate(**changes):
        given_ = {"history": HISTORY, "codes": codes, "trie": trie, "num_items": 2, "beam": 4}
        return generate_sessions(model, **(given_ | changes))

    with pytest.raises(ValueError, match="trie was built from"):
        generate(codes=other)
    with pytest.raises(ValueError, match="num_items=4"):
        generate(num_items=4)
    with pytest.raises(ValueError, match="beam=0"):
        generate(beam=0)
    with pytest.raises(ValueError, match="beam=11: only 10 items may be generated"):
        generate(num_items=1, beam=11)
    with pytest.raises(ValueError, match="beam=11: only 10 items"):
        rank_items(model, HISTORY, codes, trie, top_k=3, beam=11)
    three = torch.arange(10) < 3
    with pytest.raises(ValueError, match="beam=4: only 3 items"):
        rank_items(model, HISTORY, codes, trie, top_k=3, beam=4, allowed=three)
    with pytest.raises(ValueError, match="history has item indices"):
        generate(history=torch.tensor([[10]]))
    with pytest.raises(ValueError, match="keep the most recent"):
        generate(history=torch.zeros(1, 7, dtype=torch.long))
    with pytest.raises(ValueError, match="exclude has item indices"):
        generate(exclude=torch.full((3, 1), 10))
    with pytest.raises(ValueError, match="exclude has shape"):
        generate(exclude=torch.full((2, 1), 0))
    wide = unique_codes(10, 4, 4)
    with pytest.raises(ValueError, match="built for 3 tokens"):
        generate(codes=wide, trie=Trie.build(wide, 4))
    with pytest.raises(ValueError, match="top_k=0"):
        rank_items(model, HISTORY, codes, trie, top_k=0, beam=4)
