"""The reward model R(u, S): probabilities of what a user does with a session, one per signal.

Shapes: B batch, H history items, M items of a session, T towers, D width, N items, Dv
    item-vector width.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from onerec.artifacts import read_json, write_json
from onerec.config import RewardConfig
from onerec.config.feedback import VIDEO_SIGNALS, Signal


@dataclass(frozen=True, kw_only=True)
class RewardShape:
    """What the data decides about a reward model.

    Attributes:
        vector_dim: Width of the item vectors it is given.
        num_items: Items it learns an embedding for; later ones have their vector only.
        history_length: Most recent history items that have a place of their own.
        signals: What the towers predict: the order of every tensor's last axis of T.
        missing: Declared signals that have no tower: training blocks of one class only.
    """

    vector_dim: int
    num_items: int
    history_length: int
    signals: tuple[Signal, ...] = VIDEO_SIGNALS
    missing: tuple[str, ...] = ()


class RewardModel(nn.Module):
    """Target-aware item representations, self-attention over the session, a tower per signal.

    OneRec v1, section 3.3.1: `e_i = v_i (.) u`, `h_f = SelfAttention(h)`,
    `r_x = Tower_x(sum_i h_f,i)` for x in swt, vtr, wtr, ltr, or another log's signals. Here `u`
    is what item i finds when it attends over the user's history, and `e_i` mixes `v_i`, `u_i` and
    their product, so that an item's quality for everybody has a way of its own beside its match
    with the user.

    With `target_attention` off, `u` is the same for every item: the history's mean. With
    `history_similarity`, `e_i` also reads the cosines of item i's vector with the history's.

    An item is its frozen vector, handed in with every call and projected, plus a learned embedding.
    Items the model was not trained on, and padding, have a zero embedding.
    """

    def __init__(self, config: RewardConfig, shape: RewardShape) -> None:
        super().__init__()
        width = config.d_model
        self.config, self.shape = config, shape
        self.project = nn.Linear(shape.vector_dim, width)
        self.embed = nn.Embedding(shape.num_items + 1, width, padding_idx=shape.num_items)
        self.recency = nn.Embedding(shape.history_length, width)
        self.no_history = nn.Parameter(torch.zeros(1, 1, width))
        self.over_history = (
            _Attention(width, config.num_heads) if config.target_attention else _Mean(width)
        )
        self.mix = nn.Linear(3 * width + 2 * config.history_similarity, width)
        self.norm = nn.RMSNorm(width)
        self.over_session = _Attention(width, config.num_heads)
        self.towers = nn.ModuleList(_Tower(width, config.dropout) for _ in shape.signals)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.recency.weight, std=0.02)
        nn.init.zeros_(self.embed.weight)  # an item that training never shows stays without one

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What the towers predict."""
        return self.shape.signals

    def forward(self, vectors: Tensor, history: Tensor, sessions: Tensor) -> Tensor:
        """Score sessions.

        Args:
            vectors: (N, Dv) frozen item vectors.
            history: (B, H) item indices, oldest first, -1 where there is none; may be all -1.
            sessions: (B, M) item indices, -1 where there is none.

        Returns:
            (B, T) logits in the order of `signals`.
        """
        seen = history >= 0
        item_BMD = self._items(vectors, sessions)
        past_BHD = self._items(vectors, history) + self.recency(self._age(seen))
        start = self.no_history.expand(len(history), -1, -1)
        memory = torch.cat([start, past_BHD], 1)
        known = F.pad(seen, (1, 0), value=True)
        user_BMD = self.over_history(item_BMD, memory, known[:, None, None, :])
        parts = [item_BMD, user_BMD, item_BMD * user_BMD]
        if self.config.history_similarity:
            parts.append(_similarity(vectors, sessions, history))
        e_BMD = self.dropout(F.gelu(self.mix(torch.cat(parts, -1))))

        shown = sessions >= 0
        # A padding item sees itself, else a session of padding would be a softmax over nothing.
        itself = torch.eye(sessions.shape[1], dtype=torch.bool, device=shown.device)
        visible = shown[:, None, None, :] | itself
        normed = self.norm(e_BMD)
        h_BMD = e_BMD + self.over_session(normed, normed, visible)
        pooled = (h_BMD * shown[..., None]).sum(1)
        return torch.cat([tower(pooled) for tower in self.towers], -1)

    def start_from_base_rates(self, rates: Tensor) -> None:
        """Let an untrained model predict the base rates (T,): rare feedback then trains at once."""
        logits = torch.logit(rates.clamp(1e-4, 1 - 1e-4))
        with torch.no_grad():
            for tower, logit in zip(self.towers, logits, strict=True):
                assert isinstance(tower, _Tower)
                tower.score.bias.fill_(float(logit))

    def _items(self, vectors: Tensor, items: Tensor) -> Tensor:
        """(..., D) representations of item indices; zero where the index is -1."""
        present = (items >= 0)[..., None]
        # Unit vectors have entries of about 1/sqrt(Dv); the projection wants entries of about 1.
        frozen = vectors[items.clamp(min=0)] * vectors.shape[1] ** 0.5
        unknown = self.shape.num_items
        rows = torch.where((items >= 0) & (items < unknown), items, unknown)
        if self.training:  # so that new items, which have no row, are nothing out of the ordinary
            dropped = torch.rand(rows.shape, device=rows.device) < self.config.embedding_dropout
            rows = rows.masked_fill(dropped, unknown)
        return (self.project(frozen) + self.embed(rows)) * present

    def _age(self, seen: Tensor) -> Tensor:
        """(B, H) 0 for the newest history item, 1 for the one before...; padding gets 0."""
        newer = seen.sum(1, keepdim=True) - seen.cumsum(1)
        return newer.clamp(0, self.shape.history_length - 1)


