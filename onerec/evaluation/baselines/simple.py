"""Counting baselines: popularity, a user's own repeats and item-KNN."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from onerec.model.item_neighbours import SMOOTHING
from onerec.ranked_lists import RankedLists, exclude_scores, is_excluded, narrowed
from onerec.session_dataset.co_occurrence import nearest_items
from onerec.session_dataset.interactions import Interactions
from onerec.session_dataset.padding import distinct

CHUNK_CELLS = 4_000_000
"""Scores held at once."""
TIE_SHARE = 1e-9
"""Weight of popularity beside item-KNN's scores: decides ties and nothing else."""


@dataclass(frozen=True)
class Popularity:
    """The same list for everyone: what was watched most.

    Attributes:
        weights: (N,) watch counts of the window, decayed or not.
        candidates: (N,) booleans: items that may be listed.
    """

    weights: np.ndarray
    candidates: np.ndarray

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`; equal counts are listed in the order of the semantic-ID table.

        The score is the log of the item's share of all watches, one watch added to every item.
        """
        order = np.argsort(-self.weights, kind="stable")
        order = order[narrowed(self.candidates, candidates)[order]]
        longest = top_k + (0 if exclude is None else exclude.shape[1])
        pool = np.tile(order[:longest], (len(histories), 1))
        scores = np.log((self.weights + 1) / (self.weights + 1).sum())[pool]
        refused = is_excluded(pool, exclude)
        kept = np.argsort(refused, axis=1, kind="stable")
        scores = np.where(refused, -np.inf, scores)
        return RankedLists.padded(
            np.take_along_axis(pool, kept, 1), np.take_along_axis(scores, kept, 1), top_k
        )


@dataclass(frozen=True)
class OwnRepeats:
    """What a user has in the history most often, the latest first of equals; then the popular.

    Attributes:
        fallback: Lists what comes after a history's own items.
    """

    fallback: Popularity

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`.

        The score of a history's own item is how often it is there, plus the place of its last time
        as a share of the history's length; popularity's scores are below 0.
        """
        allowed = narrowed(self.fallback.candidates, candidates)
        legal = allowed[np.maximum(histories, 0)] & ~is_excluded(histories, exclude)
        own = np.where(legal, repeat_scores(histories), -np.inf)
        known = histories if exclude is None else np.concatenate([histories, exclude], 1)
        popular = self.fallback.rank(histories, top_k, known, candidates)
        items = np.concatenate([histories, popular.items], 1)
        scores = np.concatenate([own, popular.scores], 1)
        return RankedLists.best(items, scores, top_k)


@dataclass(frozen=True)
class ItemKNN:
    """Items whose watchers overlap most with those of the history's items.

    Attributes:
        similarity: (N, N) sparse, row i holds the cosine similarities of i's nearest neighbours.
        popularity: (N,) watch counts; order items without a similar neighbour, and break ties.
        candidates: (N,) booleans: items that may be listed.
    """

    similarity: sp.csr_array
    popularity: np.ndarray
    candidates: np.ndarray

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`; similarities are summed over the history's items."""
        num_items, allowed = len(self.candidates), narrowed(self.candidates, candidates)
        width = min(top_k, int(allowed.sum()))
        by_popularity = np.empty(num_items)
        by_popularity[np.argsort(-self.popularity, kind="stable")] = np.arange(num_items)
        base = np.where(allowed, -by_popularity / num_items * TIE_SHARE, -np.inf)
        items = np.empty((len(histories), width), dtype=np.int64)
        sums = np.empty((len(histories), width))
        chunk = max(1, CHUNK_CELLS // num_items)
        for start in range(0, len(histories), chunk):
            part = slice(start, start + chunk)
            known = sp.csr_array(watched_indicator(histories[part], num_items) @ self.similarity)
            scores = known.toarray() + base
            exclude_scores(scores, None if exclude is None else exclude[part])
            best = np.argpartition(-scores, width - 1, axis=1)[:, :width]
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
            items[part] = np.take_along_axis(best, order, 1)
            sums[part] = np.take_along_axis(scores, items[part], 1)
        return RankedLists.padded(items, sums, top_k)


@dataclass(frozen=True)
class LogSimilarity:
    """Item-KNN's lists with log-probabilities, up to a constant, as scores: summed similarities,
    smoothed, as shares of the user's sum.

    Attributes:
        knn: What is ranked by.
    """

    knn: ItemKNN

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`."""
        lists = self.knn.rank(histories, top_k, exclude, candidates)
        scores = np.log(np.maximum(lists.scores, 0) + SMOOTHING)
        return RankedLists(lists.items, np.where(lists.items >= 0, scores, -np.inf))


def repeat_scores(histories: np.ndarray) -> np.ndarray:
    """How often the item of each place is in its history, plus its place as a share of H.

    Args:
        histories: (C, H) item indices, oldest first, -1 padded on the right.

    Returns:
        (C, H); -inf at padding and where the item comes again later.

    Examples:
        >>> repeat_scores(np.array([[7, 3, 7, -1]])).tolist()
        [[-inf, 1.25, 2.5, -inf]]
    """
    length = histories.shape[1]
    count = np.zeros(histories.shape)
    last = histories >= 0
    for place in range(length):  # C x H at a time instead of C x H x H
        same = histories == histories[:, place : place + 1]
        count += same
        last[:, :place] &= ~same[:, :place]
    return np.where(last, count + np.arange(length) / length, -np.inf)


def fit_item_knn(interactions: Interactions, candidates: np.ndarray, *, neighbours: int) -> ItemKNN:
    """The nearest neighbours of each item by its watchers, see `nearest_items`.

    Args:
        interactions: The window; a user's histories count as watched.
        candidates: (N,) booleans.
        neighbours: Neighbours kept per item.
    """
    similarity = nearest_items(interactions.watched, neighbours, candidates)
    return ItemKNN(similarity, interactions.watches, candidates)


def watched_indicator(history: np.ndarray, num_items: int) -> sp.csr_array:
    """(C, N) sparse: 1 where the item is in the history, however often."""
    rows, places = np.nonzero(history >= 0)
    keys = distinct(rows.astype(np.int64) * num_items + history[rows, places])
    shape = (len(history), num_items)
    return sp.csr_array((np.ones(len(keys)), (keys // num_items, keys % num_items)), shape=shape)
