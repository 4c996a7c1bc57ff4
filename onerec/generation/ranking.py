"""How a session generator becomes a ranked list, and the exact scores against which it is checked.

The list is written down here once: items by the log-probability of being the session's first item,
plus what is added to it: a prior of the trie's, the dense head's part, and item neighbours'.

Shapes: B batch, H history items, N items, T SID tokens, V nodes of one depth, C codes.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from onerec.generation.beam import (
    NO_SCORE,
    added_scores,
    check_search,
    check_width,
    filtered_view,
    generated_share,
    read_histories,
    search,
)
from onerec.generation.trie import Trie
from onerec.model import DecoderState, Histories, Memory, OneRec, item_logp, items_of
from onerec.ranked_lists import RankedLists, exclude_scores

CONTENT_SIMILARITY = 5.0
"""Weight of how like the history a new item is, beside its log-probability by content. Chosen with
`SOFTNESS` on the validation days of the simulated app and MovieLens (docs/log.md, 2026-11-29).
"""
SIMILARITIES_AT_ONCE = 1 << 24
"""Cosines of users' history items with new items that are in memory together."""


@torch.no_grad()
def rank_items(
    model: OneRec,
    history: Histories,
    codes: Tensor,
    trie: Trie,
    *,
    top_k: int,
    beam: int,
    exclude: Tensor | None = None,
    allowed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Each user's best first items, by beam search.

    Args:
        model, history, codes, trie, exclude, allowed: As in `generate_sessions`.
        top_k: Length of the list.
        beam: Beams kept; at least `top_k` are, where there are as many items.

    Returns:
        (B, top_k) item indices, -1 where fewer are legal, and their log-probabilities (B, top_k)
        plus what is added to them (`added_scores`), -inf there.

    Raises:
        ValueError: As in `generate_sessions`; more beams than items may be generated.
    """
    if top_k < 1:
        raise ValueError(f"top_k={top_k}: use at least 1")
    check_search(model, codes, trie, 1, beam)
    view = filtered_view(trie, len(history), exclude, allowed)
    check_width(view, beam)
    memory = read_histories(model, history, codes)

    width = min(max(beam, top_k), view.size)
    found = search(model, memory, trie, view, num_items=1, beam=width)
    short = max(top_k - width, 0)
    return (
        F.pad(found.items[:, :top_k, 0], (0, short), value=-1),
        F.pad(found.logp[:, :top_k], (0, short), value=NO_SCORE),
    )


def rank_first_items(
    model: OneRec,
    histories: Histories,
    codes: Tensor,
    trie: Trie,
    *,
    top_k: int,
    beam: int,
    batch_size: int,
    exclude: np.ndarray | None = None,
) -> RankedLists:
    """`rank_items` for any number of users, `batch_size` at a time.

    Args:
        model, codes, trie, top_k, beam: As in `rank_items`; of one device.
        histories: (C, H) item indices, oldest first, -1 padded; of any device. `UserHistories`
            where users are known.
        batch_size: Users of a batch.
        exclude: (C, E) item indices that a user must not get, -1 padded.

    Returns:
        The lists with their log-probabilities, plus what is added to them.
    """
    items = np.full((len(histories), top_k), -1, dtype=np.int64)
    logp = np.full((len(histories), top_k), NO_SCORE)
    for start in range(0, len(histories), batch_size):
        part = slice(start, start + batch_size)
        found = rank_items(
            model,
            histories[part].to(model.device),
            codes,
            trie,
            top_k=top_k,
            beam=beam,
            exclude=None if exclude is None else torch.from_numpy(exclude[part]),
        )
        items[part], logp[part] = found[0].cpu().numpy(), found[1].double().cpu().numpy()
    return RankedLists(items, logp)


@torch.no_grad()
def rank_by_content(
    model: OneRec,
    history: Histories,
    codes: Tensor,
    allowed: Tensor,
    *,
    top_k: int,
    prior: Tensor | None = None,
    exclude: np.ndarray | None = None,
) -> tuple[Tensor, Tensor]:
    """Each user's best items by content: the dense head without its learned embeddings, and how
    like the history's items they are.

    Learned embeddings of items that have hardly been shown have learned as negatives only that
    nobody watches them; the projection of what is known of an item carries over to new ones.

    Args:
        model: With a dense head, in evaluation mode.
        history: (B, H) item indices, oldest first, -1 padded.
        codes: (N, T) semantic IDs.
        allowed: (N,) bool, items that may be listed.
        top_k: Length of the lists; they are shorter where the catalogue is.
        prior: (N,) added to the log-probabilities.
        exclude: (B, E) item indices that a user must not get, -1 padded.

    Returns:
        (B, top_k) item indices, -1 where fewer are allowed, and their log-probabilities plus prior
        plus `CONTENT_SIMILARITY` times `DenseHead.similarity` to the history, -inf there.
    """
    assert model.dense is not None, "content is what a dense head reads"
    memory = read_histories(model, history, codes)
    scores = model.dense_logits(memory, model.dense.content()).log_softmax(-1)
    read = items_of(history).to(scores.device)
    for part in allowed.nonzero()[:, 0].split(max(SIMILARITIES_AT_ONCE // max(read.numel(), 1), 1)):
        scores[:, part] += CONTENT_SIMILARITY * model.dense.similarity(read, part)
    if prior is not None:
        scores = scores + prior
    scores = scores.masked_fill(~allowed, NO_SCORE)
    exclude_scores(scores, exclude)
    scores, items = (v[:, :top_k] for v in scores.sort(dim=1, descending=True, stable=True))
    return items.masked_fill(scores == NO_SCORE, -1), scores


@torch.no_grad()
def score_items(
    model: OneRec, history: Histories, items: Tensor, codes: Tensor, trie: Trie
) -> Tensor:
    """The scores of lists for items of sessions (B, M), -1 padded: log-probability of each given
    the history and the items before it, plus what is added to it (`added_scores`)."""
    scores = generated_share(model) * item_logp(model, history, items, codes)
    added = added_scores(model, read_histories(model, history, codes), trie)
    if added is None:
        return scores
    at = items.clamp(min=0).to(added.device)
    return scores + (added[at] if added.dim() == 1 else added.gather(1, at))


@torch.no_grad()
def score_catalogue(
    model: OneRec, history: Histories, codes: Tensor, *, chunk: int = 65_536
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
    memory = read_histories(model, history, codes)
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
    for level in range(trie.num_sid_tokens):
        # the nodes of the next depth above this stretch, and their parents among those before
        start, stop = (
            torch.searchsorted(trie.first_leaf[level + 1], ends, right=True) - 1
        ).tolist()
        nodes = torch.arange(start, stop + 1, device=device)
        parents = torch.searchsorted(trie.first_child[level], nodes, right=True) - 1 - low
        logits = model.step(state, slot=0, level=level, previous=previous)
        code = trie.code[level][nodes]
        logp = logp[:, parents] + logits.log_softmax(-1)[:, parents, code]
        previous, low = code.expand(batch, -1), start
        if level + 1 < trie.num_sid_tokens:
            state.reorder(parents.expand(batch, -1))
    return logp
