"""Pools hold what the beams still stand on, and no more."""

import pytest
import torch

from onerec.model.cache import LANES, RowCaches, SharedCaches


def steps(caches, parents, new=1, heads=2, width=4):
    """Append numbered tokens, following `parents` between steps; what each beam sees at the end.

    Every token's key is its own number in all places, so that keys tell tokens apart.
    """
    number, seen = 0, []
    for follow in parents:
        beams = 1 if follow is None else follow.shape[1]
        if follow is not None:
            caches.reorder(follow)
        batch = 2
        tokens = torch.arange(number, number + batch * beams * new).view(batch * beams, new, 1)
        number += batch * beams * new
        caches.prepare(beams, new, torch.float64)
        past = caches.layers[0].append(tokens.double().expand(-1, -1, 2 * width), heads)
        keys = past.keys[:, 0, :, 0]  # (G, S)
        rows = past.keys.new_zeros(len(keys), batch * beams * new // len(keys), keys.shape[1])
        visible = rows if past.mask is None else (rows + past.mask.squeeze(1))
        seen = [
            sorted(keys[g][visible[g, q] == 0].long().tolist())
            for g in range(len(keys))
            for q in range(visible.shape[1])
        ]
        assert torch.equal(past.keys, past.values)
    return seen, past.keys.shape


PARENTS = [
    None,
    torch.tensor([[0, 0, 0], [0, 0, 0]]),
    torch.tensor([[2, 2, 0], [1, 1, 1]]),
    torch.tensor([[0, 1, 1, 2], [2, 0, 0, 0]]),
]
# tokens: step 0 gives 0 | 1, step 1 gives 2 3 4 | 5 6 7, step 2 gives 8 9 10 | 11 12 13, and step 3
# gives 14 15 16 17 | 18 19 20 21
EXPECTED = [
    [0, 4, 8, 14], [0, 4, 9, 15], [0, 4, 9, 16], [0, 2, 10, 17],
    [1, 6, 13, 18], [1, 6, 11, 19], [1, 6, 11, 20], [1, 6, 11, 21],
]  # fmt: skip


@pytest.mark.parametrize("kind", ["shared", "rows"])
def test_a_beam_sees_its_own_ancestors_and_itself(kind):
    cpu = torch.device("cpu")
    caches = SharedCaches(1, 2, cpu) if kind == "shared" else RowCaches(1, 8)
    seen, _ = steps(caches, PARENTS)
    assert seen == EXPECTED


@pytest.mark.parametrize("kind", ["shared", "rows"])
def test_a_token_does_not_see_what_comes_after_it_in_the_same_step(kind):
    cpu = torch.device("cpu")
    caches = SharedCaches(1, 2, cpu) if kind == "shared" else RowCaches(1, 8)
    seen, _ = steps(caches, [None, torch.tensor([[0, 0], [0, 0]])], new=2)
    # step 0 gives 0 1 | 2 3, step 1 gives 4 5, 6 7 | 8 9, 10 11
    assert seen == [
        [0, 1, 4], [0, 1, 4, 5], [0, 1, 6], [0, 1, 6, 7],
        [2, 3, 8], [2, 3, 8, 9], [2, 3, 10], [2, 3, 10, 11],
    ]  # fmt: skip


def test_a_pool_does_not_grow_with_beams_that_died():
    line = torch.arange(20).expand(2, -1)
    last = [torch.zeros(2, 20, dtype=torch.long)] * 30  # all follow the first beam, thirty times
    _, shape = steps(SharedCaches(1, 2, torch.device("cpu")), [None, line * 0, *last])
    # of every step one token lives, beside the 20 new ones: 51 or 52, padded
    assert shape == (2, 2, -(-52 // LANES) * LANES, 2)
