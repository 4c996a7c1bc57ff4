"""Ranked lists, and the one interface of everything that makes them: `Ranker`.

Shapes: C cases (users), H history items, E excluded items, K places of a list, N items.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor


@dataclass(frozen=True)
class RankedLists:
    """Lists of many users, best first.

    Attributes:
        items: (C, K) item indices; -1 fills up where candidates run out.
        scores: (C, K) of the items: log-probabilities, similarities, and so on; -inf where there is
            no item. Lists are sorted by them, except where whole sessions or rewards come first.
        rewards: (C, K) what the reward model expects of the item, or of the session it is in; None
            without a reward model.

    Raises:
        ValueError: The columns differ in shape, or are no tables of item indices and numbers.
    """

    items: np.ndarray
    scores: np.ndarray
    rewards: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.items.ndim != 2 or not np.issubdtype(self.items.dtype, np.integer):
            raise ValueError(
                f"items is {self.items.dtype} of shape {self.items.shape}: use item indices, one "
                "row per user"
            )
        for name in ("scores", "rewards"):
            column = getattr(self, name)
            if column is not None and column.shape != self.items.shape:
                raise ValueError(
                    f"{name} is {column.shape}, items {self.items.shape}: use one each"
                )

    def __len__(self) -> int:
        return len(self.items)

    @staticmethod
    def padded(items: np.ndarray, scores: np.ndarray, top_k: int) -> "RankedLists":
        """Lists of exactly `top_k` places from sorted ones (C, any); -1 where a score is -inf.

        Examples:
            >>> lists = RankedLists.padded(np.array([[7, 3]]), np.array([[0.5, -np.inf]]), 3)
            >>> lists.items.tolist(), lists.scores.tolist()
            ([[7, -1, -1]], [[0.5, -inf, -inf]])
        """
        items = np.where(np.isneginf(scores), -1, items)[:, :top_k]
        short = ((0, 0), (0, top_k - items.shape[1]))
        return RankedLists(
            np.pad(items, short, constant_values=-1),
            np.pad(scores[:, :top_k], short, constant_values=-np.inf),
        )

    @staticmethod
    def best(items: np.ndarray, scores: np.ndarray, top_k: int) -> "RankedLists":
        """The `top_k` best of (C, any) items by score, the earlier one of equals; see `padded`.

        Examples:
            >>> RankedLists.best(np.array([[7, 3, 5]]), np.array([[0.1, 0.5, 0.1]]), 2).items
            array([[3, 7]])
        """
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        items, scores = (np.take_along_axis(column, order, 1) for column in (items, scores))
        return RankedLists.padded(items, scores, top_k)


class Ranker(Protocol):
    """Anything that turns histories into ranked lists: a baseline, a generator, a recommender."""

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> RankedLists:
        """Rank the catalogue for every user.

        Args:
            histories: (C, H) item indices, oldest first, -1 padded on the right.
            top_k: Length of each list.
            exclude: (C, E) item indices that the user must not get, -1 padded.
            candidates: (N,) booleans: the only items that are listed, of those the ranker may list
                at all; None narrows nothing.
            attributes: C rows, what is known of the users; rankers that do not read it ignore it.
        """
        ...


def with_kept_places(lists: RankedLists, kept: RankedLists, share: float) -> RankedLists:
    """Put items that a share of the places is kept for into lists, at even distances.

    Args:
        lists: (C, K).
        kept: (C, X) the items, best first; each comes once, at the better of its places.
        share: In (0, 1): the j-th of them (from 1) comes at place j / share, rounded up.

    Examples:
        >>> scores = np.zeros((1, 4))
        >>> lists = RankedLists(np.array([[1, 2, 3, 4]]), scores)
        >>> kept = RankedLists(np.array([[8, 9]]), scores[:, :2])
        >>> with_kept_places(lists, kept, 0.5).items.tolist()
        [[1, 8, 2, 9]]
    """
    length = lists.items.shape[1]
    place = np.ceil(np.arange(1, kept.items.shape[1] + 1) / share - 1e-9)
    # so many others come before a kept item; the kept one goes first where they are level
    others = place - np.arange(1, len(place) + 1)
    order = np.argsort(np.concatenate([np.arange(length), others - 0.5]), kind="stable")
    items = np.concatenate([lists.items, kept.items], 1)[:, order]
    first = first_occurrences(torch.from_numpy(items)).numpy()
    chosen = np.argsort(~first, axis=1, kind="stable")[:, :length]
    there = np.take_along_axis(first, chosen, 1)

    def merged(mine: np.ndarray, theirs: np.ndarray, nothing: float) -> np.ndarray:
        both = np.concatenate([mine, theirs], 1)[:, order]
        return np.where(there, np.take_along_axis(both, chosen, 1), nothing)

    return RankedLists(
        np.where(there, np.take_along_axis(items, chosen, 1), -1),
        merged(lists.scores, kept.scores, -np.inf),
        None
        if lists.rewards is None or kept.rewards is None
        else merged(lists.rewards, kept.rewards, np.nan),
    )


def narrowed(own: np.ndarray, candidates: np.ndarray | None) -> np.ndarray:
    """(N,) booleans: what a ranker may list of its own items."""
    return own if candidates is None else own & candidates


def is_excluded(items: np.ndarray, exclude: np.ndarray | None) -> np.ndarray:
    """Which items (C, K) are among the excluded ones (C, E) of their row.

    Examples:
        >>> is_excluded(np.array([[4, 7], [4, 7]]), np.array([[7, -1], [9, 4]])).tolist()
        [[False, True], [True, False]]
    """
    if exclude is None:
        return np.zeros(items.shape, dtype=bool)
    size = 1 + int(max(items.max(initial=0), exclude.max(initial=0)))
    row = np.arange(len(items))[:, None] * size
    return (items >= 0) & np.isin(row + items, (row + exclude)[exclude >= 0])


def exclude_scores(scores: np.ndarray | Tensor, exclude: np.ndarray | None) -> None:
    """Write -inf into scores of the whole catalogue (C, N) where a user must not get the item."""
    if exclude is not None:
        rows, places = np.nonzero(exclude >= 0)
        scores[rows, exclude[rows, places]] = -np.inf


def first_occurrences(items: Tensor) -> Tensor:
    """(C, K) booleans: the first place of every different item of a row, never padding.

    Examples:
        >>> first_occurrences(torch.tensor([[4, 7, 4, -1]])).tolist()
        [[True, True, False, False]]
    """
    ordered, order = items.sort(dim=1, stable=True)
    repeated = torch.zeros_like(ordered, dtype=torch.bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return torch.empty_like(repeated).scatter_(1, order, ~repeated) & (items >= 0)


def last_items(items: Tensor, length: int) -> Tensor:
    """The last items of each row in their order, holes closed.

    Args:
        items: (C, any) item indices, oldest first, -1 where there is none, also in between.
        length: Items kept.

    Returns:
        (C, length), -1 padded on the right.

    Examples:
        >>> last_items(torch.tensor([[4, -1, 6, 7], [8, -1, -1, -1]]), 2).tolist()
        [[6, 7], [8, -1]]
    """
    there = items >= 0
    place = there.cumsum(1) - 1 - (there.sum(1, keepdim=True) - length).clamp(min=0)
    place = torch.where(there & (place >= 0), place, length)  # column `length` is thrown away
    kept = items.new_full((len(items), length + 1), -1)
    return kept.scatter_(1, place, items)[:, :length]
