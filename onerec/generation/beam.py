"""Constrained beam search over whole sessions, batched over users.

At every token a beam may only continue into a child with an allowed item below it: the trie keeps
the result legal, and counts of the items filtered out (`onerec.generation.masks`) or already in the
beam's own session keep it from entering a prefix whose items are all gone. So every beam can always
be finished.

What `added_scores` says is added to the log-probability of every item.

Shapes: B batch, K beams of a step, W children considered per beam, M items, E excluded, N items of
the catalogue, T SID tokens.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from onerec.generation.masks import TrieView, check_filter
from onerec.generation.trie import Trie, best_below
from onerec.model import Histories, Memory, OneRec, encode_items, items_of

NO_SCORE = -torch.inf
SHARED_BEAMS = 256
"""Up to as many beams of a user share their tokens: beyond, a mask of beams against tokens costs
more than a copy of the tokens per beam."""
PER_USER_LEAVES = 2**18
"""Of a trie of more items, excluded ones still count in a prior's part of a prefix: numbers for
each user and node would take more memory (400 MiB for 64 users) than all else of a search."""
ENCODE_USERS = 16
"""Histories read at a time on a CPU: their activations stay in its cache (81 tokens of width 128:
0.21 s for 64 users at once, 0.17 s in four parts; one core, 2026-11-25)."""


class Beams(NamedTuple):
    """Sessions of B users, best first.

    Attributes:
        items: (B, K, M) item indices; -1 where there are fewer legal sessions than beams.
        logp: (B, K) log-probability of each session, mixed with a dense head's where the model has
            a share of it, plus what is added for its items (`added_scores`); -inf where there is
            none.
    """

    items: Tensor
    logp: Tensor


@dataclass
class _Search:
    """The beams of every user between two steps."""

    logp: Tensor  # (B, K)
    node: Tensor  # (B, K), of the depth reached
    taken: Tensor  # (B, K, M) leaves of the session's items so far; -1 later
    # per depth (V_d,) or (B, V_d), the most that is added to an item below a node
    best_added: tuple[Tensor, ...] | None = None
    code: Tensor | None = None  # (B, K), the token chosen last


@torch.no_grad()
def generate_sessions(
    model: OneRec,
    history: Histories,
    codes: Tensor,
    trie: Trie,
    *,
    num_items: int,
    beam: int,
    exclude: Tensor | None = None,
    allowed: Tensor | None = None,
) -> Beams:
    """The most probable sessions of each user, by beam search.

    Args:
        model: The generator; its training mode is left alone, so call `eval()` first.
        history: (B, H) item indices, oldest first, -1 padded. An empty one is legal: the decoder
            then sees the start token alone. `UserHistories` where users are known.
        codes: (N, T) semantic IDs.
        trie: The items that may be generated, built from the same codes.
        num_items: M, items of a session.
        beam: Beams kept. Where a user has fewer legal sessions, the result is padded.
        exclude: (B, E) item indices that a user must not get, -1 padded.
        allowed: (N,) or, with a list per user, (B, N) bool: the only items that may be generated,
            among those of the trie. For a list that many calls share, a trie of its own is faster.

    Returns:
        Sessions of legal items, without repeats, sorted by log-probability under the model's
        softmax over all codes, so that `session_logp` of the same session is the same number, plus
        what `added_scores` adds, once for every item.

    Raises:
        ValueError: Lengths or indices outside what the model and the trie cover, an allow-list that
            allows nothing, or for sessions of one item more beams than items.
    """
    check_search(model, codes, trie, num_items, beam)
    view = filtered_view(trie, len(history), exclude, allowed)
    if num_items == 1:
        check_width(view, beam)
    memory = read_histories(model, history, codes)
    return search(model, memory, trie, view, num_items=num_items, beam=beam)


def search(
    model: OneRec,
    memory: Memory,
    trie: Trie,
    view: TrieView,
    *,
    num_items: int,
    beam: int,
) -> Beams:
    """`generate_sessions` after the checks: `view` is what is legal."""
    batch, device = len(memory.mask), model.device
    # single items have few tokens, which every beam had better hold itself
    state = model.start_decoding(memory, shared=num_items > 1 and beam <= SHARED_BEAMS)
    beams = _Search(
        logp=torch.zeros(batch, 1, dtype=model.dtype, device=device),
        node=torch.zeros(batch, 1, dtype=torch.long, device=device),
        taken=torch.full((batch, 1, num_items), -1, device=device),
        best_added=_best_added(model, memory, trie, view),
    )
    for slot in range(num_items):
        beams.node = torch.zeros_like(beams.node)
        for level in range(trie.num_sid_tokens):
            logits = model.step(state, slot=slot, level=level, previous=beams.code)
            token_logp = generated_share(model) * logits.log_softmax(-1)
            parents = _advance(beams, trie, token_logp, slot, level, beam, view)
            if (slot, level) != (num_items - 1, trie.num_sid_tokens - 1):
                state.reorder(parents)
        beams.taken[:, :, slot] = beams.node  # at the last depth a node is a leaf
    found = beams.logp.isfinite()
    items = torch.where(found.unsqueeze(-1), trie.leaf_items[beams.taken.clamp(min=0)], -1)
    missing = beam - items.shape[1]
    return Beams(
        F.pad(items, (0, 0, 0, missing), value=-1), F.pad(beams.logp, (0, missing), value=NO_SCORE)
    )


def _advance(
    beams: _Search,
    trie: Trie,
    token_logp: Tensor,
    slot: int,
    level: int,
    beam: int,
    view: TrieView,
) -> Tensor:
    """Move every user to the best continuations by one token; returns their parents (B, K')."""
    # enough columns for as many beams as there can be, independent of the rest of the batch
    enough = -(-beam // beams.node.shape[1])
    code, missing = trie.children(level, beams.node, at_least=enough)  # (B, K, W)
    scores = token_logp.gather(-1, code).add_(missing).add_(beams.logp.unsqueeze(-1))
    if beams.best_added is not None:
        scores.add_(_added_step(trie, beams.best_added, level, beams.node, scores.shape[-1]))
    taken = beams.taken[:, :, :slot]
    view.close(scores, level, beams.node, taken)
    width = scores.shape[-1]
    scores = scores.flatten(1)
    kept = min(beam, scores.shape[1])
    best = scores.topk(kept, sorted=False).indices.sort(dim=-1).values
    logp, order = scores.gather(1, best).sort(dim=-1, descending=True, stable=True)
    best = best.gather(1, order)

    parents = best // width
    beams.logp = logp
    node = trie.first_child[level][beams.node.gather(1, parents)] + best % width
    beams.node = node.clamp(max=len(trie.code[level]) - 1)  # dead beams stay inside
    beams.code = code.flatten(1).gather(1, best)
    if slot > 0:
        index = parents.unsqueeze(-1).expand(-1, -1, beams.taken.shape[2])
        beams.taken = beams.taken.gather(1, index)
    elif kept != beams.taken.shape[1]:
        beams.taken = beams.taken[:, :1].repeat(1, kept, 1)
    return parents


def generated_share(model: OneRec) -> float:
    """Share of the generated log-probability in a list's, beside the dense head's."""
    return 1 - model.dense_share if model.mixes_dense else 1.0


def added_scores(model: OneRec, memory: Memory, trie: Trie) -> Tensor | None:
    """What is added to the log-probability of an item, or to its share of it (`generated_share`):
    the trie's prior, the dense head's log-probability times its share, and what item neighbours say
    times their weight.

    Returns:
        (N,), or (B, N) with a dense head or neighbours; None where nothing is added.
    """
    added = trie.prior
    if model.mixes_dense:
        dense = model.dense_share * model.dense_logits(memory).log_softmax(-1)
        added = dense if added is None else dense + added.to(dense)
    if model.neighbours is not None and model.neighbour_weight > 0:
        assert memory.items is not None, "`read_histories` made the memory"
        near = model.neighbours.log_similarity(memory.items, trie.num_items)
        near.mul_(model.neighbour_weight)
        added = near if added is None else near.add_(added)
    return added


def _best_added(
    model: OneRec, memory: Memory, trie: Trie, view: TrieView
) -> tuple[Tensor, ...] | None:
    """The most that is added to an item of the view below each node; None where nothing is."""
    added = added_scores(model, memory, trie)
    if added is None:
        return None
    per_user = added.dim() == 2 or trie.num_leaves <= PER_USER_LEAVES
    barred = view.barred(with_excluded=per_user)
    if barred is None and added.dim() == 1:
        return trie.best_prior
    of_leaves = added[..., trie.leaf_items]
    if barred is None:
        return best_below(trie.first_child, of_leaves)
    best = best_below(trie.first_child, torch.where(barred, -torch.inf, of_leaves))
    # nothing is left below these, so that the view closes them; a number there would be NaN later
    return tuple(most.masked_fill(most == -torch.inf, 0.0) for most in best)


def _added_step(
    trie: Trie, best: tuple[Tensor, ...], level: int, node: Tensor, width: int
) -> Tensor:
    """What each child (B, K, W) of a beam's node (B, K) changes of the most that is added below it.

    The steps of an item sum up to what is added to it. Until then a prefix counts with the best
    item below it that the user may get, so that it is not dropped before that item is reached, nor
    kept for one that never is.
    """
    child = trie.first_child[level][node].unsqueeze(-1) + torch.arange(width, device=node.device)
    child = child.clamp(max=len(trie.code[level]) - 1)
    above, below = best[level], best[level + 1]
    if below.dim() == 1:
        return below[child] - above[node].unsqueeze(-1)
    return below.gather(1, child.flatten(1)).view_as(child) - above.gather(1, node).unsqueeze(-1)


def read_histories(model: OneRec, history: Histories, codes: Tensor) -> Memory:
    """Check and encode histories of item indices (B, H)."""
    users = ENCODE_USERS if model.device.type == "cpu" else max(len(history), 1)
    parts = [model.encode(*encode_items(model, p, codes)) for p in history.split(users)]
    states, masks = [part.states for part in parts], [part.mask for part in parts]
    memory, items = Memory(torch.cat(states), torch.cat(masks)), items_of(history).to(model.device)
    if model.neighbours is not None:
        memory = memory._replace(items=items)
    if model.dense is None or model.dense.encoder is None:
        return memory
    return memory._replace(dense=model.dense.state_after(items))


def filtered_view(
    trie: Trie, batch: int, exclude: Tensor | None, allowed: Tensor | None
) -> TrieView:
    """Check the filters; what is legal."""
    if allowed is not None:
        check_filter(trie, allowed, batch)
    return TrieView.of(trie, allowed, exclude, batch)


def check_width(view: TrieView, beam: int) -> None:
    """A list of single items cannot have more beams than there are items."""
    items = view.size
    if beam > items:
        raise ValueError(
            f"beam={beam}: only {items} items may be generated; use at most as many beams"
        )


def check_search(model: OneRec, codes: Tensor, trie: Trie, num_items: int, beam: int) -> None:
    """Raise `ValueError` unless this search can be made."""
    check_session(model, codes, trie, num_items)
    if beam < 1:
        raise ValueError(f"beam={beam}: use at least 1")


def check_session(model: OneRec, codes: Tensor, trie: Trie, num_items: int) -> None:
    """Raise `ValueError` unless model, semantic IDs and trie belong together."""
    if codes.shape != (trie.num_items, trie.num_sid_tokens):
        raise ValueError(
            f"codes has shape {tuple(codes.shape)}, but the trie was built from "
            f"({trie.num_items}, {trie.num_sid_tokens}): use the same semantic IDs for both"
        )
    if trie.num_sid_tokens != model.num_sid_tokens or trie.codebook_size != model.codebook_size:
        raise ValueError(
            f"semantic IDs of {trie.num_sid_tokens} tokens from {trie.codebook_size} codes: the "
            f"model "
            f"was built for {model.num_sid_tokens} tokens from {model.codebook_size}; use its own "
            "tokenizer version"
        )
    if not 1 <= num_items <= model.session_items:
        raise ValueError(f"num_items={num_items}: use 1 to session_items={model.session_items}")
