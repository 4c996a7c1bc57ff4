"""Diagnostics of a policy under alignment: KL to its start, and its probability of legal sessions.

Shapes: B users, G sessions of each, H history items, M items of a session, T SID tokens, C codes, W
the most children of a trie's node.
"""

import torch
from torch import Tensor

from onerec.generation import Trie
from onerec.model import Histories, OneRec, encode_items, lookup


@torch.no_grad()
def token_distributions(
    model: OneRec, history: Histories, sessions: Tensor, codes: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (B, G, M, T, C) of every code along sessions, and where items are
    (B, G, M)."""
    memory = model.encode(*encode_items(model, history, codes))
    session_codes, mask = lookup(codes.to(model.device), sessions.to(model.device))
    return model.decode(memory, session_codes).float().log_softmax(-1), mask


def kl_per_token(policy_logp: Tensor, start_logp: Tensor, mask: Tensor) -> Tensor:
    """(B,) exact KL(policy || start) in nats, a mean over the tokens of a user's sessions.

    It is exact in each token, but the tokens before it are those of the sessions given.

    Args:
        policy_logp: (B, G, M, T, C).
        start_logp: (B, G, M, T, C).
        mask: (B, G, M) where there is an item.
    """
    kl = (policy_logp.exp() * (policy_logp - start_logp)).sum(-1).mean(-1)
    return (kl * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)


def legal_mass(policy_logp: Tensor, sessions: Tensor, trie: Trie) -> Tensor:
    """(B,) probability that an item drawn without the trie would be one of the catalogue.

    At each token, the mass on codes that continue the tokens before it; their product over an
    item's tokens, a mean over a user's items. Generation is constrained, so this is not a share of
    wrong recommendations but of probability that the policy wastes.

    Args:
        policy_logp: (B, G, M, T, C).
        sessions: (B, G, M) item indices, -1 padded.
        trie: Of the legal items; sessions hold no others.
    """
    mask = sessions >= 0
    leaf = trie.leaves(sessions.to(trie.leaf_items.device)).clamp(min=0)
    mass = torch.zeros(sessions.shape, dtype=policy_logp.dtype, device=policy_logp.device)
    for level in range(trie.num_sid_tokens):
        node = torch.searchsorted(trie.first_leaf[level], leaf, right=True) - 1
        starts = trie.first_child[level]
        first, last = starts[node].unsqueeze(-1), starts[node + 1].unsqueeze(-1)
        child = first + torch.arange(trie.max_children[level], device=leaf.device)
        code = trie.code[level][torch.minimum(child, last - 1)]
        logp = policy_logp[..., level, :].gather(-1, code)
        mass = mass + logp.masked_fill(child >= last, -torch.inf).logsumexp(-1)
    mask = mask.to(mass.device)
    return (mass.exp() * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
