"""Transformer blocks: pre-normalised T5-style layers over `scaled_dot_product_attention`.

Letters: B batch, K beams (parallel sessions of one user), S memory tokens, X new tokens, P past
tokens, D width, R = B * K rows, N heads.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onerec.config import ModelConfig
from onerec.model.moe import FeedForward, SparseMoE


class KeyValue(NamedTuple):
    """Keys and values of the memory for one layer, each (B, N, S, D // N)."""

    keys: Tensor
    values: Tensor


class Cache:
    """Keys and values of one layer's past tokens, for every beam.

    Held as (tokens, R, 2 D): a new token is one write at the end, and beams are reordered by one
    gather into a spare buffer of the same size, so that decoding allocates next to nothing.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._data: Tensor | None = None
        self._spare: Tensor | None = None

    def append(self, keys_values: Tensor) -> Tensor:
        """Add new tokens (R, X, 2 D); returns all of them, (P + X, R, 2 D)."""
        rows, new, width = keys_values.shape
        if self._data is None:
            self._data = keys_values.new_empty(self.capacity, rows, width)
        end = self.length + new
        self._data[self.length : end] = keys_values.transpose(0, 1)
        self.length = end
        return self._data[:end]

    def reorder(self, rows: Tensor) -> None:
        """Let row r continue row `rows[r]` (R',); only without gradients."""
        assert self._data is not None, "there is nothing to reorder before the first token"
        shape = (self.capacity, len(rows), self._data.shape[2])
        if self._spare is None or self._spare.shape != shape:
            self._spare = self._data.new_empty(shape)
        torch.index_select(self._data[: self.length], 1, rows, out=self._spare[: self.length])
        self._data, self._spare = self._spare, self._data


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

    def causal(self, x: Tensor, cache: Cache | None) -> Tensor:
        """Causal attention of new tokens x (R, X, D) over themselves and the cached ones."""
        width, new = x.shape[-1], x.shape[1]
        projected = self.project(x)
        queries = _heads(projected[..., :width], self.num_heads)
        if cache is None:
            keys, values = projected[..., width:].chunk(2, dim=-1)
            keys, values = _heads(keys, self.num_heads), _heads(values, self.num_heads)
            attended = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        else:
            past = cache.append(projected[..., width:]).unflatten(-1, (2, self.num_heads, -1))
            keys, values = past.permute(2, 1, 3, 0, 4)  # each (R, N, P + X, D // N)
            visible = None  # one new token sees everything before it
            if new > 1:
                visible = torch.ones(new, cache.length, dtype=torch.bool, device=x.device)
                visible = visible.tril(cache.length - new)
            attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible)
        return self.out(_merged(attended))


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

    @classmethod
    def of(cls, config: ModelConfig, layer: int) -> "DecoderBlock":
        """Block `layer` of `config.decoder_layers`."""
        dense = layer < config.dense_decoder_layers
        return cls(
            config.d_model,
            config.num_heads,
            config.d_ff,
            num_experts=1 if dense else config.num_experts,
            active_experts=1 if dense else config.active_experts,
            dropout=config.dropout,
        )

    def forward(
        self, x: Tensor, cache: Cache | None, memory: KeyValue, memory_mask: Tensor
    ) -> Tensor:
        """New tokens (B, K, X, D), after the cached ones of B * K rows -> the same shape."""
        batch, beams, new, _ = x.shape
        rows = x.flatten(0, 1)
        rows = rows + self.dropout(self.attention.causal(self.attention_norm(rows), cache))
        queries = rows.view(batch, beams * new, -1)
        crossed = self.cross(self.cross_norm(queries), memory, memory_mask)
        queries = queries + self.dropout(crossed)
        fed = queries + self.dropout(self.feed(self.feed_norm(queries)))
        return fed.view(batch, beams, new, -1)
