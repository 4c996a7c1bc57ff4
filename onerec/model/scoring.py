"""From item indices to codes, losses and log-probabilities.

Shapes: B batch, H history items, M items of a session, T SID tokens, C codes, N catalogue items.
"""

from torch import Tensor
from torch.nn import functional as F

from onerec.model.onerec import OneRec
from onerec.model.user_features import Histories, items_of, users_of


def lookup(codes: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Semantic IDs of items.

    Args:
        codes: (N, T) long.
        items: (...,) integer item indices; -1 is padding.

    Returns:
        (..., T) codes, 0 at padding, and (...,) bool, true where there is an item.

    Examples:
        >>> import torch
        >>> codes = torch.tensor([[1, 2], [3, 4]])
        >>> lookup(codes, torch.tensor([1, -1]))
        (tensor([[3, 4],
                [0, 0]]), tensor([ True, False]))
    """
    mask = items >= 0
    found = codes[items.clamp(min=0).long()]
    return found * mask.unsqueeze(-1), mask


def check_items(items: Tensor, num_items: int, name: str) -> None:
    """Raise `ValueError` unless every index is -1 (padding) or a row of the catalogue."""
    if items.numel() and (int(items.min()) < -1 or int(items.max()) >= num_items):
        raise ValueError(
            f"{name} has item indices in [{int(items.min())}, {int(items.max())}]: use -1 for "
            f"padding or rows of the catalogue, 0 to {num_items - 1}"
        )


EncoderInput = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
"""Arguments of `OneRec.encode`: codes (B, H, T), mask (B, H), with a dense head item vectors
(B, H, D), and codes of known users (B, F)."""


def encoder_input(model: OneRec, history: Histories, codes: Tensor) -> EncoderInput:
    """Look up histories as they are, on one device with the codes (N, T)."""
    items = items_of(history)
    return *lookup(codes, items), model.item_vectors(items), users_of(history)


def encode_items(model: OneRec, history: Histories, codes: Tensor) -> EncoderInput:
    """Check histories of item indices (B, H) and look them up, padded to the model's length.

    Every history gets the same padded length, so that no user's numbers depend on the batch.

    Raises:
        ValueError: A history longer than the model reads, or an index outside the catalogue.
    """
    items = items_of(history)
    if items.shape[1] > model.history_length:
        raise ValueError(
            f"history of {items.shape[1]} items: the model reads at most "
            f"history_length={model.history_length}; keep the most recent ones"
        )
    check_items(items, len(codes), "history")
    padded = F.pad(items, (0, model.history_length - items.shape[1]), value=-1)
    padded, users = padded.to(model.device), users_of(history)
    known = None if users is None else users.to(model.device)
    return *lookup(codes.to(model.device), padded), model.item_vectors(padded), known


def session_nll(logits: Tensor, session_codes: Tensor, session_mask: Tensor) -> Tensor:
    """L_NTP of OneRec v1 (Eq 4): mean negative log-likelihood per predicted token.

    Args:
        logits: (B, M, T, C) or (B, K, M, T, C).
        session_codes: The tokens predicted, the same shape without C.
        session_mask: The same shape without T and C; items where it is false do not count.

    Returns:
        A scalar, in nats; 0 when nothing is predicted.
    """
    chosen = session_mask.nonzero(as_tuple=True)
    per_token = F.cross_entropy(
        logits[chosen].flatten(0, 1), session_codes[chosen].flatten(), reduction="sum"
    )
    return per_token / (session_mask.sum() * session_codes.shape[-1]).clamp(min=1)


def token_logp(logits: Tensor, session_codes: Tensor) -> Tensor:
    """Log-probability of each token under the softmax over all codes, not only the legal ones."""
    return logits.log_softmax(-1).gather(-1, session_codes.unsqueeze(-1)).squeeze(-1)


def session_logp(model: OneRec, history: Histories, sessions: Tensor, codes: Tensor) -> Tensor:
    """Log-probability of sessions: the sum over the tokens of their items.

    Args:
        model: The generator.
        history: (B, H) item indices, oldest first, -1 padded; `UserHistories` where users are
            known.
        sessions: (B, M) item indices, or (B, K, M) for K sessions of each user, -1 padded.
        codes: (N, T) semantic IDs.

    Returns:
        (B,) or (B, K), in nats; padded items add nothing.
    """
    return item_logp(model, history, sessions, codes).sum(-1)


def item_logp(model: OneRec, history: Histories, sessions: Tensor, codes: Tensor) -> Tensor:
    """Log-probability of each item of sessions, given the history and the items before it.

    Args:
        model, history, sessions, codes: As in `session_logp`.

    Returns:
        Of the shape of `sessions`, in nats; 0 for a padded item.
    """
    check_items(sessions, len(codes), "sessions")
    memory = model.encode(*encode_items(model, history, codes))
    session_codes, mask = lookup(codes.to(model.device), sessions.to(model.device))
    logp = token_logp(model.decode(memory, session_codes), session_codes)
    return logp.sum(-1) * mask
