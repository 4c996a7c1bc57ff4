"""A dense head beside generation: a softmax over the items, as in LIGER (2411.18814).

The vector of an item is a learned embedding plus a projection of what is known of it. In training
the embeddings of a random share of the items are left out of every step, so that the projection
alone has to do: which is what a new item has.

The state is that of the generator's encoder, which then reads the vectors of the history's items
beside their tokens; or of an encoder of its own over these vectors (`dense_encoder_layers`). Such a
head shares nothing with the generator and is trained by itself (`onerec/training/dense_head.py`):
it makes other mistakes, so that lists gain more from both.

Shapes: B users, L items of a sequence, M items of a session, N items, D width, Dv width of the
known vectors.
"""

import torch
from torch import Tensor, nn

from onerec.config import ModelConfig
from onerec.model.blocks import EncoderBlock, causal_mask
from onerec.model.initialisation import initialise

SOFTNESS = 0.15
"""Of the soft maximum of an item's cosines with a history's items (docs/log.md, 2026-11-29)."""


class ItemEncoder(nn.Module):
    """Reads sequences of item vectors from left to right, as SASRec does.

    Args:
        config: Width, heads, hidden width, `dense_dropout` and `dense_encoder_layers`.
        length: Items of a sequence at most.
    """

    def __init__(self, config: ModelConfig, length: int) -> None:
        super().__init__()
        width, layers = config.d_model, config.dense_encoder_layers
        self.start = nn.Parameter(torch.empty(width))
        self.position = nn.Embedding(length + 1, width)
        self.blocks = nn.ModuleList(
            EncoderBlock(width, config.num_heads, config.d_ff, config.dense_dropout)
            for _ in range(layers)
        )
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.dropout = nn.Dropout(config.dense_dropout)
        initialise(self, width, num_layers=layers)

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """States after the start token and after each item.

        Args:
            vectors: (B, L, D) of the items, oldest first.
            mask: (B, L) bool, true where there is an item; padding on the right.

        Returns:
            (B, L + 1, D); anything at padding.
        """
        x = torch.cat([self.start.expand(len(vectors), 1, -1), vectors], 1)
        x = self.dropout(x + self.position.weight[: x.shape[1]])
        attend = causal_mask(torch.cat([torch.ones_like(mask[:, :1]), mask], 1))
        for block in self.blocks:
            x = block(x, attend)
        return self.norm(x)


def followed_by(history: Tensor, session: Tensor) -> Tensor:
    """(B, H + M) histories (B, H) with sessions (B, M) right behind their last items, -1 padded."""
    padded = nn.functional.pad(history, (0, session.shape[1]), value=-1)
    return padded.scatter(1, _places(history, session), session)


def _places(history: Tensor, session: Tensor) -> Tensor:
    count = (history >= 0).sum(1, keepdim=True)
    return count + torch.arange(session.shape[1], device=history.device)


