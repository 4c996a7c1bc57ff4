"""The common interface of recommenders: item ids in, recommended item ids out.

Shapes: U users, N items, k list length.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from onerec.config import BeamConfig, require
from onerec.ranked_lists import RankedLists
from onerec.session_dataset.padding import first_of_each
from onerec.tokenizer.semantic_ids import SemanticIds

logger = logging.getLogger(__name__)

ItemId = str | int
Histories = Sequence[Sequence[ItemId]] | pa.Array | pa.ChunkedArray
UserAttributes = Mapping[str, str | None]
"""Values of a user by the names of attributes, all as text."""


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """One recommended item.

    Attributes:
        item_id: The item.
        rank: From 1, best first.
        score: Log-probability of the item as a session's first one (or given those before it, in
            the session with which a list begins), or the score that a simple system sorts by.
        reward: Scalar reward of the session or item; None without a reward model.
    """

    item_id: str
    rank: int
    score: float
    reward: float | None


class ItemIdRecommender(ABC):
    """Base class: translates item ids to item indices and back; subclasses implement `rank`.

    Attributes:
        semantic_ids: The catalogue.
        config: Decoding settings; `filter_seen` leaves items of the history out of lists.
    """

    semantic_ids: SemanticIds
    config: BeamConfig

    @property
    @abstractmethod
    def history_length(self) -> int:
        """n, the most recent items of a history that are read."""

    @property
    @abstractmethod
    def known_attributes(self) -> tuple[str, ...] | None:
        """Attributes of users that lists depend on; None: it takes any and reads none."""

    @abstractmethod
    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
        *,
        on_batch: Callable[[int, int], None] = lambda done, total: None,
    ) -> RankedLists:
        """See `onerec.ranked_lists.Ranker.rank`; `on_batch` gets the users done and their total."""

    def recommend(
        self,
        history: Sequence[ItemId],
        k: int = 5,
        *,
        exclude_seen: bool | None = None,
        user: UserAttributes | None = None,
    ) -> list[Recommendation]:
        """Recommend to one user.

        Args:
            history: Item ids, oldest first; the most recent ones are read. Integers are read as
                text. Unknown ids are ignored and counted in a log warning; a history without a
                known item is served like an empty one.
            k: How many items.
            exclude_seen: Leave out all items of the history; None follows `config.filter_seen`.
            user: What is known of the user: values by the names of attributes; spaces around them
                do not count. What is left out, or has a value that was not learned, is unknown.

        Returns:
            k recommendations, or fewer where the catalogue is too small.

        Raises:
            ValueError: The history is a text, or an attribute is none that the model learned, or no
                text.
        """
        if isinstance(history, str):
            raise ValueError(f"history={history!r}: use a list of item ids, e.g. [{history!r}]")
        users = None if user is None else [user]
        return self.recommend_batch([history], k, exclude_seen=exclude_seen, users=users)[0]

    def recommend_batch(
        self,
        histories: Histories,
        k: int = 5,
        *,
        exclude_seen: bool | None = None,
        users: Sequence[UserAttributes] | None = None,
    ) -> list[list[Recommendation]]:
        """`recommend` for many users; a user's list does not depend on the other users."""
        indices = self.index_histories(histories)
        without_seen = self.config.filter_seen if exclude_seen is None else exclude_seen
        ranking = self.rank(
            indices,
            k,
            exclude=indices if without_seen else None,
            attributes=self._attributes(users, len(indices)),
        )
        ids = self.semantic_ids.item_ids[np.maximum(ranking.items, 0)]
        rewards = ranking.scores if ranking.rewards is None else ranking.rewards
        return [
            [
                Recommendation(
                    item_id=str(item_id),
                    rank=place + 1,
                    score=score,
                    reward=None if ranking.rewards is None else reward,
                )
                for place, (item, item_id, score, reward) in enumerate(
                    zip(*row, strict=True)  # one user's k items
                )
                if item >= 0
            ]
            for row in zip(
                ranking.items.tolist(),
                ids,
                ranking.scores.tolist(),
                rewards.tolist(),
                strict=True,
            )
        ]

    def _attributes(
        self, users: Sequence[UserAttributes] | None, num_users: int
    ) -> pa.Table | None:
        """A text column for every attribute that the recommender reads."""
        if users is None or self.known_attributes is None:
            return None
        require(len(users) == num_users, "users", len(users), f"name all {num_users} or none")
        known = ", ".join(self.known_attributes)
        for name in sorted({name for user in users for name in user}):
            remedy = f"the model knows these attributes: {known}; leave others out"
            require(name in self.known_attributes, "user", name, remedy)
        texts = pa.schema([(name, pa.string()) for name in self.known_attributes])
        rows = [{name: _text(name, value) for name, value in user.items()} for user in users]
        return pa.Table.from_pylist(rows, schema=texts)

    def index_histories(self, histories: Histories) -> np.ndarray:
        """Item ids of many users -> (U, longest) item indices, -1 padded, without unknown ids."""
        lists: Any = histories  # pyarrow's types are not known to type checkers
        if not isinstance(lists, pa.Array | pa.ChunkedArray):
            texts = [[i if i is None else str(i) for i in history] for history in histories]
            lists = pa.array(texts, pa.list_(pa.string()))
        if isinstance(lists, pa.ChunkedArray):
            lists = lists.combine_chunks()
        lengths = np.asarray(lists.value_lengths().fill_null(0))
        items = np.asarray(self.semantic_ids.index_of(lists.flatten()))
        user = np.repeat(np.arange(len(lengths)), lengths)
        known = items >= 0
        if not known.all():
            logger.warning(
                "%d of %d history items are not in the catalogue and were ignored",
                int((~known).sum()),
                len(known),
            )
        items, user = items[known], user[known]
        longest = int(np.bincount(user, minlength=1).max())
        return first_of_each(items, user, len(lengths), longest).astype(np.int64)


def _text(name: str, value: Any) -> str | None:
    """A value of an attribute as it stands in the vocabulary."""
    remedy = f"use a text as in the table of users, {str(value)!r} say, or None"
    require(value is None or isinstance(value, str), f"user.{name}", value, remedy)
    return value and value.strip()
