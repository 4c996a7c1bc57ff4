"""Constrained ancestral sampling of whole sessions.

A draw walks the same trie as a beam. At every token it chooses among the children with an allowed
item below them, with the model's probabilities over just those children: so every draw is legal,
free of repeats, and can always be finished.

Shapes: B batch, K draws of each user, W children considered, M items, E excluded, T SID tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from onerec.config import require
from onerec.generation.beam import Beams, check_session
from onerec.generation.trie import Trie
from onerec.model import Histories, OneRec, check_items, encode_items


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How sessions are drawn.

    Attributes:
        num_samples: K; draws of one user may be alike.
        temperature: Logits are divided by it; above 1 draws less probable sessions.

    Raises:
        ValueError: There is nothing to draw, or the temperature is not positive.
    """

    num_samples: int
    temperature: float = 1.0

    def __post_init__(self) -> None:
        require(self.num_samples >= 1, "num_samples", self.num_samples, "use at least 1")
        require(
            self.temperature > 0,
            "temperature",
            self.temperature,
            "use a positive number, 1 is the model's own",
        )


@torch.no_grad()
def sample_sessions(
    model: OneRec,
    history: Histories,
    codes: Tensor,
    trie: Trie,
    *,
    num_items: int,
    sampling: Sampling,
    generator: torch.Generator,
    exclude: Tensor | None = None,
) -> Beams:
    """Independent draws of sessions of each user.

    Args:
        model: The generator; its training mode is left alone, so call `eval()` first.
        history: (B, H) item indices, oldest first, -1 padded.
        codes: (N, T) semantic IDs.
        trie: The items that may be generated, built from the same codes.
        num_items: M, items of a session.
        sampling: Draws per user, and temperature.
        generator: On the CPU, so that a device changes no draw but by rounding.
        exclude: (B, E) item indices that a user must not get, -1 padded.

    Returns:
        Draws in the order they were made, -1 and -inf where too few items are allowed for a
        session. `logp` is under the model's softmax over all codes at temperature 1, as everywhere
        else, not the probability of the draw.

    Raises:
        ValueError: `num_items`, codes or `exclude` outside what the model and the trie cover.
    """
    check_session(model, codes, trie, num_items)
    device, batch, num_samples = model.device, len(history), sampling.num_samples
    state = model.start_decoding(model.encode(*encode_items(model, history, codes)))
    gone = _gone_leaves(trie, exclude, batch, num_samples, num_items, device)
    logp = torch.zeros(batch, num_samples, dtype=model.dtype, device=device)
    code: Tensor | None = None
    for slot in range(num_items):
        node = torch.zeros(batch, num_samples, dtype=torch.long, device=device)
        for level in range(trie.num_sid_tokens):
            if (slot, level) == (0, 1):  # all draws share what came before the first choice
                state.reorder(torch.zeros(batch, num_samples, dtype=torch.long, device=device))
            logits = model.step(state, slot=slot, level=level, previous=code)
            child, alive = _children(trie, level, node, gone)
            sid_tokens = trie.code[level][child]
            wide = logits.expand(-1, num_samples, -1)
            tempered = wide.gather(-1, sid_tokens).double() / sampling.temperature
            pick = _draw(tempered.masked_fill(~alive, -torch.inf), generator)
            code = sid_tokens.gather(-1, pick).squeeze(-1)
            node = child.gather(-1, pick).squeeze(-1)
            found = wide.log_softmax(-1).gather(-1, code.unsqueeze(-1)).squeeze(-1)
            logp = torch.where(alive.any(-1), logp + found, -torch.inf)
        gone[..., slot] = node  # at the last depth a node is a leaf
    found = logp.isfinite()
    items = torch.where(found.unsqueeze(-1), trie.leaf_items[gone[..., :num_items]], -1)
    return Beams(items, logp)


def _draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """(B, K, 1) draws from the softmax of logits (B, K, W): the argmax with Gumbel noise added."""
    uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
    noise = -(-uniform.clamp(min=1e-300).log()).log()
    return (logits + noise.to(logits.device)).argmax(-1, keepdim=True)


def _children(trie: Trie, level: int, node: Tensor, gone: Tensor) -> tuple[Tensor, Tensor]:
    """Children (B, K, W) of nodes (B, K) at a depth, and which of them have an item to give."""
    starts = trie.first_child[level]
    first, last = starts[node].unsqueeze(-1), starts[node + 1].unsqueeze(-1)
    child = first + torch.arange(trie.max_children[level], device=node.device)
    inside = child < last
    child = torch.minimum(child, last - 1)
    low, high = trie.first_leaf[level + 1][child], trie.first_leaf[level + 1][child + 1]
    ordered = gone.sort(-1).values
    used = torch.searchsorted(ordered, high) - torch.searchsorted(ordered, low)
    return child, inside & (used < high - low)


def _gone_leaves(
    trie: Trie, exclude: Tensor | None, batch: int, draws: int, num_items: int, device: torch.device
) -> Tensor:
    """(B, K, M + E) leaves that a draw may not use: its own session's, then the excluded ones.

    Places not in use, and repeats, hold a number beyond the last leaf.
    """
    beyond = trie.num_leaves + 1
    own = torch.full((batch, draws, num_items), beyond, device=device)
    if exclude is None:
        return own
    if exclude.dim() != 2 or len(exclude) != batch:
        raise ValueError(f"exclude has shape {tuple(exclude.shape)}: use ({batch}, items)")
    check_items(exclude, trie.num_items, "exclude")
    leaves = trie.leaves(exclude.to(device).long())
    leaves = leaves.masked_fill(leaves < 0, beyond).sort(1).values
    repeated = torch.zeros_like(leaves, dtype=torch.bool)
    repeated[:, 1:] = leaves[:, 1:] == leaves[:, :-1]
    leaves = leaves.masked_fill(repeated, beyond)
    return torch.cat([own, leaves.unsqueeze(1).expand(-1, draws, -1)], -1)