def _at(states: Tensor, places: Tensor) -> Tensor:
    return states.gather(1, places.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


class DenseHead(nn.Module):
    """Scores every item by a product with a state.

    Args:
        num_items: N.
        vector_dim: Dv.
        width: D.
        dropout: Of the states before the products.
        item_dropout: Share of the items whose embeddings a training step leaves out.
        negatives: Items that a step of a head with its own encoder draws, where the catalogue has
            more; 0 compares with all items.

    Attributes:
        vectors: (N, Dv) known of the items; zeros until they are set.
        encoder: Its own encoder; None where it scores from the generator's.
    """

    vectors: Tensor

    def __init__(
        self,
        num_items: int,
        vector_dim: int,
        width: int,
        *,
        dropout: float,
        item_dropout: float = 0.0,
        negatives: int = 0,
        encoder: ItemEncoder | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.item_dropout = item_dropout
        self.negatives = negatives
        self.items = nn.Embedding(num_items, width)
        nn.init.normal_(self.items.weight, std=0.02)
        self.known = nn.Linear(vector_dim, width, bias=False)
        nn.init.normal_(self.known.weight, std=0.02)
        self.state = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.state.weight)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("vectors", torch.zeros(num_items, vector_dim))

    @property
    def num_items(self) -> int:
        return len(self.vectors)

    def table(self) -> Tensor:
        """(N, D) vectors of all items; in training, of a random share without the embedding."""
        return self._kept(self.items.weight) + self.content()

    def content(self) -> Tensor:
        """(N, D) vectors of all items by what is known of them, without the learned embeddings."""
        return self.known(self.vectors)

    def similarity(self, history: Tensor, items: Tensor) -> Tensor:
        """How like the items of histories other items are, those nearest to them counting most.

        Of the cosines c of an item with the history's, the soft maximum s log(mean(exp(c / s))),
        s being `SOFTNESS`: between the mean (s large) and the largest (s small).

        Args:
            history: (B, H) item indices, -1 padded.
            items: (A,) item indices.

        Returns:
            (B, A); 0 after an empty history. Memory grows with B H A.
        """
        unit = nn.functional.normalize(self.vectors[items], dim=1)
        there = history >= 0
        read = nn.functional.normalize(self.vectors[history.clamp(min=0)], dim=2)
        cosine = (read @ unit.T).masked_fill(~there.unsqueeze(2), -torch.inf)
        count = there.sum(1, keepdim=True)
        found = SOFTNESS * ((cosine / SOFTNESS).logsumexp(1) - count.clamp(min=1).log())
        return found.masked_fill(count == 0, 0.0)

    def of(self, items: Tensor) -> Tensor:
        """(..., D) vectors of item indices (...), as `table` has them; of item 0 at padding."""
        items = items.clamp(min=0).to(self.vectors.device)
        return self._kept(self.items(items)) + self.known(self.vectors[items])

    def state_after(self, history: Tensor) -> Tensor:
        """(B, D) the own encoder's state after histories (B, H) of item indices, -1 padded."""
        return self._states(history, history.new_zeros(len(history), 1)).squeeze(1)

    def session_logits(self, history: Tensor, session: Tensor) -> Tensor:
        """Teacher-forced logits of the head with its own encoder.

        Args:
            history: (B, H) item indices, oldest first, -1 padded on the right.
            session: (B, M) item indices that follow, -1 padded.

        Returns:
            (R, N) for the R items of the sessions, in their order, padding left out: B M N numbers
            where no session is padded.
        """
        return self._scores(self._states(history, session)[session >= 0], self.table())

    @property
    def draws_negatives(self) -> bool:
        """Whether a step compares with drawn items, since the catalogue has more of them."""
        return 0 < self.negatives < self.num_items

    def sampled_logits(self, history: Tensor, session: Tensor) -> Tensor:
        """The same logits for each item itself and for S items, drawn uniformly for the batch.

        The drawn ones are raised by the logarithm of how many items each stands for, so that their
        softmax estimates the one over all items (Jean et al., 1412.2007, section 3); drawing all
        gives it exactly.

        Returns:
            (R, 1 + S), the item itself first. Where it was drawn, too, that place is -inf.
        """
        own = session[session >= 0]
        states = self.state(self.dropout(self._states(history, session)[session >= 0]))
        drawn = torch.randperm(self.num_items, device=own.device)[: self.negatives]
        itself = drawn == own.unsqueeze(1)
        stands_for = (self.num_items - 1) / (len(drawn) - itself.sum(1, keepdim=True))
        others = states @ self.of(drawn).T + stands_for.log()
        scores = (states * self.of(own)).sum(1, keepdim=True)
        return torch.cat([scores, others.masked_fill(itself, -torch.inf)], 1)

    def next_item_logits(self, history: Tensor) -> Tensor:
        """(B, N) logits of the head with its own encoder after histories (B, H)."""
        return self._scores(self.state_after(history), self.table())

    def _states(self, history: Tensor, session: Tensor) -> Tensor:
        """(B, M, D) the own encoder's state before each item of a session."""
        assert self.encoder is not None, "the head has its own encoder"
        before = followed_by(history, session[:, :-1])
        vectors = self.of(before) * self.items.embedding_dim**0.5
        return _at(self.encoder(vectors, before >= 0), _places(history, session))

    def _kept(self, learned: Tensor) -> Tensor:
        """Embeddings (..., D), zeros for a random share of them in training."""
        if not (self.training and self.item_dropout):
            return learned
        shape = (*learned.shape[:-1], 1)
        return learned * (torch.rand(shape, device=learned.device) >= self.item_dropout)

    def forward(self, states: Tensor, table: Tensor | None = None) -> Tensor:
        """(..., D) states to (..., N) logits; `table` saves making it again."""
        return self._scores(states, self.table() if table is None else table)

    def _scores(self, states: Tensor, table: Tensor) -> Tensor:
        return self.state(self.dropout(states)) @ table.T

    @torch.no_grad()
    def cover(self, vectors: Tensor) -> None:
        """Take the vectors (N', Dv) of a catalogue that has grown; new items have no embedding.

        Raises:
            ValueError: The catalogue has fewer items, or vectors of another width.
        """
        new = len(vectors) - self.num_items
        if new < 0 or vectors.shape[1] != self.vectors.shape[1]:
            raise ValueError(
                f"vectors has shape {tuple(vectors.shape)}: the dense head was trained on "
                f"{tuple(self.vectors.shape)}; use a later day of the same tokenizer version"
            )
        learned = self.items.weight
        self.items = nn.Embedding(
            len(vectors),
            learned.shape[1],
            _weight=torch.cat([learned, learned.new_zeros(new, learned.shape[1])]),
        ).requires_grad_(learned.requires_grad)
        self.vectors = vectors.to(self.vectors)
