"""How a session generator becomes a ranked list, and the exact scores that audit it.

The list is written down here once: items by the log-probability of being the session's first item.

Letters: B batch, H history items, N items, T digits, V nodes of one depth, C codes.
"""

import torch
from torch import Tensor

from onerec.generation.beam import generate_sessions
from onerec.generation.trie import Trie
from onerec.model import DecoderState, Memory, OneRec, encode_items


def rank_items(
    model: OneRec,
    history: Tensor,
    codes: Tensor,
    trie: Trie,
    *,
    top_k: int,
    beam: int,
    exclude: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Each user's best first items, by beam search.

    Args:
        model, history, codes, trie, exclude: As in `generate_sessions`.
        top_k: Length of the list.
        beam: Beams kept; at least `top_k` are.

    Returns:
        (B, top_k) item indices, -1 where fewer are legal, and their log-probabilities (B, top_k),
        -inf there.
    """
    if top_k < 1:
        raise ValueError(f"top_k={top_k}: use at least 1")
    beams = generate_sessions(
        model, history, codes, trie, num_items=1, beam=max(beam, top_k), exclude=exclude
    )
    return beams.items[:, :top_k, 0], beams.logp[:, :top_k]


@torch.no_grad()
def score_catalogue(
    model: OneRec, history: Tensor, codes: Tensor, *, chunk: int = 65_536
) -> Tensor:
    """Exact log-probability of every item as the session's first: the audit of beam search.

    Walks the trie level by level, so that a shared prefix is computed once. Items are taken in
    stretches of neighbouring leaves, to bound memory.

    Args:
        model: The generator, in evaluation mode.
        history: (B, H) item indices, oldest first, -1 padded.
        codes: (N, T) semantic IDs.
        chunk: The most prefixes in flight at once, over all users of a pass.

    Returns:
        (B, N) log-probabilities under the model's softmax over all codes.
    """
    trie = Trie.build(codes.to(model.device), model.codebook_size)
    memory = model.encode(*encode_items(model, history, codes))
    leaves = min(trie.num_leaves, chunk)
    users = max(chunk // leaves, 1)
    scores = torch.empty(len(history), trie.num_leaves, dtype=model.dtype, device=model.device)
    for low in range(0, len(history), users):
        part = Memory(memory.states[low : low + users], memory.mask[low : low + users])
        for leaf in range(0, trie.num_leaves, leaves):
            stretch = range(leaf, min(leaf + leaves, trie.num_leaves))
            items = trie.leaf_items[stretch.start : stretch.stop]
            scores[low : low + users, items] = _stretch_logp(model, part, trie, stretch)
    return scores


def _stretch_logp(model: OneRec, memory: Memory, trie: Trie, stretch: range) -> Tensor:
    """Log-probability (B, leaves) of a run of leaves, through the nodes above them."""
    state: DecoderState = model.start_decoding(memory)
    batch, device = len(memory.mask), model.device
    ends = torch.tensor([stretch.start, stretch.stop - 1], device=device)
    logp = torch.zeros(batch, 1, dtype=model.dtype, device=device)
    previous, low = None, 0
    for digit in range(trie.num_digits):
        # the nodes of the next depth above this stretch, and their parents among those before
        start, stop = (
            torch.searchsorted(trie.first_leaf[digit + 1], ends, right=True) - 1
        ).tolist()
        nodes = torch.arange(start, stop + 1, device=device)
        parents = torch.searchsorted(trie.first_child[digit], nodes, right=True) - 1 - low
        logits = model.step(state, slot=0, digit=digit, previous=previous)
        code = trie.code[digit][nodes]
        logp = logp[:, parents] + logits.log_softmax(-1)[:, parents, code]
        previous, low = code.expand(batch, -1), start
        if digit + 1 < trie.num_digits:
            state.reorder(parents.expand(batch, -1))
    return logp
