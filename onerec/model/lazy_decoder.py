"""The lazy decoder of OneRec-V2 (arXiv 2508.20900): no encoder, a context that is only projected.

An encoder spends most of a step on history tokens that no loss touches. Here every history token
passes one small projection whose output already is the keys and values of the cross-attention,
shared by groups of layers; all depth is spent on the session's own tokens. Blocks attend to the
context first, then to themselves.

Differences from the paper: tokens are predicted by their own (tied) embeddings after one common
norm, not by a norm and a matrix per position; the session has several items; context features are
the items' tokens and their recency.

Shapes: B users, S context tokens, X queries, D width, N heads, L key-value layers, G key-value
heads.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onerec.config import ModelConfig
from onerec.model.blocks import DecoderBlock, KeyValue
from onerec.model.cache import Cache


def context_width(config: ModelConfig) -> int:
    """Numbers per context token: L x G heads' keys, and as many values where they differ."""
    kinds = 2 if config.context_values else 1
    return kinds * config.context_kv_layers * kv_width(config)


def kv_width(config: ModelConfig) -> int:
    """Numbers of one token's key in one key-value layer."""
    heads = config.context_kv_heads or config.num_heads
    return heads * (config.d_model // config.num_heads)


class ContextProcessor(nn.Module):
    """History tokens (B, S, D) -> every layer's normed keys (and values), (B, S, context width)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = context_width(config)
        self.up = nn.Linear(config.d_model, config.d_model, bias=False)
        self.project = nn.Linear(config.d_model, width, bias=False)
        self.norms = nn.ModuleList(
            nn.RMSNorm(kv_width(config), eps=1e-6) for _ in range(width // kv_width(config))
        )

    def forward(self, tokens: Tensor) -> Tensor:
        chunks = self.project(F.silu(self.up(tokens))).chunk(len(self.norms), dim=-1)
        return torch.cat([n(c) for n, c in zip(self.norms, chunks, strict=True)], dim=-1)


class LazyCrossAttention(nn.Module):
    """Attention over the context: queries are projected, keys and values are a slice of it.

    The heads of a group read the same keys, so a group's heads are just more queries: nothing is
    copied for them.
    """

    def __init__(self, config: ModelConfig, kv_layer: int) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.kv_heads = config.context_kv_heads or config.num_heads
        self.query = nn.Linear(config.d_model, config.d_model, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)
        self.width = kv_width(config)
        self.keys_from = kv_layer * (2 if config.context_values else 1) * self.width
        self.values_from = self.keys_from + (self.width if config.context_values else 0)

    def memory(self, states: Tensor) -> KeyValue:
        """Keys and values (B, G, S, D / N) of this block's key-value layer: views of the states."""
        keys, values = (
            states[..., first : first + self.width]
            .unflatten(-1, (self.kv_heads, -1))
            .transpose(1, 2)
            for first in (self.keys_from, self.values_from)
        )
        return KeyValue(keys, values)

    def forward(self, x: Tensor, memory: KeyValue, mask: Tensor) -> Tensor:
        """x (B, X, D) over the context with mask (B, 1, 1, S); beams are just more queries."""
        batch, length, width = x.shape
        per_group = self.num_heads // self.kv_heads
        queries = self.query(x).view(batch, length, self.kv_heads, per_group, -1)
        queries = queries.permute(0, 2, 3, 1, 4).flatten(2, 3)  # (B, G, N / G * X, D / N)
        attended = F.scaled_dot_product_attention(
            queries, memory.keys, memory.values, attn_mask=mask
        )
        attended = attended.unflatten(2, (per_group, length)).permute(0, 3, 1, 2, 4)
        return self.out(attended.reshape(batch, length, width))


class LazyBlock(DecoderBlock):
    """Cross-attention over the context, causal self-attention, a (sparse) feed-forward layer."""

    @classmethod
    def of(cls, config: ModelConfig, layer: int) -> "LazyBlock":
        """Block `layer` of `config.decoder_layers`."""
        block = cast("LazyBlock", super().of(config, layer))
        kv_layer = layer * config.context_kv_layers // config.decoder_layers
        block.cross = LazyCrossAttention(config, kv_layer)  # pyright: ignore
        return block

    def forward(
        self, x: Tensor, cache: Cache | None, memory: KeyValue | Tensor, memory_mask: Tensor
    ) -> Tensor:
        """New tokens (B, K, X, D), after the cached ones of B * K rows -> the same shape."""
        batch, beams, new, width = x.shape
        queries = x.reshape(batch, beams * new, width)
        crossed = self.cross(self.cross_norm(queries), memory, memory_mask)
        rows = (queries + self.dropout(crossed)).view(batch * beams, new, width)
        rows = rows + self.dropout(self.attention.causal(self.attention_norm(rows), cache))
        rows = rows + self.dropout(self.feed(self.feed_norm(rows)))
        return rows.view(batch, beams, new, width)
