"""An experiment's model: a generator of single next items with a dense head over every position.

Both are learned together from every position. The head is the nightly generator's
(`onerec.model.dense_head`); here its vectors of the items join the tokens in what the encoder
reads, too. Lists are made of the candidates of both: of the beams and of the best by product,
ordered by a mixture of the two log-probabilities.

Letters: B users, P places, K candidates, N items, T SID tokens, D width, Dv width of given vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onerec.config import ModelConfig
from onerec.generation import Trie
from onerec.generation.beam import search
from onerec.generation.masks import TrieView
from onerec.model import Memory, OneRec, init_from_content, lookup, token_logp
from onerec.model.dense_head import DenseHead
from onerec.model.next_item import decode_positions, latest_states
from onerec.ranked_lists import RankedLists, exclude_scores

USERS_AT_ONCE = 64


class OneRecWithDenseHead(nn.Module):
    """A causal `OneRec` with a dense head over N items.

    Args:
        config: Shape of the generator; `history_tokens="items"`, a causal encoder.
        codes: (N, T) semantic IDs.
        codebook_size: C.
        vectors: (N, Dv) known of the items.
        history_length: H.
        item_dropout: Share of the items that a step scores without their learned vectors.
    """

    codes: Tensor

    def __init__(
        self,
        config: ModelConfig,
        codes: Tensor,
        codebook_size: int,
        vectors: Tensor,
        *,
        history_length: int,
        item_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.generator = OneRec(
            config,
            codebook_size=codebook_size,
            num_sid_tokens=codes.shape[1],
            history_length=history_length,
            session_items=1,
        )
        init_from_content(self.generator, codes, vectors)
        self.head = DenseHead(
            len(vectors),
            vectors.shape[1],
            config.d_model,
            dropout=config.dropout,
            item_dropout=item_dropout,
        )
        self.head.vectors.copy_(vectors)
        self.register_buffer("codes", codes)

    def item_table(self) -> Tensor:
        """(N, D) vectors of all items."""
        return self.head.table()

    def states(self, history: Tensor, table: Tensor) -> Tensor:
        """(B, 1 + H, D) encoder states of item indices (B, H), -1 padded on the right."""
        return self.generator.causal_states(*self._read(history, table))

    def memory(self, history: Tensor, table: Tensor) -> Memory:
        """What the decoder reads; its first state is that of the last item, marked."""
        return self.generator.encode(*self._read(history, table))

    def _read(self, history: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        codes, there = lookup(self.codes, history)
        vectors = table[history.clamp(min=0)] * self.generator.config.d_model**0.5
        return codes, there, vectors

    def dense_logits(self, latest: Tensor, table: Tensor) -> Tensor:
        """(..., D) states of last items, not marked -> (..., N)."""
        return self.head(latest, table)

    def loss(self, windows: Tensor) -> Tensor:
        """Negative log-probability of every item by the generator, plus that by the dense head.

        Args:
            windows: (B, P) item indices, -1 padded on the right. The first one is only read: no
                list is made without a history.
        """
        windows = windows[:, : int((windows >= 0).sum(1).max())]
        table = self.item_table()
        states = self.states(windows[:, :-1], table)
        targets = windows[:, 1:]
        tokens, there = lookup(self.codes, targets)
        logits = decode_positions(self.generator, states, tokens, first=1)
        generated = F.cross_entropy(logits[there].flatten(0, 1), tokens[there].flatten())
        latest = latest_states(self.generator, states, first=1)[there]
        dense = F.cross_entropy(self.dense_logits(latest, table), targets[there])
        return tokens.shape[2] * generated + dense


class DenseHeadCandidates(NamedTuple):
    """Items that may be listed, with the log-probabilities of both heads.

    Attributes:
        items: (B, K) item indices, some of them twice.
        generated_logp: (B, K) of the generator.
        dense_logp: (B, K) of the dense head; both -inf at the second of two.
        beams: The first so many columns are the beams, best first.
    """

    items: Tensor
    generated_logp: Tensor
    dense_logp: Tensor
    beams: int

    def fused(self, dense_share: float, top_k: int) -> np.ndarray:
        """(B, top_k): best by the mixture, 0 being the generator and 1 the dense head alone."""
        score = (1 - dense_share) * self.generated_logp + dense_share * self.dense_logp
        score = score.masked_fill(self.generated_logp.isneginf(), -torch.inf)
        order = score.argsort(dim=1, descending=True, stable=True)[:, :top_k]
        return self.items.gather(1, order).cpu().numpy()

    def generated(self, top_k: int) -> np.ndarray:
        """(B, top_k): the beams alone, the dense head unused."""
        return self.items[:, : min(top_k, self.beams)].cpu().numpy()


@torch.no_grad()
def candidates_of(
    model: OneRecWithDenseHead,
    history: np.ndarray,
    *,
    beam: int,
    dense: int,
    exclude: np.ndarray | None = None,
    on_progress: Callable[[int], None] = lambda users: None,
) -> DenseHeadCandidates:
    """The `beam` best by beam search and the `dense` best by product, scored by both heads.

    Args:
        model: In evaluation mode.
        history: (U, H) item indices, -1 padded on the right.
        beam: Beams kept.
        dense: Items of the dense head.
        exclude: (U, E) item indices that the user must not get, -1 padded.
        on_progress: Called with the number of users done.
    """
    generator = model.generator
    device = model.codes.device
    trie = Trie.build(model.codes.cpu(), generator.codebook_size).to(device)
    table = model.item_table()
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    done = 0
    for start in range(0, len(history), USERS_AT_ONCE):
        part = slice(start, start + USERS_AT_ONCE)
        rows = torch.from_numpy(np.ascontiguousarray(history[part])).long().to(device)
        left_out = None if exclude is None else exclude[part]
        memory = model.memory(rows, table)
        view = TrieView.of(
            trie, None, None if left_out is None else torch.from_numpy(left_out), len(rows)
        )
        beams = search(generator, memory, trie, view, num_items=1, beam=beam)
        latest = memory.states[:, 0] - generator.marked(torch.zeros((), device=device))
        logp = model.dense_logits(latest, table).log_softmax(-1)
        exclude_scores(logp, left_out)
        near = logp.topk(dense).indices
        found = beams.items[:, :, 0]
        tokens = model.codes[near].unsqueeze(2)  # (B, K, 1, T)
        exact = token_logp(generator.decode(memory, tokens), tokens).sum((2, 3))
        again = (near.unsqueeze(2) == found.unsqueeze(1)).any(2)
        items = torch.cat([found, near], 1)
        generated = torch.cat([beams.logp, exact.masked_fill(again, -torch.inf)], 1)
        parts.append((items, generated, logp.gather(1, items)))
        done += len(rows)
        on_progress(done)
    items, generated, dense_logp = (torch.cat(column) for column in zip(*parts, strict=True))
    return DenseHeadCandidates(items, generated, dense_logp, beam)


@dataclass(frozen=True)
class DenseHeadRanker:
    """The dense head alone over the whole catalogue; a `Ranker`, quick enough for every epoch."""

    model: OneRecWithDenseHead

    @torch.no_grad()
    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`; the score is the head's logit."""
        table = self.model.item_table()
        device = table.device
        allowed = None if candidates is None else torch.from_numpy(candidates).to(device)
        lists = []
        for start in range(0, len(histories), 512):
            part = slice(start, start + 512)
            rows = torch.from_numpy(np.ascontiguousarray(histories[part])).long().to(device)
            last = (rows >= 0).sum(1)[:, None, None]
            states = self.model.states(rows, table)
            latest = states.gather(1, last.expand(-1, -1, states.shape[-1])).squeeze(1)
            logits = self.model.dense_logits(latest, table)
            if allowed is not None:
                logits = logits.masked_fill(~allowed, -torch.inf)
            exclude_scores(logits, None if exclude is None else exclude[part])
            lists.append(logits.topk(min(top_k, logits.shape[1])))
        scores, items = (torch.cat(column).cpu().numpy() for column in zip(*lists, strict=True))
        return RankedLists.padded(items, scores, top_k)
