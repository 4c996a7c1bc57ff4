"""Transformer blocks: pre-normalised T5-style layers over `scaled_dot_product_attention`.

Shapes: B batch, K beams (parallel sessions of one user), S memory tokens, X new tokens, P past
tokens, D width, R = B * K rows, N heads.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onerec.config import ModelConfig
from onerec.model.cache import Cache
from onerec.model.moe import FeedForward, SparseMoE

FEW_TOKENS = 6
"""Up to as many past tokens per beam, plain sums beat a call of the attention kernel per beam:
0.3 against 1.1 ms at 2 tokens, 0.5 against 1.3 at 4, 5 against 3 at 12 (1,280 beams of width 128,
one core, 2026-11-25)."""


class KeyValue(NamedTuple):
    """Keys and values of the memory for one layer, each (B, N, S, D // N)."""

    keys: Tensor
    values: Tensor


def _heads(x: Tensor, num_heads: int) -> Tensor:
    """(R, X, D) -> (R, N, X, D // N)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _merged(x: Tensor) -> Tensor:
    """(R, N, X, D // N) -> (R, X, D)."""
    return x.transpose(1, 2).flatten(2)


def causal_mask(visible: Tensor) -> Tensor:
    """(B, S) visible tokens -> (B, 1, S, S): every token sees those up to itself."""
    size = visible.shape[1]
    before = torch.ones(size, size, dtype=torch.bool, device=visible.device).tril()
    return visible[:, None, None, :] & before


def _attend_few(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of one query per row (R, N, 1, D // N) over the few tokens P of that row."""
    keys, values = keys.permute(2, 0, 1, 3), values.permute(2, 0, 1, 3)  # as they lie in memory
    scores = torch.linalg.vecdot(keys, queries.squeeze(2)) * keys.shape[-1] ** -0.5  # (P, R, N)
    return (scores.softmax(0).unsqueeze(-1) * values).sum(0).unsqueeze(2)


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
        width = x.shape[-1]
        projected = self.project(x)
        queries, new = projected[..., :width], projected[..., width:]
        if cache is None:
            keys, values = new.chunk(2, dim=-1)
            attended = F.scaled_dot_product_attention(
                _heads(queries, self.num_heads),
                _heads(keys, self.num_heads),
                _heads(values, self.num_heads),
                is_causal=True,
            )
        else:  # rows with the same past are just more queries
            past = cache.append(new, self.num_heads)
            queries = _heads(queries.reshape(len(past.keys), -1, width), self.num_heads)
            if past.mask is None and past.keys.shape[2] <= FEW_TOKENS:
                attended = _attend_few(queries, past.keys, past.values)
            else:
                attended = F.scaled_dot_product_attention(
                    queries, past.keys, past.values, attn_mask=past.mask
                )
        return self.out(_merged(attended).view_as(x))


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

    def forward(self, x: Tensor, memory: KeyValue | Tensor, mask: Tensor) -> Tensor:
        """x (B, any, D) over memory with mask (B, 1, 1, S); beams are just more queries.

        Memory given as the encoder's states (B, S, D) is not projected: `_unprojected` says when
        that is cheaper. The result is the same but for rounding.
        """
        queries = _heads(self.query(x), self.num_heads)
        if isinstance(memory, Tensor):
            return self.out(_merged(self._unprojected(queries, memory, mask)))
        attended = F.scaled_dot_product_attention(
            queries, memory.keys, memory.values, attn_mask=mask
        )
        return self.out(_merged(attended))

    def few(self, queries: int) -> bool:
        """Whether so many queries a user had better read the states than their projections.

        Projecting S states costs 4 S D^2; reading them unprojected 4 S D per query and head, in
        smaller products. So it is `queries * heads` against the width, with a factor for the size.
        """
        return 2 * queries * self.num_heads <= self.query.in_features

    def _unprojected(self, queries: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """(W_k m) . q = m . (W_k' q), and the mean of W_v m is W_v times the mean of m.

        queries (B, N, X, D // N), states (B, S, D) -> (B, N, X, D // N).
        """
        batch, heads, new, size = queries.shape
        to_keys, to_values = self.project.weight.unflatten(0, (2, heads, size))  # (N, D // N, D)
        # heads first: a batched product with (N, ...) weights and nothing expanded to B
        query_states = torch.bmm(queries.transpose(0, 1).flatten(1, 2), to_keys)  # (N, B X, D)
        query_states = (
            query_states.unflatten(1, (batch, new)).transpose(0, 1).flatten(1, 2)
        )  # (B, N X, D)
        shared = states.unsqueeze(1)
        read = F.scaled_dot_product_attention(
            query_states.unsqueeze(1), shared, shared, attn_mask=mask, scale=size**-0.5
        )
        read = (
            read.view(batch, heads, new, states.shape[-1]).transpose(0, 1).flatten(1, 2)
        )  # (N, B X, D)
        values = torch.bmm(read, to_values.transpose(1, 2))  # (N, B X, D // N)
        return values.unflatten(1, (batch, new)).transpose(0, 1)


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
        self, x: Tensor, cache: Cache | None, memory: KeyValue | Tensor, memory_mask: Tensor
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
