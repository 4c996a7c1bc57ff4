"""Losses of SASRec and BERT4Rec."""

import pytest
import torch

from onerec.evaluation.baselines.sequence_losses import (
    MaskedItems,
    NextItem,
    NextItemOneNegative,
    negatives,
)
from tests.core.evaluation.small_sequences import NUM, draws, model


def test_cross_entropy_is_over_the_whole_catalogue() -> None:
    """Place by place: -log of the softmax at the next item, from everything before it."""
    one, windows = model(), torch.tensor([[3, 1, 4, -1, -1, -1], [5, 9, 2, 6, 8, 7]])
    expected = []
    for row in windows:
        known = row[row >= 0]
        for place, item in enumerate(known):
            state = one.next_hidden(known[None, :place] if place else torch.full((1, 1), -1))
            expected.append(-one.scores(state)[0].log_softmax(-1)[item].detach())
    found = NextItem()(one, windows, windows >= 0, draws()).detach()
    assert float(found) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-5)


def test_binary_loss_is_against_one_item_that_is_not_in_the_window() -> None:
    one, windows = model(), torch.tensor([[3, 1, 4, -1, -1, -1], [5, 9, 2, 6, 8, 7]])
    row = (windows >= 0).nonzero()[:, 0]
    other = negatives(windows, row, NUM, draws(3))
    hidden = one(windows[:, :-1])[windows >= 0]
    scores = one.scores(hidden)
    place = torch.arange(len(row))
    right = scores[place, windows[windows >= 0]].sigmoid().log()
    wrong = (1 - scores[place, other].sigmoid()).log()
    found = NextItemOneNegative()(one, windows, windows >= 0, draws(3)).detach()
    assert float(found) == pytest.approx(float(-(right + wrong).mean().detach()), abs=1e-5)


def test_negatives_are_uniform_over_the_other_items() -> None:
    windows = torch.tensor([[3, 0, 3, -1], [11, 10, 1, 2]])
    row = torch.tensor([0, 1]).repeat_interleave(9000)
    drawn = negatives(windows, row, NUM, draws())
    for user, taken in enumerate(({0, 3}, {1, 2, 10, 11})):
        counts = torch.bincount(drawn[row == user], minlength=NUM)
        free = [i for i in range(NUM) if i not in taken]
        assert counts[list(taken)].sum() == 0
        share = counts[free] / 9000
        assert torch.allclose(share, torch.full_like(share, 1 / len(free)), atol=0.015)


def test_masks_hide_some_items_and_never_padding() -> None:
    items = torch.tensor([[3, 1, 4, -1, -1]] * 400)
    hidden = MaskedItems(share=0.3, last_share=0.0).mask(items, items >= 0, draws())
    assert not hidden[:, 3:].any()
    assert bool(hidden.any(1).all())
    # .3 each, and where none of three was (.343) the one of the lowest chance: (.9 + .343) / 3
    assert float(hidden[:, :3].float().mean()) == pytest.approx(1.243 / 3, abs=0.04)
    last = MaskedItems(last_share=1.0).mask(items, items >= 0, draws())
    assert last[0].tolist() == [False, False, True, False, False]


def test_masked_loss_tells_hidden_items_from_both_sides() -> None:
    both, loss = model(causal=False), MaskedItems(last_share=1.0)
    windows = torch.tensor([[3, 1, 4, -1, -1, -1], [5, 9, 2, 6, 8, 7]])
    first = both.scores(both(torch.tensor([[3, 1, NUM]]))[:, 3]).log_softmax(-1)[0, 4]
    second = both.scores(both(torch.tensor([[9, 2, 6, 8, NUM]]))[:, 5]).log_softmax(-1)[0, 7]
    with torch.no_grad():
        found = float(loss(both, windows, windows >= 0, draws()))
    assert found == pytest.approx(float(-(first + second).detach() / 2))
    # ranking asks the same question: a mask after the last items
    state = both.next_hidden(torch.tensor([[3, 1, -1, -1, -1, -1]]))
    torch.testing.assert_close(state, both(torch.tensor([[3, 1, NUM]]))[:, 3])
    state = both.next_hidden(torch.tensor([[0, 5, 9, 2, 6, 8]]))
    torch.testing.assert_close(state, both(torch.tensor([[9, 2, 6, 8, NUM]]))[:, 5])


def test_older_items_of_a_window_are_read_and_not_learned() -> None:
    windows = torch.tensor([[3, 1, 4, 2, -1, -1], [5, 9, 2, 6, 8, 7]])
    learned = torch.tensor([[False] * 3 + [True] + [False] * 2, [False] * 4 + [True] * 2])
    one = model()
    expected = [
        -one.scores(one.next_hidden(windows[row][None, :place]))[0].log_softmax(-1)[item].detach()
        for row, place, item in ((0, 3, 2), (1, 4, 8), (1, 5, 7))
    ]
    found = NextItem()(one, windows, learned, draws()).detach()
    assert float(found) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-5)
    for last_share in (0.0, 1.0):
        masked = MaskedItems(last_share=last_share).mask(windows, learned, draws())
        assert bool(masked.any(1).all())
        assert not (masked & ~learned).any()
