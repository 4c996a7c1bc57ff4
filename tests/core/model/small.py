"""Generators small enough to check exhaustively. Float64, so that equal means equal."""

from typing import Any

import torch
from torch import Tensor

from onerec.config import ModelConfig
from onerec.generation import Trie, rank_items, score_items
from onerec.model import OneRec

LAZY: dict[str, Any] = {"architecture": "lazy_decoder"}
"""The second architecture; `small_model(**LAZY)`."""


def small_model(
    *,
    codebook_size: int = 4,
    num_sid_tokens: int = 3,
    history_length: int = 6,
    session_items: int = 3,
    seed: int = 0,
    **config: Any,
) -> OneRec:
    shape: dict[str, Any] = {
        "d_model": 16,
        "num_heads": 2,
        "d_ff": 24,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "num_experts": 3,
        "active_experts": 2,
        "dropout": 0.0,
    }
    torch.manual_seed(seed)
    model = OneRec(
        ModelConfig(**(shape | config)),
        codebook_size=codebook_size,
        num_sid_tokens=num_sid_tokens,
        history_length=history_length,
        session_items=session_items,
    )
    return model.double().eval()


def unique_codes(num_items: int, codebook_size: int, num_sid_tokens: int, seed: int = 0) -> Tensor:
    """(N, T) unique semantic IDs, drawn from all there are."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randperm(codebook_size**num_sid_tokens, generator=generator)[:num_items]
    powers = codebook_size ** torch.arange(num_sid_tokens).flip(0)
    return ids.unsqueeze(1) // powers % codebook_size


def histories(*rows: list[int], length: int = 6) -> Tensor:
    """Item indices, right-padded with -1."""
    return torch.tensor([row + [-1] * (length - len(row)) for row in rows])


def assert_lists_are_sorted_by(
    scores: Tensor, model: OneRec, history: Tensor, codes: Tensor, trie: Trie
) -> None:
    """Whole lists, the first item alone and the score of a given item follow scores (B, N)."""
    num_items = scores.shape[1]
    expected, order = scores.sort(dim=1, descending=True)
    items, found = rank_items(model, history, codes, trie, top_k=num_items, beam=num_items)
    assert torch.equal(items, order)
    torch.testing.assert_close(found, expected)
    again = score_items(model, history, items[:, :1], codes, trie)
    torch.testing.assert_close(again, expected[:, :1])
    first, _ = rank_items(model, history, codes, trie, top_k=1, beam=num_items)
    assert torch.equal(first, order[:, :1])
