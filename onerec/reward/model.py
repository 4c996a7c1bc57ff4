"""The reward model R(u, S): predicts a user's feedback on a session, one tower per signal.

Shapes: B sessions, U users, H history items, M items of a session, T towers of which Tb are
    probabilities, D width, N items, Dv item-vector width, Fi facts of an item, Fu facts of a user,
    Q quantiles.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from onerec.artifacts import read_json, write_json
from onerec.config import RewardConfig
from onerec.config.feedback import VIDEO_SIGNALS, WATCH_SHARE, Signal
from onerec.reward.facts import RewardFacts, standardised

if TYPE_CHECKING:
    from onerec.reward.boosting import Boosting

BOOSTING = "boosting.json"
"""File of LightGBM's trees, beside the weights; absent where they count nowhere."""


@dataclass(frozen=True, kw_only=True)
class RewardShape:
    """Properties of a reward model that follow from the data.

    Attributes:
        vector_dim: Width of the item vectors.
        num_items: Items with a learned embedding; later items have their vector only.
        history_length: Number of most recent history items with distinct position embeddings.
        signals: Signals of the towers, in the order of every tensor's last axis of size T.
        missing: Declared signals without a tower, as training blocks have one class only.
        item_facts: Names of the Fi facts of an item; none without facts.
        user_facts: Names of the Fu facts of a user.
        quantiles: Q, quantiles of the watched share that are predicted; 0 without expectations
            among the signals.
    """

    vector_dim: int
    num_items: int
    history_length: int
    signals: tuple[Signal, ...] = VIDEO_SIGNALS
    missing: tuple[str, ...] = ()
    item_facts: tuple[str, ...] = ()
    user_facts: tuple[str, ...] = ()
    quantiles: int = 0

    @property
    def num_probabilities(self) -> int:
        """Tb: number of signals that are probabilities; they precede the expectations."""
        return sum(not signal.is_expectation for signal in self.signals)


class RewardOutput(NamedTuple):
    """Outputs of the towers.

    Attributes:
        logits: (B, Tb) of the signals that are probabilities.
        shares: (B, M, Q) logits of the quantile of the watched share of each item; None without
            expectations.
        facts: (B, F) what the wide part reads, and the number of history items: the facts that
            LightGBM learns from. None without facts.
    """

    logits: Tensor
    shares: Tensor | None
    facts: Tensor | None


