"""Transformer blocks: pre-normalised T5-style layers over `scaled_dot_product_attention`.

Letters: B batch, K beams (parallel sessions of one user), S memory tokens, X new tokens, P past
tokens, D width, R = B * K rows, N heads.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onerec.model.moe import FeedForward, SparseMoE


class KeyValue(NamedTuple):
    """Keys and values of one attention layer, each (R or B, N, tokens, D // N)."""

    keys: Tensor
    values: Tensor

    def rows(self, index: Tensor) -> "KeyValue":
        """These keys and values with their rows picked (or repeated) by `index` (R',)."""
        return KeyValue(self.keys.index_select(0, index), self.values.index_select(0, index))


def _heads(x: Tensor, num_heads: int) -> Tensor:
    """(R, X, D) -> (R, N, X, D // N)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _merged(x: Tensor) -> Tensor:
    """(R, N, X, D // N) -> (R, X, D)."""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head self-attention. Attention weights are not dropped: the residual branch is."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.project = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Fully visible attention. x (B, X, D), mask (B, 1, 1, X) true where visible."""
        queries, keys, values = self.project(x).chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(
            _heads(queries, self.num_heads),
            _heads(keys, self.num_heads),
            _heads(values, self.num_heads),
            attn_mask=mask,
        )
        return self.out(_merged(attended))

    def causal(self, x: Tensor, past: KeyValue | None) -> tuple[Tensor, KeyValue]:
        """Causal attention of new tokens x (R, X, D) over the past and themselves."""
        queries, keys, values = self.project(x).chunk(3, dim=-1)
        queries = _heads(queries, self.num_heads)
        keys, values = _heads(keys, self.num_heads), _heads(values, self.num_heads)
        if past is None:
            attended = F.scaled_dot_product_attention(
                queries, keys, values, is_causal=x.shape[1] > 1
            )
        else:
            keys = torch.cat([past.keys, keys], dim=2)
            values = torch.cat([past.values, values], dim=2)
            new, total = x.shape[1], keys.shape[2]
            visible = None  # one new token sees everything before it
            if new > 1:
                visible = torch.ones(new, total, dtype=torch.bool, device=x.device)
                visible = visible.tril(total - new)
            attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible)
        return self.out(_merged(attended)), KeyValue(keys, values)


class CrossAttention(nn.Module):
    """Attention over the encoder's memory, whose keys and values are computed once per user."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.project = nn.Linear(d_model, 2 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def memory(self, states: Tensor) -> KeyValue:
        """Keys and values of the encoder states (B, S, D)."""
        keys, values = self.project(states).chunk(2, dim=-1)
        return KeyValue(
            _heads(keys, self.num_heads).contiguous(), _heads(values, self.num_heads).contiguous()
        )

    def forward(self, x: Tensor, memory: KeyValue, mask: Tensor) -> Tensor:
        """x (B, any, D) over memory with mask (B, 1, 1, S); beams are just more queries."""
        attended = F.scaled_dot_product_attention(
            _heads(self.query(x), self.num_heads), memory.keys, memory.values, attn_mask=mask
        )
        return self.out(_merged(attended))


class EncoderBlock(nn.Module):
    """Fully visible self-attention and a dense feed-forward layer."""

    def __init__(self, d_model: int, num_heads: int, d_ff: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(d_model, eps=1e-6)
        self.attention = SelfAttention(d_model, num_heads)
        self.feed_norm = nn.RMSNorm(d_model, eps=1e-6)
        self.feed = FeedForward(d_model, d_ff)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        return x + self.dropout(self.feed(self.feed_norm(x)))


class DecoderBlock(nn.Module):
    """Causal self-attention, cross-attention over the memory, and a (sparse) feed-forward layer."""

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        *,
        num_experts: int,
        active_experts: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(d_model, eps=1e-6)
        self.attention = SelfAttention(d_model, num_heads)
        self.cross_norm = nn.RMSNorm(d_model, eps=1e-6)
        self.cross = CrossAttention(d_model, num_heads)
        self.feed_norm = nn.RMSNorm(d_model, eps=1e-6)
        self.feed = (
            FeedForward(d_model, d_ff)
            if num_experts == 1
            else SparseMoE(d_model, d_ff, num_experts=num_experts, active_experts=active_experts)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, past: KeyValue | None, memory: KeyValue, memory_mask: Tensor
    ) -> tuple[Tensor, KeyValue]:
        """New tokens x (B, K, X, D) after `past` (B * K rows) -> the same shape, and the cache."""
        batch, beams, new, _ = x.shape
        rows = x.flatten(0, 1)
        attended, present = self.attention.causal(self.attention_norm(rows), past)
        rows = rows + self.dropout(attended)
        queries = rows.view(batch, beams * new, -1)
        crossed = self.cross(self.cross_norm(queries), memory, memory_mask)
        queries = queries + self.dropout(crossed)
        fed = queries + self.dropout(self.feed(self.feed_norm(queries)))
        return fed.view(batch, beams, new, -1), present
