"""Draws follow the model's law over what is legal, and nothing else is ever drawn."""

import itertools

import pytest
import torch

from onerec.generation import Trie
from onerec.generation.sampling import Sampling, sample_sessions
from onerec.model import OneRec, session_logp
from tests.core.alignment.world import CATALOGUE, CODES, ITEMS, NUM_ITEMS, TRIE, generator


def draws(trie: Trie = TRIE, model: OneRec | None = None, seed: int = 0, **changes):
    settings = {"num_items": ITEMS, "num_samples": 40, "temperature": 1.0} | changes
    history = settings.pop("history", torch.tensor([[1, 2, -1], [-1, -1, -1], [20, 7, 3]]))
    sampling = Sampling(
        num_samples=settings.pop("num_samples"), temperature=settings.pop("temperature")
    )
    return sample_sessions(
        model or generator(), history, CATALOGUE, trie, sampling=sampling,
        generator=torch.Generator().manual_seed(seed), **settings,
    )  # fmt: skip


def test_legal_free_of_repeats_and_scored_as_everywhere():
    allowed = torch.arange(NUM_ITEMS) % 2 == 0
    history = torch.tensor([[1, 2, -1], [-1, -1, -1], [20, 7, 4]])
    made = draws(Trie.build(CATALOGUE, CODES, allowed), history=history, exclude=history)
    assert made.items.shape == (3, 40, ITEMS)
    assert bool(allowed[made.items].all())
    for user, seen in enumerate(history.tolist()):
        assert not set(made.items[user].flatten().tolist()) & set(seen)
    ordered = made.items.sort(-1).values
    assert bool((ordered[..., 1:] != ordered[..., :-1]).all())
    with torch.no_grad():
        expected = session_logp(generator(), history, made.items, CATALOGUE)
    torch.testing.assert_close(made.logp, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_frequencies_are_the_models(temperature: float):
    """Two items of a small allow-list, every ordered pair's probability by walking the trie."""
    allowed = torch.zeros(NUM_ITEMS, dtype=torch.bool)
    small = [0, 2, 7, 13]  # items 0 and 2 share their first token, all others differ in it
    allowed[small] = True
    model, history = generator(), torch.tensor([[3, 9]])
    with torch.no_grad():
        model.sid_embedding.weight.mul_(2)  # an opinion worth drawing from
    made = draws(
        Trie.build(CATALOGUE, CODES, allowed), model, num_items=2, num_samples=6000,
        temperature=temperature, history=history,
    )  # fmt: skip
    total = 0.0
    for first, second in itertools.permutations(small, 2):
        drawn = (made.items[0] == torch.tensor([first, second])).all(-1).double().mean()
        wanted = _probability(model, history, [first, second], small, temperature)
        total += wanted
        error = (wanted * (1 - wanted) / 6000) ** 0.5
        assert abs(float(drawn) - wanted) < 4 * error + 1e-9, (first, second)
    assert total == pytest.approx(1.0, abs=1e-5)


def _probability(
    model: OneRec, history: torch.Tensor, session: list[int], allowed: list[int], temperature: float
) -> float:
    """Product over the tokens of softmax probabilities among the items still possible."""
    from onerec.model import encode_items

    with torch.no_grad():
        memory = model.encode(*encode_items(model, history, CATALOGUE))
        logits = model.decode(memory, CATALOGUE[torch.tensor([session])])[0]
    probability = 1.0
    for slot, item in enumerate(session):
        possible = [i for i in allowed if i not in session[:slot]]
        for level in range(CATALOGUE.shape[1]):
            choices = sorted({int(CATALOGUE[i, level]) for i in possible})
            among = (logits[slot, level, choices] / temperature).softmax(0)
            chosen = int(CATALOGUE[item, level])
            probability *= float(among[choices.index(chosen)])
            possible = [i for i in possible if int(CATALOGUE[i, level]) == chosen]
    return probability


def test_too_few_items_for_a_session_and_no_draw_is_wasted():
    allowed = torch.arange(NUM_ITEMS) < 3
    trie = Trie.build(CATALOGUE, CODES, allowed)
    made = draws(trie, history=torch.tensor([[0, 5]]), exclude=torch.tensor([[0, 0]]))
    assert (made.items == -1).all()  # two items are left for sessions of three
    assert (made.logp == -torch.inf).all()
    made = draws(trie)
    assert (made.items.sort(-1).values == torch.arange(3)).all()


def test_a_seed_is_a_sample():
    assert torch.equal(draws(seed=1).items, draws(seed=1).items)
    assert not torch.equal(draws(seed=1).items, draws(seed=2).items)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, r"temperature=0\.0"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"num_items": 9}, "num_items=9"),
        ({"exclude": torch.zeros(1, 2, dtype=torch.long)}, "exclude has shape"),
    ],
)
def test_clear_errors(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        draws(**changes)