def _similarity(vectors: Tensor, items: Tensor, history: Tensor) -> Tensor:
    """(B, M, 2) mean and largest cosine of each item with a history; 0 where there is none.

    Cosines of unrelated unit vectors are about 1/sqrt(Dv); they are scaled to be about 1.
    """
    item, past = (F.normalize(vectors[x.clamp(min=0)], dim=-1) for x in (items, history))
    cosine = item @ past.transpose(1, 2) * vectors.shape[1] ** 0.5
    known = ((items >= 0)[:, :, None] & (history >= 0)[:, None, :]).to(cosine.dtype)
    mean = (cosine * known).sum(-1) / known.sum(-1).clamp(min=1)
    largest = torch.where(known > 0, cosine, -torch.inf).amax(-1) if history.shape[1] else mean
    return torch.stack([mean, largest.nan_to_num(neginf=0.0)], -1)


class _Attention(nn.Module):
    """Multi-head attention of (B, Q, D) over (B, C, D) where `mask` (B, 1, Q or 1, C) allows."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        q, (k, v) = self.query(queries), self.key_value(context).chunk(2, -1)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))


class _Mean(nn.Module):
    """Mean pooling in place of `_Attention`: the ablation of target-aware attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        weights = mask.squeeze(1).to(context.dtype)  # (B, 1, C): the same for every query
        mean = weights @ self.value(context) / weights.sum(-1, keepdim=True)
        return self.out(mean).expand_as(queries)


class _Tower(nn.Module):
    """(B, D) to a logit (B, 1)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(width, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.score(self.dropout(F.gelu(self.hidden(pooled))))


def reward_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """L_RM (OneRec v1, section 3.3.1): binary cross-entropy summed over towers, mean over rows.

    Args:
        logits: (B, T).
        labels: (B, T), 0 or 1.
    """
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(-1).mean()


def save_reward(model: RewardModel, directory: Path) -> None:
    """Write `model.safetensors` and `config.json`."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, str(directory / "model.safetensors"))
    shape = {f.name: getattr(model.shape, f.name) for f in fields(RewardShape)}
    shape["signals"] = [signal.model_dump(mode="json") for signal in model.signals]
    write_json(directory / "config.json", {"reward": asdict(model.config), "shape": shape})


def load_reward(directory: Path) -> RewardModel:
    """Read what `save_reward` wrote; the model is in evaluation mode."""
    config = read_json(directory / "config.json")
    shape = config["shape"]
    if "signals" in shape:  # an earlier version had the video signals only
        shape["signals"] = tuple(map(Signal.model_validate, shape["signals"]))
        shape["missing"] = tuple(shape["missing"])
    model = RewardModel(RewardConfig(**config["reward"]), RewardShape(**shape))
    model.load_state_dict(load_file(str(directory / "model.safetensors")))
    return model.eval()
