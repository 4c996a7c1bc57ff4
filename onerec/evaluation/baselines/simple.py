"""Counting baselines: popularity and item-KNN; and what every system is, a `Ranker`."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from onerec.evaluation.interactions import Interactions

CHUNK_CELLS = 4_000_000
"""Scores held at once."""
TIE_SHARE = 1e-9
"""Weight of popularity beside item-KNN's scores: decides ties and nothing else."""
HALF_LIFE_DAYS = 2.0
"""Of a watch, for recent popularity. A setting of the method, not tuned on any test day."""


class Ranker(Protocol):
    """Anything that turns a history into a ranked list."""

    def rank(self, history: np.ndarray, *, top_k: int) -> np.ndarray:
        """Lists of item indices.

        Args:
            history: (C, H) item indices, oldest first, -1 padded.
            top_k: Length of each list.

        Returns:
            (C, top_k) item indices, best first, -1 padded where candidates run out.
        """
        ...


@dataclass(frozen=True)
class Popularity:
    """The same list for everyone: what was watched most.

    Attributes:
        weights: (N,) watch counts of the window, decayed or not.
        candidates: (N,) booleans: items that may be listed.
    """

    weights: np.ndarray
    candidates: np.ndarray

    def rank(self, history: np.ndarray, *, top_k: int) -> np.ndarray:
        """See `Ranker.rank`; equal counts are listed in the order of the semantic-ID table."""
        order = np.argsort(-self.weights, kind="stable")
        order = order[self.candidates[order]][:top_k]
        one = np.full(top_k, -1, dtype=np.int64)
        one[: len(order)] = order
        return np.broadcast_to(one, (len(history), top_k))


@dataclass(frozen=True)
class ItemKNN:
    """Items whose watchers overlap most with those of the history's items.

    Attributes:
        similarity: (N, N) sparse, row i holds the cosine similarities of i's nearest neighbours.
        popularity: (N,) watch counts; order what no neighbour speaks for, and break ties.
        candidates: (N,) booleans: items that may be listed.
    """

    similarity: sp.csr_array
    popularity: np.ndarray
    candidates: np.ndarray

    def rank(self, history: np.ndarray, *, top_k: int) -> np.ndarray:
        """See `Ranker.rank`; similarities are summed over the history's items."""
        num_items = len(self.candidates)
        width = min(top_k, int(self.candidates.sum()))
        by_popularity = np.empty(num_items)
        by_popularity[np.argsort(-self.popularity, kind="stable")] = np.arange(num_items)
        base = np.where(self.candidates, -by_popularity / num_items * TIE_SHARE, -np.inf)
        lists = np.full((len(history), top_k), -1, dtype=np.int64)
        chunk = max(1, CHUNK_CELLS // num_items)
        for start in range(0, len(history), chunk):
            rows = history[start : start + chunk]
            known = sp.csr_array(watched_indicator(rows, num_items) @ self.similarity)
            scores = known.toarray() + base
            best = np.argpartition(-scores, width - 1, axis=1)[:, :width]
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
            lists[start : start + len(rows), :width] = np.take_along_axis(best, order, 1)
        return lists


def fit_popularity(
    interactions: Interactions, candidates: np.ndarray, *, half_life_days: float | None = None
) -> Popularity:
    """Count watches over the window; with a half-life, recent ones count more."""
    return Popularity(interactions.watches(half_life_days=half_life_days), candidates)


def fit_item_knn(interactions: Interactions, candidates: np.ndarray, *, neighbours: int) -> ItemKNN:
    """Cosine similarity of the items' sets of watchers, the nearest neighbours of each item kept.

    Args:
        interactions: The window; a user's histories count as watched.
        candidates: (N,) booleans.
        neighbours: Neighbours kept per item; equal similarities keep the lower item index.

    Returns:
        A ranker. An item is not its own neighbour.
    """
    user, item = interactions.watched_pairs()
    shape = (len(interactions.user_ids), interactions.num_items)
    watched = sp.csr_array((np.ones(len(user)), (user, item)), shape=shape)
    together = (watched.T @ watched).tocoo()
    row, column = (np.asarray(axis, dtype=np.int64) for axis in together.coords)
    watchers = np.bincount(item, minlength=interactions.num_items).astype(float)
    cosine = together.data / np.sqrt(watchers[row] * watchers[column])
    other = row != column
    row, column, cosine = row[other], column[other], cosine[other]
    order = np.lexsort((column, -cosine, row))
    row, column, cosine = row[order], column[order], cosine[order]
    starts = np.searchsorted(row, row)  # where each row's entries begin
    near = np.arange(len(row)) - starts < neighbours
    similarity = sp.csr_array(
        (cosine[near], (row[near], column[near])), shape=(interactions.num_items,) * 2
    )
    return ItemKNN(similarity, interactions.watches(), candidates)


def watched_indicator(history: np.ndarray, num_items: int) -> sp.csr_array:
    """(C, N) sparse: 1 where the item is in the history, however often."""
    rows, places = np.nonzero(history >= 0)
    keys = np.unique(rows.astype(np.int64) * num_items + history[rows, places])
    shape = (len(history), num_items)
    return sp.csr_array((np.ones(len(keys)), (keys // num_items, keys % num_items)), shape=shape)
