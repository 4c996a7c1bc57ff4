"""The generator: an encoder over the history and a session decoder (OneRec v1, section 3.2).

With `architecture="lazy_decoder"` the encoder gives way to OneRec-V2's context: `lazy_decoder`.

Shapes: B batch, H history items, M items of a session, T SID tokens of a semantic ID, C codes per
token, K beams (sessions decoded in parallel for one user), S memory tokens, D width.
"""

from typing import cast

import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onerec.config import ModelConfig
from onerec.model.blocks import DecoderBlock, EncoderBlock, causal_mask
from onerec.model.cache import Cache, Caches, RowCaches, SharedCaches
from onerec.model.decoder_state import DecoderState, Memory
from onerec.model.dense_head import DenseHead, ItemEncoder
from onerec.model.initialisation import initialise
from onerec.model.item_neighbours import ItemNeighbours
from onerec.model.lazy_decoder import ContextProcessor, LazyBlock
from onerec.model.moe import SparseMoE
from onerec.model.recency_prior import NO_PRIOR
from onerec.model.user_features import (
    Histories,
    UserFeatures,
    UserHistories,
    UserVocabulary,
)


class OneRec(nn.Module):
    """Encoder over history items, decoder over the tokens of a session's items.

    The decoder reads, for every item, BOS and the item's T SID tokens (Eq 3); `logits[:, i, j]`
    predicts token j of item i from BOS_i (j = 0) or from token j - 1, and everything before.
    Output heads are the token embeddings of their token. A learned start token heads the memory,
    so an empty history is legal. History positions count from the most recent item, so padding
    never moves them.

    Args:
        config: Shape.
        codebook_size: C, the size of every token's alphabet.
        num_sid_tokens: T.
        history_length: n, the most history items read.
        session_items: m, the most items of a session.

    Attributes:
        recency_prior: What its lists add to log-probabilities; chosen in training, kept with the
            weights.
        dense: Its dense head, see `add_dense_head`; None without one.
        dense_share: Share of the dense head's log-probability of an item in that of lists: 0 is
            the generated one alone, 1 the head's; chosen and kept like the prior.
        neighbours: What it knows of co-watching; None without.
        neighbour_weight: How much that counts in lists beside the log-probability; chosen and kept
            like the prior.
        users: What it knows of users, see `add_user_features`; None where a log has no attributes.
        reward_weight: How much the reward counts beside the log-probability where a reward model
            scores the served lists; chosen after alignment and kept like the prior.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        codebook_size: int,
        num_sid_tokens: int,
        history_length: int,
        session_items: int,
    ) -> None:
        super().__init__()
        self.config = config
        self.codebook_size = codebook_size
        self.num_sid_tokens = num_sid_tokens
        self.history_length = history_length
        self.session_items = session_items
        self.recency_prior = NO_PRIOR
        self.dense: DenseHead | None = None
        self.dense_share = 0.0
        self.neighbours: ItemNeighbours | None = None
        self.neighbour_weight = 0.0
        self.users: UserFeatures | None = None
        self.reward_weight = 0.0
        width = config.d_model

        self.sid_embedding = nn.Embedding(num_sid_tokens * codebook_size, width)
        self.start = nn.Parameter(torch.empty(width))
        self.recency = nn.Embedding(history_length, width)
        if config.history_tokens == "items":
            self.item_projection = nn.Linear(num_sid_tokens * width, width, bias=False)
        else:
            self.history_token = nn.Embedding(num_sid_tokens, width)
            if config.separator:
                self.separator = nn.Parameter(torch.empty(width))
        self.is_lazy = config.architecture == "lazy_decoder"
        self.encoder = nn.ModuleList(
            EncoderBlock(width, config.num_heads, config.d_ff, config.dropout)
            for _ in range(0 if self.is_lazy else config.encoder_layers)
        )
        if self.is_lazy:
            self.context = ContextProcessor(config)
        else:
            self.encoder_norm = nn.RMSNorm(width, eps=1e-6)
        if config.causal_encoder:
            self.latest = nn.Parameter(torch.empty(width))

        self.slot = nn.Embedding(session_items, width)
        # row 0 is BOS, row j + 1 marks token j
        self.token = nn.Embedding(num_sid_tokens + 1, width)
        self.decoder = nn.ModuleList(
            (LazyBlock if self.is_lazy else DecoderBlock).of(config, layer)
            for layer in range(config.decoder_layers)
        )
        self.decoder_norm = nn.RMSNorm(width, eps=1e-6)
        self.dropout = nn.Dropout(config.dropout)
        initialise(self, width, num_layers=len(self.encoder) + 2 * len(self.decoder))

    def add_dense_head(self, num_items: int, vector_dim: int) -> DenseHead:
        """Give it a dense head over a catalogue; draws from the global RNG.

        Without an encoder of its own, the vectors of the history's items join their tokens in what
        the generator's encoder reads. With one it is no part of what a generator's loss trains.

        Args:
            num_items: N.
            vector_dim: Dv of the items' known vectors, which the caller sets.
        """
        config, encoder = self.config, None
        if config.dense_encoder_layers:
            encoder = ItemEncoder(config, self.history_length + self.session_items)
        self.dense = DenseHead(
            num_items,
            vector_dim,
            config.d_model,
            dropout=config.dropout if encoder is None else config.dense_dropout,
            item_dropout=config.dense_item_dropout,
            negatives=config.dense_negatives,
            encoder=encoder,
        )
        return self.dense.requires_grad_(encoder is None)

    def add_user_features(self, vocabulary: UserVocabulary) -> None:
        """Let it read attributes of users beside the start token; draws nothing."""
        self.users = UserFeatures(vocabulary, self.config.d_model)

    def histories(self, items: Tensor, attributes: pa.Table | None) -> Histories:
        """Histories with what the model knows of their users.

        Args:
            items: (B, H) item indices.
            attributes: B rows, the attributes of the users; None where nothing is known.
        """
        if self.users is None:
            return items
        codes = self.users.vocabulary.codes(attributes, len(items))
        return UserHistories(items, codes.to(items.device))

    def item_vectors(self, items: Tensor) -> Tensor | None:
        """(..., D) of item indices (...), what `encode` adds to their tokens; None without a dense
        head, or if that has its own encoder."""
        if self.dense is None or self.dense.encoder is not None:
            return None
        return self._scaled(self.dense.of(items))

    @property
    def mixes_dense(self) -> bool:
        """Whether its dense head counts in lists."""
        return self.dense is not None and self.dense_share > 0

    def dense_logits(self, memory: Memory, table: Tensor | None = None) -> Tensor:
        """(B, N) of the dense head: from the state after a history by its own encoder, else of the
        generator's start token, which reads all of it, or last item, if that encoder is causal.

        `table` holds other vectors (N, D) of the items than the head's."""
        assert self.dense is not None, "the model has a dense head"
        has_own = self.dense.encoder is not None
        assert has_own == (memory.dense is not None), "`read_histories` made the memory"
        return self.dense(memory.states[:, 0] if memory.dense is None else memory.dense, table)

    @property
    def dtype(self) -> torch.dtype:
        return self.start.dtype

    @property
    def device(self) -> torch.device:
        return self.start.device

    @property
    def tokens_per_history_item(self) -> int:
        """Tokens the encoder reads for an item of the history."""
        if self.config.history_tokens == "items":
            return 1
        return self.num_sid_tokens + self.config.separator

    # ---------------------------------------------------------------- encoder

    def encode(
        self,
        history_codes: Tensor,
        history_mask: Tensor,
        item_vectors: Tensor | None = None,
        users: Tensor | None = None,
    ) -> Memory:
        """Read histories.

        Args:
            history_codes: (B, H, T) long, oldest item first; anything where the mask is false.
            history_mask: (B, H) bool, true where there is an item; padding on the right.
            item_vectors: (B, H, D) of the items, added to their token embeddings: item features
                beside the tokens.
            users: (B, F) codes of the users' attributes, added to the start token; unknown if not
                given.

        Returns:
            The memory; S = 1 + H tokens with `history_tokens="items"`, 1 + H T or 1 + H (T + 1)
            with "sid_tokens". A causal encoder puts the last item's state, marked, in front.

        Raises:
            ValueError: A history longer than `history_length` or codes of another width.
        """
        self._check_codes(history_codes, "history_codes")
        if history_codes.shape[1] > self.history_length:
            raise ValueError(
                f"history of {history_codes.shape[1]} items: the model reads at most "
                f"history_length={self.history_length}; keep the most recent ones"
            )
        x, mask = self._encoder_input(history_codes, history_mask, item_vectors, users)
        if self.is_lazy:
            return Memory(self.context(x), mask)
        if not self.config.causal_encoder:
            return Memory(self._encoded(x, mask[:, None, None, :]), mask)
        states = self._encoded(x, causal_mask(mask))
        last = (mask.sum(1) - 1)[:, None, None].expand(-1, -1, states.shape[-1])
        latest = self.marked(states.gather(1, last))
        seen = torch.cat([mask[:, :1], mask], 1)
        return Memory(torch.cat([latest, states], 1), seen)

    def causal_states(
        self, history_codes: Tensor, history_mask: Tensor, item_vectors: Tensor | None = None
    ) -> Tensor:
        """States (B, S, D) of a causal encoder; each depends on earlier positions only."""
        x, mask = self._encoder_input(history_codes, history_mask, item_vectors)
        return self._encoded(x, causal_mask(mask))

    def marked(self, states: Tensor) -> Tensor:
        """Encoder states of last items plus a learned vector: the decoder's first input."""
        return states + self._scaled(self.latest)

    def _encoder_input(
        self,
        codes: Tensor,
        history_mask: Tensor,
        item_vectors: Tensor | None,
        users: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, S, D) with the start token in front, and where they are visible (B, S)."""
        items = self._history_tokens(codes, history_mask)  # (B, H, tokens per item, D)
        if item_vectors is not None:
            items = items + item_vectors.unsqueeze(2)
        batch, _, per_item, width = items.shape
        start = self._scaled(self.start).expand(batch, 1, width)
        if self.users is not None:
            if users is None:
                users = codes.new_zeros(batch, len(self.users.vocabulary.values))
            start = start + self._scaled(self.users(users)).unsqueeze(1)
        x = self.dropout(torch.cat([start, items.flatten(1, 2)], dim=1))
        visible = history_mask.repeat_interleave(per_item, dim=1)
        return x, torch.cat([visible.new_ones(batch, 1), visible], dim=1)

    def _encoded(self, x: Tensor, attend: Tensor) -> Tensor:
        for block in self.encoder:
            x = block(x, attend)
        return self.encoder_norm(x)

    def _history_tokens(self, codes: Tensor, mask: Tensor) -> Tensor:
        # items after this one, itself not counted: 0 for the most recent
        if self.config.causal_encoder:  # from the oldest item, whatever follows
            age = (mask.long().cumsum(1) - 1).clamp(min=0)
        else:
            age = mask.long().flip(1).cumsum(1).flip(1) - mask.long()
        age = age.clamp(max=self.history_length - 1)
        position = self._scaled(self.recency(age)).unsqueeze(2)  # (B, H, 1, D)
        sid_tokens = self._embed_tokens(codes)
        if self.config.history_tokens == "items":
            return self.item_projection(sid_tokens.flatten(2)).unsqueeze(2) + position
        tokens = sid_tokens + self._scaled(self.history_token.weight)
        if self.config.separator:
            after = self._scaled(self.separator).expand(*codes.shape[:2], 1, -1)
            tokens = torch.cat([tokens, after], dim=2)
        return tokens + position

    # ---------------------------------------------------------------- decoder

    def decode(self, memory: Memory, session_codes: Tensor) -> Tensor:
        """Teacher-forced logits.

        Args:
            memory: Of B users.
            session_codes: (B, M, T) long, or (B, K, M, T) for K sessions of each user, which then
                share the user's memory. Anything where a session is padded.

        Returns:
            (B, M, T, C) or (B, K, M, T, C) logits.
        """
        self._check_codes(session_codes, "session_codes")
        several = session_codes.dim() == 4
        codes = session_codes if several else session_codes.unsqueeze(1)
        batch, beams, items, _ = codes.shape
        if items > self.session_items:
            limit = f"the model decodes at most session_items={self.session_items}"
            raise ValueError(f"session of {items} items: {limit}")
        slots = torch.arange(items, device=codes.device)
        bos = self._bos(slots).expand(batch, beams, items, -1).unsqueeze(3)
        sid_tokens = self._embed_session_tokens(codes, slots)
        # nothing follows the last token
        tokens = torch.cat([bos, sid_tokens], dim=3).flatten(2, 3)[:, :, :-1]
        hidden = self.extend(self._teacher_forcing(memory, beams * tokens.shape[2]), tokens)
        hidden = F.pad(hidden, (0, 0, 0, 1)).unflatten(2, (items, self.num_sid_tokens + 1))
        logits = self.logits(hidden[..., : self.num_sid_tokens, :])
        return logits if several else logits.squeeze(1)

    def forward(self, history_codes: Tensor, history_mask: Tensor, session_codes: Tensor) -> Tensor:
        """Logits (B, M, T, C) of sessions (B, M, T) after histories (B, H, T)."""
        return self.decode(self.encode(history_codes, history_mask), session_codes)

    def start_decoding(
        self, memory: Memory, *, cached: bool = True, shared: bool = False
    ) -> DecoderState:
        """Caches before any token: cross-attention keys and values once per user.

        Args:
            memory: Of B users.
            cached: False where nothing will follow the first tokens.
            shared: Let the beams of a user share their tokens instead of holding copies: the better
                choice for up to some hundred beams.
        """
        caches: Caches | None = None
        if cached and shared:
            caches = SharedCaches(len(self.decoder), len(memory.mask), self.device)
        elif cached:
            caches = RowCaches(len(self.decoder), self.session_items * (self.num_sid_tokens + 1))
        return DecoderState(
            memory=[block.cross.memory(memory.states) for block in self.decoder_blocks()],
            mask=memory.mask[:, None, None, :],
            caches=caches,
        )

    def _teacher_forcing(self, memory: Memory, queries: int) -> DecoderState:
        """The state for all `queries` tokens of a user at once: nothing is kept for later ones."""
        # the lazy decoder's memory is keys already
        if self.is_lazy or not all(b.cross.few(queries) for b in self.decoder_blocks()):
            return self.start_decoding(memory, cached=False)
        states = [memory.states] * len(self.decoder)
        return DecoderState(memory=states, mask=memory.mask[:, None, None, :], caches=None)

    def decoder_blocks(self) -> list[DecoderBlock]:
        return cast(list[DecoderBlock], list(self.decoder))

    def extend(self, state: DecoderState, tokens: Tensor) -> Tensor:
        """Append embedded tokens (B, K, X, D) to every beam; hidden states of the same shape."""
        x = self.dropout(tokens)
        caches: list[Cache | None] = [None] * len(self.decoder)
        if state.caches is not None:
            state.caches.prepare(tokens.shape[1], tokens.shape[2], x.dtype)
            caches = list(state.caches.layers)
        for block, cache, memory in zip(self.decoder_blocks(), caches, state.memory, strict=True):
            x = block(x, cache, memory, state.mask)
        return self.decoder_norm(x)

    def step(
        self, state: DecoderState, *, slot: int, level: int, previous: Tensor | None
    ) -> Tensor:
        """Logits (B, K, C) of token `level` of item `slot`, after one more step of every beam.

        `previous` (B, K) is the code chosen last: token - 1 of this item or, at a later item's
        first token, the last token of the item before; None at the very first.
        """
        device = self.device
        here = torch.tensor([slot], device=device)
        if level > 0:
            assert previous is not None, "a token follows another"
            tokens = self._embed_code(previous, slot, level - 1).unsqueeze(2)
        else:
            bos = self._bos(here)  # (1, D)
            batch = state.mask.shape[0]
            tokens = bos.expand(batch, state.beams, 1, -1)
            if slot > 0:
                assert previous is not None, "an item follows another"
                last = self._embed_code(previous, slot - 1, self.num_sid_tokens - 1)
                tokens = torch.cat([last.unsqueeze(2), tokens], dim=2)
        hidden = self.extend(state, tokens)[:, :, -1]
        first = level * self.codebook_size
        return F.linear(hidden, self.sid_embedding.weight[first : first + self.codebook_size])

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., T, D) of every token's predictor -> logits (..., T, C)."""
        heads = self.sid_embedding.weight.unflatten(0, (self.num_sid_tokens, self.codebook_size))
        rows = hidden.flatten(0, -3).transpose(0, 1)  # (T, rows, D)
        return (
            torch.bmm(rows, heads.transpose(1, 2)).transpose(0, 1).unflatten(0, hidden.shape[:-2])
        )

    # ---------------------------------------------------------------- tokens

    def _scaled(self, embedding: Tensor) -> Tensor:
        return embedding * self.config.d_model**0.5

    def _embed_tokens(self, codes: Tensor) -> Tensor:
        """(..., T) codes -> (..., T, D); every token has its own rows of one table."""
        first = torch.arange(self.num_sid_tokens, device=codes.device) * self.codebook_size
        return self._scaled(self.sid_embedding(codes + first))

    def _embed_session_tokens(self, codes: Tensor, slots: Tensor) -> Tensor:
        """(B, K, M, T) -> (B, K, M, T, D) with positions."""
        marks = self.slot(slots).unsqueeze(1) + self.token.weight[1:]  # (M, T, D)
        return self._embed_tokens(codes) + self._scaled(marks)

    def _embed_code(self, code: Tensor, slot: int, level: int) -> Tensor:
        """One token's code of every beam (B, K) -> (B, K, D) with its position."""
        mark = self.slot.weight[slot] + self.token.weight[level + 1]
        return self._scaled(self.sid_embedding(code + level * self.codebook_size) + mark)

    def _bos(self, slots: Tensor) -> Tensor:
        """BOS tokens of some items (M,) -> (M, D)."""
        return self._scaled(self.slot(slots) + self.token.weight[0])

    def first_item_tokens(self, codes: Tensor) -> Tensor:
        """BOS and all tokens but the last of items (B, K, T) -> (B, K, T, D), each the first."""
        slot = torch.zeros(1, dtype=torch.long, device=codes.device)
        bos = self._bos(slot).expand(*codes.shape[:2], 1, -1)
        sid_tokens = self._embed_session_tokens(codes.unsqueeze(2), slot).squeeze(2)
        return torch.cat([bos, sid_tokens], 2)[:, :, :-1]

    def _check_codes(self, codes: Tensor, name: str) -> None:
        if codes.shape[-1] != self.num_sid_tokens:
            raise ValueError(
                f"{name} has {codes.shape[-1]} tokens per item: the model was built for "
                f"num_sid_tokens={self.num_sid_tokens}; use semantic IDs of its own tokenizer "
                f"version"
            )

    # ---------------------------------------------------------------- experts

    def update_expert_bias(self) -> None:
        """One step of the auxiliary-loss-free balancing; the trainer calls it after every step."""
        for module in self.modules():
            if isinstance(module, SparseMoE):
                module.update_bias()
