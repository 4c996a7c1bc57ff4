"""What is known of users, in what the generator reads: one vector beside the start token.

Attributes are texts (`onerec.session_dataset.user_attributes`). A checkpoint keeps the vocabulary
that it was trained with; a value that it lacks, a user without attributes and a log without any are
read as unknown, which has an embedding of its own.

Shapes: B batch, U users, F attributes, H history items, D width.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from onerec.session_dataset.user_attributes import FEWEST_USERS

MOST_VALUES = 100
"""Values of an attribute that get an embedding, the most frequent ones."""
UNKNOWN_SHARE = 0.1
"""Share of the rows of a training step whose user is unknown, so that such a user is learned."""


@dataclass(frozen=True)
class UserVocabulary:
    """The attributes and values that a generator knows; it numbers them in alphabetical order.

    Attributes:
        values: The known values of each attribute: value i has the code i + 1, 0 is unknown.
    """

    values: Mapping[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes, sorted."""
        return tuple(sorted(self.values))

    @classmethod
    def of(cls, attributes: pa.Table) -> "UserVocabulary":
        """The most frequent values among some users.

        Args:
            attributes: A row for each user, for every attribute a column of texts, numbered or not.
        """
        return cls({n: _frequent(attributes.column(n)) for n in attributes.column_names})

    def known_shares(self, attributes: pa.Table) -> dict[str, float]:
        """Of each attribute the share of the users with a value whose value is known.

        Args:
            attributes: A row for each user; an attribute that it lacks is left out, as is one that
                no user has a value of.
        """
        known = (self.codes(attributes, len(attributes)) > 0).sum(0).tolist()
        return {
            name: number / given
            for name, number in zip(self.names, known, strict=True)
            if name in attributes.column_names
            and (given := len(attributes) - attributes.column(name).null_count)
        }

    def codes(self, attributes: pa.Table | None, num_users: int) -> Tensor:
        """(U, F) long codes of users.

        Args:
            attributes: U rows; columns that it does not know are left out, those that are missing
                are unknown. None: nobody is known.
            num_users: U.
        """
        found = torch.zeros(num_users, len(self.values), dtype=torch.long)
        for place, name in enumerate(self.names):
            if attributes is not None and name in attributes.column_names:
                known = pa.array(self.values[name], pa.string())
                at = pc.fill_null(pc.index_in(attributes.column(name), value_set=known), -1)
                found[:, place] = torch.from_numpy(at.to_numpy().copy()) + 1
        return found


def _frequent(column: pa.ChunkedArray) -> tuple[str, ...]:
    counts = pc.value_counts(column.drop_null())
    # numbered texts cannot be sorted
    values = counts.field("values").cast(pa.string())
    found = pa.table({"value": values, "users": counts.field("counts")})
    kept = found.sort_by([("users", "descending"), ("value", "ascending")])[:MOST_VALUES]
    return tuple(kept.filter(pc.field("users") >= FEWEST_USERS).column("value").to_pylist())


class UserFeatures(nn.Module):
    """Embeddings of attributes, summed to one vector for each user; zeros until they are learned.

    Nothing random is drawn when it is made, so that the rest of a model starts as it would without.

    Args:
        vocabulary: The attributes and their values.
        width: D.
    """

    first: Tensor

    def __init__(self, vocabulary: UserVocabulary, width: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        rows = [len(vocabulary.values[name]) + 1 for name in vocabulary.names]
        self.embedding = nn.Embedding.from_pretrained(torch.zeros(sum(rows), width), freeze=False)
        first = torch.tensor([0, *accumulate(rows)][:-1])
        self.register_buffer("first", first, persistent=False)

    def forward(self, users: Tensor) -> Tensor:
        """(B, F) codes -> (B, D); of one scale, however many attributes there are."""
        if self.training:
            forgotten = torch.rand(len(users), 1, device=users.device) < UNKNOWN_SHARE
            users = users.masked_fill(forgotten, 0)
        return self.embedding(users + self.first).sum(1) / users.shape[1] ** 0.5


@dataclass
class UserHistories:
    """Histories of users of whom a model knows something.

    Not frozen: where a precision converts batches, Lightning sets the fields of a copy.

    Attributes:
        items: (B, H) item indices, oldest first, -1 padded.
        users: (B, F) codes of the users, see `UserVocabulary.codes`.
    """

    items: Tensor
    users: Tensor

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, rows: slice | Tensor) -> "UserHistories":
        """Some of the users."""
        return UserHistories(self.items[rows], self.users[rows])

    def split(self, size: int) -> list["UserHistories"]:
        """So many users at a time."""
        parts = zip(self.items.split(size), self.users.split(size), strict=True)
        return [UserHistories(*part) for part in parts]

    def to(self, device: torch.device | str) -> "UserHistories":
        """On a device."""
        return UserHistories(self.items.to(device), self.users.to(device))


Histories = Tensor | UserHistories
"""What lists and sessions are made from: item indices (B, H), with or without who the users are."""


def items_of(histories: Histories) -> Tensor:
    """(B, H) item indices."""
    return histories.items if isinstance(histories, UserHistories) else histories


def users_of(histories: Histories) -> Tensor | None:
    """(B, F) codes of the users; None where nobody is known."""
    return histories.users if isinstance(histories, UserHistories) else None


def joined(first: Histories, second: Histories) -> Histories:
    """The users of both, one after the other; of either both are known or none."""
    items = torch.cat([items_of(first), items_of(second)])
    one, other = users_of(first), users_of(second)
    if one is None or other is None:
        assert one is other, "of either both users are known or none"
        return items
    return UserHistories(items, torch.cat([one, other]))
