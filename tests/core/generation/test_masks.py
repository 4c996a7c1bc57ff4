"""Filters are masks on one trie: they equal enumeration, and a trie built without the items."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onerec.generation import Trie, generate_sessions
from onerec.generation.masks import TrieView
from onerec.model import session_logp
from tests.core.model.small import histories, small_model, unique_codes

HISTORY = histories([0, 3, 2], [], [1, 1, 4, 5, 0, 2])
ITEMS = 8


def enumerated(model, row, codes, legal):
    """The legal sessions of one user with their log-probabilities, best first."""
    sessions = torch.tensor(legal)
    with torch.no_grad():
        logp = session_logp(model, row.expand(len(sessions), -1), sessions, codes)
    order = logp.argsort(descending=True)
    return sessions[order], logp[order]


def assert_sessions(beams, user, sessions, logp):
    found = len(sessions)
    torch.testing.assert_close(beams.items[user, :found], sessions)
    torch.testing.assert_close(beams.logp[user, :found], logp)
    assert (beams.items[user, found:] == -1).all()


def test_an_allow_list_is_the_same_as_a_trie_of_the_allowed_items():
    model, codes = small_model(), unique_codes(20, 4, 3)
    allowed = torch.arange(20) % 3 != 0
    options = {"num_items": 2, "beam": 9, "exclude": torch.tensor([[1, 3], [4, -1], [-1, 2]])}
    of_calls = generate_sessions(
        model, HISTORY, codes, Trie.build(codes, 4), allowed=allowed, **options
    )
    of_trie = generate_sessions(model, HISTORY, codes, Trie.build(codes, 4, allowed), **options)
    assert torch.equal(of_calls.items, of_trie.items)
    torch.testing.assert_close(of_calls.logp, of_trie.logp)


@pytest.mark.parametrize("num_items", [1, 2, 3])
def test_allow_lists_per_user_equal_enumeration(num_items):
    model, codes = small_model(), unique_codes(ITEMS, 4, 3, seed=3)
    allowed = torch.zeros(3, ITEMS, dtype=torch.bool)
    allowed[0, [1, 2, 5]] = allowed[1, :] = allowed[2, [0, 3, 4, 6]] = True
    exclude = torch.tensor([[2, 7], [0, 0], [-1, 1]])
    beams = generate_sessions(
        model, HISTORY, codes, Trie.build(codes, 4), num_items=num_items,
        beam=ITEMS if num_items == 1 else 400, exclude=exclude, allowed=allowed,
    )  # fmt: skip
    for user in range(3):
        left = set(allowed[user].nonzero()[:, 0].tolist()) - set(exclude[user].tolist())
        legal = list(itertools.permutations(sorted(left), num_items))
        if not legal:
            assert (beams.items[user] == -1).all()
        else:
            assert_sessions(beams, user, *enumerated(model, HISTORY[user], codes, legal))


@settings(max_examples=40, deadline=None)
@given(
    num_items=st.integers(3, 25),
    beam=st.integers(1, 10),
    seed=st.integers(0, 5),
    seen=st.lists(st.integers(-1, 24), max_size=8),
    forbidden=st.sets(st.integers(0, 24), max_size=12),
)
def test_narrow_beams_keep_to_every_filter(num_items, beam, seed, seen, forbidden):
    model, codes = small_model(seed=seed), unique_codes(num_items, 4, 3, seed=seed)
    allowed = torch.tensor([item not in forbidden for item in range(num_items)])
    if not allowed.any():
        return
    exclude = torch.tensor([i for i in seen if i < num_items], dtype=torch.long).view(1, -1)
    beams = generate_sessions(
        model, histories([0]), codes, Trie.build(codes, 4), num_items=3, beam=beam,
        exclude=exclude, allowed=allowed,
    )  # fmt: skip
    left = {i for i in range(num_items) if bool(allowed[i])} - set(exclude[0].tolist())
    found = [tuple(s) for s in beams.items[0][beams.logp[0].isfinite()].tolist()]
    assert bool(found) == (len(left) >= 3)  # a beam can always be finished
    for session in found:
        assert len(set(session)) == 3
        assert set(session) <= left


def test_a_view_counts_what_is_left():
    # leaves in order: 001 (item 1), 010 (item 3), 011 (item 0), 100 (item 2)
    trie = Trie.build(torch.tensor([[0, 1, 1], [0, 0, 1], [1, 0, 0], [0, 1, 0]]), 2)
    allowed = torch.tensor([True, False, True, True])
    view = TrieView.of(trie, allowed, torch.tensor([[2, 2, -1], [0, 1, -1]]), 2)
    assert [c.tolist() for c in view.counts or ()] == [[3], [2, 1], [0, 2, 1], [0, 1, 1, 1]]
    assert view.size == 3
    first = view.closed[0]
    assert first is not None
    assert first.parent.tolist() == [[0, -1, -1], [-1, -1, -1]]  # 1 holds only item 2
    assert first.column[0, 0] == 1


def test_bad_filters_are_named():
    model, codes = small_model(), unique_codes(10, 4, 3)
    trie = Trie.build(codes, 4)
    every = torch.ones(10, dtype=torch.bool)

    def generate(**changes):
        return generate_sessions(model, HISTORY, codes, trie, num_items=2, beam=4, **changes)

    with pytest.raises(ValueError, match="allowed allows none of 10 items"):
        generate(allowed=~every)
    one_without = every.repeat(3, 1)
    one_without[1] = False
    with pytest.raises(ValueError, match="none of 10 items to user 1 of the batch"):
        generate(allowed=one_without)
    with pytest.raises(ValueError, match=r"allowed is torch\.bool of shape \(9,\)"):
        generate(allowed=every[:9])
    with pytest.raises(ValueError, match=r"allowed is torch\.int64"):
        generate(allowed=every.long())