class RewardModel(nn.Module):
    """Target-aware item representations, self-attention over the session, a tower per signal.

    OneRec v1, section 3.3.1: `e_i = v_i (.) u`, `h_f = SelfAttention(h)`,
    `r_x = Tower_x(sum_i h_f,i)` for x in swt, vtr, wtr, ltr, or another log's signals. Here `u`
    is the result of item i's attention over the user's history, and `e_i` combines `v_i`, `u_i` and
    their product, so that general item quality is modelled beside the match with the user.

    With facts `e_i` also reads point-in-time facts of item i and of the user
    (`onerec.session_dataset.reward_facts`), and how much of the history has its author and
    category; their mean and maximum over the session go directly to the towers (wide and deep).
    The model stores the facts of its catalogue as of its day, for candidates; in training each
    block comes with facts of its own day. Without facts of the user the user counts as unknown,
    which also occurs in training (`user_facts_dropout`).

    Expectations are predicted per item: a softmax over Q quantiles of the watched share. The
    expected share is the mean of the quantiles' training means under it; times the item's duration
    it is the expected watch time. It is as well calibrated as the softmax. Items of unknown
    duration get the catalogue's median.

    With `target_attention` off, `u` is the same for every item: the history's mean. With
    `history_similarity`, `e_i` also reads the cosines of item i's vector with the history's.

    An item is represented by its frozen vector, an argument of every call, projected, plus a
    learned embedding, which is zero for padding and for items without training examples.

    Beside the network `boosting` may hold LightGBM's trees on the same facts; `score_sessions` and
    `score_blocks` mix them in.
    """

    boosting: "Boosting | None" = None

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
        num_facts = len(shape.item_facts) + len(shape.user_facts)
        further = 2 * config.history_similarity + (num_facts + 3 if num_facts else 0)
        self.mix = nn.Linear(3 * width + further, width)
        self.norm = nn.RMSNorm(width)
        self.over_session = _Attention(width, config.num_heads)
        self.towers = nn.ModuleList(
            _Tower(width, config.dropout) for _ in range(shape.num_probabilities)
        )
        # mean and maximum over the block are what gradient boosting predicts well from
        self.wide = (
            nn.Sequential(
                nn.Linear(2 * further + 1, 2 * width),
                nn.GELU(),
                nn.Dropout(config.dropout),
                nn.Linear(2 * width, width),
                nn.GELU(),
            )
            if num_facts
            else None
        )
        if shape.quantiles:
            self.share = _Tower(width, config.dropout, shape.quantiles)
        self.facts = RewardFacts(
            shape.num_items, shape.item_facts, shape.user_facts, shape.quantiles
        )
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.recency.weight, std=0.02)
        nn.init.zeros_(self.embed.weight)  # items without training examples keep a zero embedding

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The signals that the towers predict."""
        return self.shape.signals

    def forward(
        self,
        vectors: Tensor,
        history: Tensor,
        sessions: Tensor,
        item_facts: Tensor | None = None,
        user_facts: Tensor | None = None,
    ) -> RewardOutput:
        """Score sessions.

        Args:
            vectors: (N, Dv) frozen item vectors.
            history: (U, H) item indices, oldest first, -1 where there is none; may be all -1.
            sessions: (B, M) item indices, -1 where there is none: as many of each user, one user
                after the other.
            item_facts: (B, M, Fi) facts of the sessions' items; by default those of the model's
                day.
            user_facts: (B, Fu) facts of the users; by default the users are unknown.
        """
        seen = history >= 0
        item_BMD = self._items(vectors, sessions)
        past_UHD = self._items(vectors, history) + self.recency(self._age(seen))
        start = self.no_history.expand(len(history), -1, -1)
        memory = torch.cat([start, past_UHD], 1)
        known = F.pad(seen, (1, 0), value=True)
        each = len(sessions) // max(len(history), 1)
        asked = item_BMD.reshape(len(history), each * sessions.shape[1], item_BMD.shape[-1])
        user_BMD = self.over_history(asked, memory, known[:, None, None, :]).reshape_as(item_BMD)
        history = history.repeat_interleave(each, 0)
        parts = [item_BMD, user_BMD, item_BMD * user_BMD]
        plain = []
        if self.config.history_similarity:
            plain.append(_similarity(vectors, sessions, history))
        if self.shape.item_facts:
            plain.append(self._facts(history, sessions, item_facts, user_facts))
        e_BMD = self.dropout(F.gelu(self.mix(torch.cat([*parts, *plain], -1))))

        shown = sessions >= 0
        # A padding item attends to itself, else a row of padding would be a softmax over nothing.
        itself = torch.eye(sessions.shape[1], dtype=torch.bool, device=shown.device)
        visible = shown[:, None, None, :] | itself
        normed = self.norm(e_BMD)
        h_BMD = e_BMD + self.over_session(normed, normed, visible)
        pooled = (h_BMD * shown[..., None]).sum(1)
        facts = None
        if self.wide is not None:
            read = _mean_and_largest(torch.cat(plain, -1), shown)
            pooled = pooled + self.wide(read)
            facts = torch.cat([read, (history >= 0).sum(1, keepdim=True)], -1)
        towers = [tower(pooled) for tower in self.towers]
        logits = torch.cat(towers, -1) if towers else pooled[:, :0]
        return RewardOutput(logits, self.share(h_BMD) if self.shape.quantiles else None, facts)

    def predictions(self, output: RewardOutput, sessions: Tensor) -> Tensor:
        """(B, T) the network's probabilities and expectations of the sessions (B, M) scored."""
        columns = [torch.sigmoid(output.logits)]
        if output.shares is not None:
            shown = sessions >= 0
            share_BM = (output.shares.softmax(-1) @ self.facts.share_means) * shown
            duration = self.facts.duration[self.facts.rows(sessions)]
            num = shown.sum(1, keepdim=True).clamp(min=1)
            for signal in self.signals[self.shape.num_probabilities :]:
                watched = share_BM if signal == WATCH_SHARE else share_BM * duration
                columns.append(watched.sum(1, keepdim=True) / num)
        return torch.cat(columns, -1)

    def _facts(
        self,
        history: Tensor,
        sessions: Tensor,
        item_facts: Tensor | None,
        user_facts: Tensor | None,
    ) -> Tensor:
        """(B, M, Fi + Fu + 3) standardised facts, whether the user is known, and how much of the
        history has an item's author and category."""
        shape = *sessions.shape, -1
        facts, at = self.facts, self.facts.rows(sessions)
        of_items = facts.of_items[at]
        if item_facts is not None:
            of_items = standardised(item_facts, facts.item_scale)
        known = of_items.new_zeros(len(sessions), 1 + len(self.shape.user_facts))
        if user_facts is not None:
            known[:, 1:], known[:, 0] = standardised(user_facts, facts.user_scale), 1
            if self.training:
                kept = torch.rand(len(known), 1, device=known.device)
                known = known * (kept >= self.config.user_facts_dropout)
        past, matches = facts.rows(history), []
        for number in (facts.author, facts.category):
            same = number[at][:, :, None] == number[past][:, None, :]
            same &= (history >= 0)[:, None, :] & (number[at] >= 0)[:, :, None]
            matches.append(same.to(of_items.dtype).sum(-1).log1p())
        return torch.cat([of_items, known[:, None].expand(shape), torch.stack(matches, -1)], -1)

    def start_from_base_rates(self, rates: Tensor) -> None:
        """Initialise output biases to base rates (T,), which speeds up training on rare signals."""
        logits = torch.logit(rates.clamp(1e-4, 1 - 1e-4))
        with torch.no_grad():
            for tower, logit in zip(self.towers, logits[: len(self.towers)], strict=True):
                assert isinstance(tower, _Tower)
                tower.score.bias.fill_(float(logit))

    def _items(self, vectors: Tensor, items: Tensor) -> Tensor:
        """(..., D) representations of item indices; zero where the index is -1."""
        present = (items >= 0)[..., None]
        # Unit vectors have entries of about 1/sqrt(Dv); the projection wants entries of about 1.
        scale = vectors.shape[1] ** 0.5
        frozen = _of_items(lambda of: self.project(of * scale), vectors, items)
        unknown = self.shape.num_items
        rows = torch.where((items >= 0) & (items < unknown), items, unknown)
        if self.training:  # so that items without an embedding also occur in training
            dropped = torch.rand(rows.shape, device=rows.device) < self.config.embedding_dropout
            rows = rows.masked_fill(dropped, unknown)
        return (frozen + self.embed(rows)) * present

    def _age(self, seen: Tensor) -> Tensor:
        """(B, H) 0 for the newest history item, 1 for the one before...; padding gets 0."""
        newer = seen.sum(1, keepdim=True) - seen.cumsum(1)
        return newer.clamp(0, self.shape.history_length - 1)


