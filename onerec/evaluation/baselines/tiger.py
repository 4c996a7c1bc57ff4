"""TIGER (Rajput et al. 2023) on our own blocks: RQ-VAE semantic IDs, one item at a time.

The generator's encoder and decoder, dense, read and write tokens; what differs from OneRec is what
TIGER lacks: sessions, experts, balanced codes, rewards. Its encoder reads left to right, unlike the
T5 of the paper: so one pass learns every item of a window from all before it (`model.next_item`),
which is what a CPU can afford.

Shapes: W windows, L items a history holds, N items, T SID tokens, C codes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from onerec.config import ModelConfig, TokenizerConfig
from onerec.evaluation.recency import NOT_CHOSEN, ChosenPrior
from onerec.generation import Trie, rank_first_items
from onerec.model import OneRec, load_model, lookup, save_model, session_nll
from onerec.model.next_item import decode_positions, latest_states
from onerec.ranked_lists import RankedLists, last_items, narrowed
from onerec.tokenizer.codebook import fit_codebook
from onerec.tokenizer.semantic_ids import (
    SemanticIds,
    assign_semantic_ids,
    extend_semantic_ids,
)

BEAM = 30
"""Beams kept; the list is no longer than the beam unless `top_k` is larger."""
LONGEST = 100
"""Items of a list; a wider search would cost as many beams."""
USERS_AT_ONCE = 64


def tiger_shape(
    width: int, *, layers: int = 2, heads: int = 2, dropout: float = 0.1
) -> ModelConfig:
    """The blocks TIGER is built of: dense, tokens read and written, no separator."""
    return ModelConfig(
        d_model=width,
        num_heads=heads,
        d_ff=3 * width,
        encoder_layers=layers,
        decoder_layers=layers,
        num_experts=1,
        active_experts=1,
        dropout=dropout,
        history_tokens="sid_tokens",
        separator=False,
        causal_encoder=True,
    )


@dataclass(frozen=True)
class TigerRanker:
    """A trained TIGER over the candidates of a day; a `Ranker`.

    Attributes:
        model: In evaluation mode when it ranks.
        codes: (N, T) its own semantic IDs, in the order of the day's table.
        candidates: (N,) booleans: items that may be listed.
        recency_prior: What `FittedBaselines.rankers` adds to its scores.
    """

    model: OneRec
    codes: Tensor
    candidates: np.ndarray
    recency_prior: ChosenPrior = NOT_CHOSEN

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`: beam search over the trie of the candidates, for lists of at most
        `LONGEST` items."""
        device, codes = self.model.device, self.codes.to(self.model.device)
        allowed = torch.from_numpy(narrowed(self.candidates, candidates))
        trie = Trie.build(self.codes, self.model.codebook_size, allowed).to(device)
        wanted = min(top_k, LONGEST)
        beam = min(max(BEAM, wanted), trie.num_leaves)
        rows = torch.from_numpy(np.ascontiguousarray(histories)).long().to(device)
        rows = last_items(rows, min(self.model.history_length, rows.shape[1]))
        lists = rank_first_items(
            self.model,
            rows,
            codes,
            trie,
            top_k=wanted,
            beam=beam,
            batch_size=USERS_AT_ONCE,
            exclude=exclude,
        )
        return RankedLists.padded(lists.items, lists.scores, top_k)

    def save(self, directory: Path) -> None:
        """Write the checkpoint, `codes.safetensors` and `recency_prior.json`."""
        save_model(self.model, directory, tokenizer_version="tiger")
        save_file({"codes": self.codes.contiguous()}, str(directory / "codes.safetensors"))
        self.recency_prior.save(directory)


def load_tiger(directory: Path, candidates: np.ndarray, device: str) -> TigerRanker:
    """Read what `TigerRanker.save` wrote, onto a device."""
    model, _ = load_model(directory, expected_tokenizer_version="tiger")
    codes = load_file(str(directory / "codes.safetensors"))["codes"]
    return TigerRanker(model.to(device).eval(), codes, candidates, ChosenPrior.load(directory))


def tiger_codes(
    semantic_ids: SemanticIds,
    vectors: np.ndarray,
    candidates: np.ndarray,
    config: TokenizerConfig,
    *,
    on_progress: Callable[[str], None] = lambda message: None,
) -> Tensor:
    """(N, T) unique IDs by RQ-VAE: fitted on the candidates, the other items encoded.

    Args:
        semantic_ids: The catalogue; its own tokens are not used.
        vectors: (N, Dv) item vectors, row-aligned with it.
        candidates: (N,) booleans: items known before the test day.
        config: Levels, codes and the settings `rqvae_*`.
        on_progress: Called with messages about the fit.

    Raises:
        ValueError: As `fit_codebook`; the rows do not match.
    """
    if len(vectors) != len(semantic_ids):
        raise ValueError(
            f"{len(vectors)} item vectors for {len(semantic_ids)} semantic IDs: take both from the "
            "same semantic_ids artifact"
        )
    known, others = np.flatnonzero(candidates), np.flatnonzero(~candidates)
    table = torch.from_numpy(vectors)
    book, codes = fit_codebook(table[known], config, on_progress=on_progress)
    names, days = semantic_ids.item_ids, semantic_ids.first_seen
    ids = assign_semantic_ids(book, codes, table[known], names[known], days[known])
    ids = extend_semantic_ids(ids, book, names[others], table[others], days[others])
    rows = torch.from_numpy(np.concatenate([known, others]))
    return torch.empty_like(ids.codes).index_copy_(0, rows, ids.codes)


def window_loss(
    model: OneRec, windows: Tensor, learned: Tensor, codes: Tensor, *, first: int = 0
) -> Tensor:
    """L_NTP of the learned items of windows from position `first` on, each from those before it.

    With a dense head its loss is added, as in `next_token_loss`.

    Args:
        model: With a causal encoder.
        windows: (B, L + 1) item indices, -1 padded on the right; trimmed to the longest here.
        learned: (B, L + 1) bool: the items that are predicted, none of the padding.
        codes: (N, T) semantic IDs.
        first: 0 learns also what comes after an empty history.
    """
    longest = int((windows >= 0).sum(1).max())
    windows, learned = windows[:, :longest], learned[:, :longest]
    tokens, present = lookup(codes.to(windows.device), windows)
    vectors = model.item_vectors(windows[:, :-1])
    states = model.causal_states(tokens[:, :-1], present[:, :-1], vectors)
    items, targets, learned = (rows[:, first:] for rows in (windows, tokens, learned))
    logits = decode_positions(model, states, targets, first=first)
    loss = session_nll(logits, targets, learned)
    if model.dense is None:
        return loss
    latest = model.marked(latest_states(model, states, first=first))[learned]
    return loss + F.cross_entropy(model.dense(latest), items[learned]) / model.num_sid_tokens
