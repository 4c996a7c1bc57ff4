"""Constrained beam search over whole sessions, batched over users.

At every digit a beam may only continue into a child that still has an item to give: the trie keeps
the result legal, and counts of the items already taken (by the beam's own session or by `exclude`)
keep it from entering a prefix whose items are all gone. So every beam can always be finished.

Letters: B batch, K beams of a step, W children considered per beam, M items, E excluded, T digits.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from onerec.generation.trie import Trie
from onerec.model import OneRec, check_items, encode_items

NO_SCORE = -torch.inf
SHARED_BEAMS = 256


class Beams(NamedTuple):
    """Sessions of B users, best first.

    Attributes:
        items: (B, K, M) item indices; -1 where there are fewer legal sessions than beams.
        logp: (B, K) log-probability of each session; -inf where there is none.
    """

    items: Tensor
    logp: Tensor


@dataclass
class _Search:
    """The beams of every user between two steps."""

    logp: Tensor  # (B, K)
    node: Tensor  # (B, K), of the depth reached
    taken: Tensor  # (B, K, M) leaves of the session's items so far; -1 later
    code: Tensor | None = None  # (B, K), the digit chosen last


@torch.no_grad()
def generate_sessions(
    model: OneRec,
    history: Tensor,
    codes: Tensor,
    trie: Trie,
    *,
    num_items: int,
    beam: int,
    exclude: Tensor | None = None,
) -> Beams:
    """The most probable sessions of each user, by beam search.

    Args:
        model: The generator; its training mode is left alone, so call `eval()` first.
        history: (B, H) item indices, oldest first, -1 padded.
        codes: (N, T) semantic IDs.
        trie: The items that may be generated, built from the same codes.
        num_items: M, items of a session.
        beam: Beams kept; a beam wider than what is legal only pads the result.
        exclude: (B, E) item indices that a user must not get, -1 padded.

    Returns:
        Sessions of legal items, without repeats, sorted by log-probability under the model's
        softmax over all codes, so that `session_logp` of the same session is the same number.

    Raises:
        ValueError: Lengths or indices outside what the model and the trie cover.
    """
    _check(model, codes, trie, num_items, beam)
    memory = model.encode(*encode_items(model, history, codes))
    state = model.start_decoding(memory, shared=num_items > 1 and beam <= SHARED_BEAMS)
    batch, device = len(history), model.device
    removed = _removed_leaves(trie, exclude, batch, device)
    search = _Search(
        logp=torch.zeros(batch, 1, dtype=model.dtype, device=device),
        node=torch.zeros(batch, 1, dtype=torch.long, device=device),
        taken=torch.full((batch, 1, num_items), -1, device=device),
    )
    for slot in range(num_items):
        search.node = torch.zeros_like(search.node)
        for digit in range(trie.num_digits):
            logits = model.step(state, slot=slot, digit=digit, previous=search.code)
            parents = _advance(search, trie, logits.log_softmax(-1), slot, digit, beam, removed)
            if (slot, digit) != (num_items - 1, trie.num_digits - 1):
                state.reorder(parents)
        search.taken[:, :, slot] = search.node  # at the last depth a node is a leaf
    found = search.logp.isfinite()
    items = torch.where(found.unsqueeze(-1), trie.leaf_items[search.taken.clamp(min=0)], -1)
    missing = beam - items.shape[1]
    return Beams(
        F.pad(items, (0, 0, 0, missing), value=-1), F.pad(search.logp, (0, missing), value=NO_SCORE)
    )


def _advance(
    search: _Search,
    trie: Trie,
    digit_logp: Tensor,
    slot: int,
    digit: int,
    beam: int,
    removed: Tensor | None,
) -> Tensor:
    """Move every user to the best continuations by one digit; returns their parents (B, K')."""
    width = trie.max_children[digit]
    starts = trie.first_child[digit]
    first, last = starts[search.node], starts[search.node + 1]  # (B, K)
    children = first.unsqueeze(-1) + torch.arange(width + 1, device=first.device)
    children = torch.minimum(children, last.unsqueeze(-1))  # (B, K, W + 1)
    bounds = trie.first_leaf[digit + 1][children]
    children, remaining = children[..., :-1], bounds.diff(dim=-1)  # no leaves beyond the last child
    if removed is not None:
        below = torch.searchsorted(removed, bounds.flatten(1)).view_as(bounds)
        remaining = remaining - below.diff(dim=-1)
    if slot > 0:
        taken = search.taken[:, :, None, :slot]
        below = (taken < bounds.unsqueeze(-1)).sum(-1)
        remaining = remaining - below.diff(dim=-1)

    code = trie.code[digit][children.clamp(max=len(trie.code[digit]) - 1)]
    scores = search.logp.unsqueeze(-1) + digit_logp.gather(-1, code)
    scores = scores.masked_fill(remaining <= 0, NO_SCORE).flatten(1)
    kept = min(beam, scores.shape[1])
    best = scores.topk(kept, sorted=False).indices.sort(dim=-1).values
    logp, order = scores.gather(1, best).sort(dim=-1, descending=True, stable=True)
    best = best.gather(1, order)

    parents = best // width
    search.logp = logp
    search.node = children.flatten(1).gather(1, best)
    search.node = search.node.clamp(max=len(trie.code[digit]) - 1)  # dead beams stay inside
    search.code = code.flatten(1).gather(1, best)
    search.taken = search.taken.gather(
        1, parents.unsqueeze(-1).expand(-1, -1, search.taken.shape[2])
    )
    return parents


def _removed_leaves(
    trie: Trie, exclude: Tensor | None, batch: int, device: torch.device
) -> Tensor | None:
    """Excluded leaves (B, E) sorted, each once; padding and repeats lie beyond the last leaf."""
    if exclude is None or exclude.shape[1] == 0:
        return None
    if exclude.dim() != 2 or len(exclude) != batch:
        raise ValueError(f"exclude has shape {tuple(exclude.shape)}: use ({batch}, items)")
    check_items(exclude, trie.num_items, "exclude")
    beyond = trie.num_leaves + 1
    leaves = trie.leaves(exclude.to(device).long())
    leaves = leaves.masked_fill(leaves < 0, beyond).sort(dim=1).values
    repeated = F.pad(leaves[:, 1:] == leaves[:, :-1], (1, 0), value=False)
    return leaves.masked_fill(repeated, beyond).sort(dim=1).values


def _check(model: OneRec, codes: Tensor, trie: Trie, num_items: int, beam: int) -> None:
    if codes.shape != (trie.num_items, trie.num_digits):
        raise ValueError(
            f"codes has shape {tuple(codes.shape)}, but the trie was built from "
            f"({trie.num_items}, {trie.num_digits}): use the same semantic IDs for both"
        )
    if trie.num_digits != model.num_digits or trie.codebook_size != model.codebook_size:
        raise ValueError(
            f"semantic IDs of {trie.num_digits} digits from {trie.codebook_size} codes: the model "
            f"was built for {model.num_digits} digits from {model.codebook_size}; use its own "
            "tokenizer generation"
        )
    if not 1 <= num_items <= model.session_items:
        raise ValueError(f"num_items={num_items}: use 1 to session_items={model.session_items}")
    if beam < 1:
        raise ValueError(f"beam={beam}: use at least 1")