def _of_items(function: Callable[[Tensor], Tensor], vectors: Tensor, items: Tensor) -> Tensor:
    """(..., D) what a function makes of the vectors (N, Dv) of items (...), of item 0 at -1.

    Where there are more items than vectors, it sees every vector once.
    """
    at = items.clamp(min=0)
    many = at.numel() > len(vectors)
    return F.embedding(at, function(vectors)) if many else function(F.embedding(at, vectors))


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1)


def _similarity(vectors: Tensor, items: Tensor, history: Tensor) -> Tensor:
    """(B, M, 2) mean and largest cosine of each item with a history; 0 where there is none.

    Cosines of unrelated unit vectors are about 1/sqrt(Dv); they are scaled to be about 1.
    """
    item, past = (_of_items(_unit, vectors, x) for x in (items, history))
    cosine = item @ past.transpose(1, 2) * vectors.shape[1] ** 0.5
    known = ((items >= 0)[:, :, None] & (history >= 0)[:, None, :]).to(cosine.dtype)
    mean = (cosine * known).sum(-1) / known.sum(-1).clamp(min=1)
    largest = torch.where(known > 0, cosine, -torch.inf).amax(-1) if history.shape[1] else mean
    return torch.stack([mean, largest.nan_to_num(neginf=0.0)], -1)


