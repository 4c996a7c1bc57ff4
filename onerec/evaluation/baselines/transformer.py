"""SASRec and BERT4Rec: transformers over a history that score the whole catalogue.

Shapes: B users, L items of a sequence, S = L + 1 tokens with the start token, N items, D width.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from onerec.artifacts import read_json, write_json
from onerec.evaluation.recency import NOT_CHOSEN, ChosenPrior
from onerec.ranked_lists import RankedLists, exclude_scores, last_items, narrowed

BlockKind = Literal["transformer", "ligr"]
"""The usual pre-norm transformer, or LiGR: gated branches and a SwiGLU (eSASRec, 2025)."""
SCORED_AT_ONCE = 8_000_000
"""Scores held at once when lists are made; bounds memory, changes nothing else."""


@dataclass(frozen=True, kw_only=True)
class SequenceShape:
    """Shape of a sequence model.

    Attributes:
        num_items: N.
        length: L, the most items of a sequence.
        width: D.
        layers: Transformer blocks.
        heads: Attention heads.
        dropout: Dropout.
        causal: Left to right (SASRec), or all at once around a mask (BERT4Rec).
        block: Kind of the blocks.
    """

    num_items: int
    length: int
    width: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.2
    causal: bool = True
    block: BlockKind = "transformer"


class GatedBlock(nn.Module):
    """LiGR: both branches of a pre-norm block pass a gate that their own input opens."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.norm_attention, self.norm_hidden = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.gate_up = (nn.Linear(width, 4 * width) for _ in range(2))
        self.down = nn.Linear(4 * width, width)
        self.gate_attention, self.gate_hidden = (nn.Linear(width, width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """As `nn.TransformerEncoderLayer`: (B, S, D) to (B, S, D)."""
        read = self.norm_attention(x)
        attended, _ = self.attention(
            read,
            read,
            read,
            attn_mask=src_mask,
            key_padding_mask=src_key_padding_mask,
            need_weights=False,
        )
        x = x + self.dropout(attended) * self.gate_attention(x).sigmoid()
        read = self.norm_hidden(x)
        hidden = self.down(self.dropout(nn.functional.silu(self.gate_up(read)) * self.up(read)))
        return x + self.dropout(hidden) * self.gate_hidden(x).sigmoid()


class SequenceModel(nn.Module):
    """Item embeddings, positions, transformer blocks; scores are products with the embeddings.

    A start token heads every sequence, so an empty history is legal and is ranked by what the model
    has learned to expect first. Item N is the mask of BERT4Rec.
    """

    def __init__(self, shape: SequenceShape) -> None:
        super().__init__()
        self.shape = shape
        self.items = nn.Embedding(shape.num_items + 1, shape.width)
        self.start = nn.Parameter(torch.zeros(shape.width))
        self.positions = nn.Embedding(shape.length + 1, shape.width)
        self.blocks = nn.ModuleList(_block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.dropout = nn.Dropout(shape.dropout)
        nn.init.normal_(self.items.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, sequence: Tensor) -> Tensor:
        """Hidden states after the start token and after each item.

        Args:
            sequence: (B, L') item indices, oldest first, -1 padded on the right; N is the mask.

        Returns:
            (B, L' + 1, D); anything at padding.
        """
        there = sequence >= 0
        x = self.items(sequence.clamp(min=0)) * self.shape.width**0.5
        x = torch.cat([self.start.expand(len(x), 1, -1), x], 1)
        x = self.dropout(x + self.positions.weight[: x.shape[1]])
        size = x.shape[1]
        # Padding is on the right, so a causal model never looks at it.
        later = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)
        absent = torch.cat([torch.zeros_like(there[:, :1]), ~there], 1)
        for block in self.blocks:
            if self.shape.causal:
                x = block(x, src_mask=later)
            else:
                x = block(x, src_key_padding_mask=absent)
        return self.norm(x)

    def scores(self, hidden: Tensor) -> Tensor:
        """(..., D) hidden states to (..., N) scores of the items."""
        return hidden @ self.items.weight[: self.shape.num_items].T

    def next_hidden(self, history: Tensor) -> Tensor:
        """(B, D) the state that scores what comes after right-padded histories (B, H)."""
        causal, length = self.shape.causal, self.shape.length
        sequence = last_items(history, length if causal else length - 1)
        count = (sequence >= 0).sum(1, keepdim=True)
        if causal:
            place = count
        else:
            sequence = nn.functional.pad(sequence, (0, 1), value=-1)
            sequence = sequence.scatter(1, count, self.shape.num_items)
            place = count + 1
        hidden = self(sequence)
        return hidden.gather(1, place[..., None].expand(-1, -1, hidden.shape[-1])).squeeze(1)


def grown(model: SequenceModel, num_items: int) -> SequenceModel:
    """The same model for a catalogue that items were appended to, which have random embeddings; in
    evaluation mode."""
    known, larger = model.shape.num_items, SequenceModel(replace(model.shape, num_items=num_items))
    weights, items = model.state_dict(), larger.items.weight.detach().clone()
    items[:known], items[-1] = weights["items.weight"][:known], weights["items.weight"][-1]
    larger.load_state_dict({**weights, "items.weight": items})
    return larger.eval()


def _block(shape: SequenceShape) -> nn.Module:
    if shape.block == "ligr":
        return GatedBlock(shape.width, shape.heads, shape.dropout)
    return nn.TransformerEncoderLayer(
        shape.width,
        shape.heads,
        4 * shape.width,
        shape.dropout,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )


@dataclass(frozen=True)
class SequenceRanker:
    """A trained sequence model over the candidates of a day; a `Ranker`.

    Attributes:
        model: In evaluation mode.
        candidates: (N,) booleans: items that may be listed.
        recency_prior: What `FittedBaselines.rankers` adds to its scores.
    """

    model: SequenceModel
    candidates: np.ndarray
    recency_prior: ChosenPrior = NOT_CHOSEN

    @torch.no_grad()
    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`; the score is the model's logit."""
        device = self.model.start.device
        allowed = torch.from_numpy(narrowed(self.candidates, candidates)).to(device)
        width = min(top_k, int(allowed.sum()))
        rows = torch.from_numpy(np.ascontiguousarray(histories)).long().to(device)
        items = np.empty((len(rows), width), dtype=np.int64)
        logits = np.empty((len(rows), width), dtype=np.float32)
        chunk = max(1, SCORED_AT_ONCE // len(self.candidates))
        for start in range(0, len(rows), chunk):
            part = slice(start, start + chunk)
            scores = self.model.scores(self.model.next_hidden(rows[part]))
            scores = scores.masked_fill(~allowed, -torch.inf)
            exclude_scores(scores, None if exclude is None else exclude[part])
            best = scores.topk(width)
            items[part], logits[part] = best.indices.cpu().numpy(), best.values.cpu().numpy()
        return RankedLists.padded(items, logits, top_k)

    def save(self, directory: Path) -> None:
        """Write `model.safetensors`, `config.json` and `recency_prior.json`."""
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.contiguous() for k, v in self.model.state_dict().items()}
        save_file(tensors, str(directory / "model.safetensors"))
        write_json(directory / "config.json", asdict(self.model.shape))
        self.recency_prior.save(directory)


def load_sequence_ranker(directory: Path, candidates: np.ndarray, device: str) -> SequenceRanker:
    """Read what `SequenceRanker.save` wrote, onto a device."""
    model = SequenceModel(SequenceShape(**read_json(directory / "config.json")))
    model.load_state_dict(load_file(str(directory / "model.safetensors")))
    return SequenceRanker(model.to(device).eval(), candidates, ChosenPrior.load(directory))
