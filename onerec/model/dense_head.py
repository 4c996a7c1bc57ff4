"""A dense head beside generation: a softmax over the items from the encoder's state, as in LIGER.

The vector of an item is a learned embedding plus a projection of what is known of it. In training
the embeddings of a random share of the items are left out of every step, so that the projection
alone has to do: which is what a new item has. The same vectors of a history's items join their
tokens in what the encoder reads (`OneRec.item_vectors`).

Shapes: B users, N items, D width, Dv width of the known vectors.
"""

import torch
from torch import Tensor, nn


class DenseHead(nn.Module):
    """Scores every item by a product with a state.

    Args:
        num_items: N.
        vector_dim: Dv.
        width: D.
        dropout: Of the states before the products.
        item_dropout: Share of the items whose embeddings a training step leaves out.

    Attributes:
        vectors: (N, Dv) known of the items; zeros until they are set.
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
    ) -> None:
        super().__init__()
        self.item_dropout = item_dropout
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

    def of(self, items: Tensor) -> Tensor:
        """(..., D) vectors of item indices (...), as `table` has them; of item 0 at padding."""
        items = items.clamp(min=0).to(self.vectors.device)
        return self._kept(self.items(items)) + self.known(self.vectors[items])

    def _kept(self, learned: Tensor) -> Tensor:
        """Embeddings (..., D), zeros for a random share of them in training."""
        if not (self.training and self.item_dropout):
            return learned
        shape = (*learned.shape[:-1], 1)
        return learned * (torch.rand(shape, device=learned.device) >= self.item_dropout)

    def forward(self, states: Tensor, table: Tensor | None = None) -> Tensor:
        """(..., D) states to (..., N) logits; `table` saves making it again."""
        return self.state(self.dropout(states)) @ (self.table() if table is None else table).T

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
        )
        self.vectors = vectors.to(self.vectors)