def _mean_and_largest(facts: Tensor, shown: Tensor) -> Tensor:
    """(B, 2F + 1): mean and maximum of facts (B, M, F) over items shown (B, M), share of places."""
    there = shown[..., None]
    mean = (facts * there).sum(1) / there.sum(1).clamp(min=1)
    largest = facts.masked_fill(~there, -torch.inf).amax(1).nan_to_num(neginf=0.0)
    return torch.cat([mean, largest, shown.to(facts.dtype).mean(1, keepdim=True)], -1)


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
    """(..., D) to logits (..., outputs)."""

    def __init__(self, width: int, dropout: float, outputs: int = 1) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(width, outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.score(self.dropout(F.gelu(self.hidden(pooled))))


def reward_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """L_RM (OneRec v1, section 3.3.1): binary cross-entropy summed over towers, mean over rows.

    Args:
        logits: (B, T).
        labels: (B, T), 0 or 1.
    """
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(-1).mean()


def share_loss(logits: Tensor, quantile: Tensor) -> Tensor:
    """Cross-entropy of the quantile of the watched share, mean over a session's items, over rows.

    Args:
        logits: (B, M, Q).
        quantile: (B, M) from 0 to Q - 1, -1 where there is no item.
    """
    shown = quantile >= 0
    losses = F.cross_entropy(
        logits.flatten(0, 1), quantile.clamp(min=0).flatten(), reduction="none"
    )
    by_row = (losses.view(quantile.shape) * shown).sum(1) / shown.sum(1).clamp(min=1)
    return by_row.mean()


def save_reward(model: RewardModel, directory: Path) -> None:
    """Write `model.safetensors` and `config.json`, and `boosting.json` with LightGBM's trees."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, str(directory / "model.safetensors"))
    shape = {f.name: getattr(model.shape, f.name) for f in fields(RewardShape)}
    shape["signals"] = [signal.model_dump(mode="json") for signal in model.signals]
    write_json(directory / "config.json", {"reward": asdict(model.config), "shape": shape})
    (directory / BOOSTING).unlink(missing_ok=True)  # of a model that was here before
    if model.boosting is not None:
        (directory / BOOSTING).write_text(model.boosting.text())


def load_reward(directory: Path) -> RewardModel:
    """Read what `save_reward` wrote; the model is in evaluation mode."""
    config = read_json(directory / "config.json")
    shape = config["shape"]
    if "signals" in shape:  # earlier versions had the video signals only
        shape["signals"] = tuple(map(Signal.model_validate, shape["signals"]))
        shape["missing"] = tuple(shape["missing"])
    for name in ("item_facts", "user_facts"):
        shape[name] = tuple(shape.get(name, ()))
    model = RewardModel(RewardConfig(**config["reward"]), RewardShape(**shape))
    tensors = load_file(str(directory / "model.safetensors"))
    if not model.shape.item_facts and not model.shape.quantiles:
        # earlier versions had no facts: their files lack these buffers, which have width 0
        tensors = dict(model.facts.state_dict(prefix="facts.")) | tensors
    model.load_state_dict(tensors)
    if (directory / BOOSTING).exists():
        from onerec.reward.boosting import Boosting

        model.boosting = Boosting.parse((directory / BOOSTING).read_text(), model.signals)
    return model.eval()
