"""Item-level ranking metrics, one value per case.

Conventions, the same for every system:

* A list holds item indices, best first; -1 is padding and never a hit. An item listed twice counts
  at its first place only.
* Targets are a set: padding (-1) and duplicates are dropped.
* Recall@k = hits in the first k / number of targets. It is not capped at min(k, targets), so a case
  with more than k targets cannot reach 1.
* NDCG@k has binary gains and log2 discounts; the ideal list has min(k, targets) hits on top.
* MRR@k is 1 / place of the first hit, 0 when there is none in the first k.
* Only items count. Two items that share tokens are still two items.
"""

import numpy as np

METRICS = ("recall", "ndcg", "hit_rate", "mrr")


def per_case_metrics(
    ranked: np.ndarray, targets: np.ndarray, cutoffs: tuple[int, ...] = (5, 10, 20)
) -> dict[str, np.ndarray]:
    """Recall, NDCG, HitRate and MRR of every case at every cutoff.

    Args:
        ranked: (C, k_max) item indices, best first, -1 padded.
        targets: (C, T_max) item indices, -1 padded; at least one per case.
        cutoffs: List lengths, none above k_max.

    Returns:
        `recall@5`, `ndcg@5`, ... -> (C,) float64.

    Raises:
        ValueError: A cutoff is longer than the lists, a case has no target, or what is given is no
            table of item indices (semantic IDs, say: items that share tokens would count as one).

    Examples:
        >>> ranked = np.array([[7, 3, 9, 9], [4, -1, -1, -1]])
        >>> targets = np.array([[3, 9, 9], [5, -1, -1]])  # two different items, one item
        >>> values = per_case_metrics(ranked, targets, cutoffs=(2, 4))
        >>> values["recall@2"].tolist(), values["recall@4"].tolist()
        ([0.5, 0.0], [1.0, 0.0])
        >>> values["mrr@4"].tolist()
        [0.5, 0.0]
        >>> round(float(values["ndcg@4"][0]), 4)  # (1/log2(3) + 1/log2(4)) / (1 + 1/log2(3))
        0.6934
    """
    _check_items(ranked, "ranked")
    _check_items(targets, "targets")
    if max(cutoffs) > ranked.shape[1]:
        raise ValueError(
            f"cutoffs={cutoffs}: lists hold {ranked.shape[1]} items; ask for longer lists (a beam "
            f"of at least {max(cutoffs)}) or for shorter cutoffs"
        )
    hits, num_targets = hit_matrix(ranked, targets)
    if (num_targets == 0).any():
        raise ValueError(
            f"targets: {int((num_targets == 0).sum())} cases have none; leave them out of the cases"
        )
    places = np.arange(1, ranked.shape[1] + 1)
    gains = 1 / np.log2(places + 1)
    ideal = np.concatenate([[0.0], np.cumsum(gains)])
    first = np.where(hits.any(1), hits.argmax(1) + 1, np.iinfo(np.int64).max)
    values: dict[str, np.ndarray] = {}
    for k in cutoffs:
        found = hits[:, :k].sum(1)
        values[f"recall@{k}"] = found / num_targets
        values[f"ndcg@{k}"] = hits[:, :k] @ gains[:k] / ideal[np.minimum(num_targets, k)]
        values[f"hit_rate@{k}"] = (found > 0).astype(float)
        values[f"mrr@{k}"] = np.where(first <= k, 1 / first, 0.0)
    return values


def hit_matrix(ranked: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where lists meet targets.

    Args:
        ranked: (C, k_max) item indices, -1 padded.
        targets: (C, T_max) item indices, -1 padded.

    Returns:
        (C, k_max) booleans, and (C,) numbers of different targets.

    Examples:
        >>> hits, num_targets = hit_matrix(np.array([[2, 2, -1]]), np.array([[2, 2, 5, -1]]))
        >>> hits.tolist(), num_targets.tolist()
        ([[True, False, False]], [2])
    """
    if len(ranked) != len(targets):
        raise ValueError(
            f"ranked={ranked.shape}, targets={targets.shape}: give one list and one row of targets "
            "per case"
        )
    width = int(max(ranked.max(initial=-1), targets.max(initial=-1))) + 1
    ranked_keys, target_keys = _keys(ranked, width), np.unique(_keys(targets, width))
    target_keys = target_keys[target_keys >= 0]
    num_targets = np.bincount(target_keys // max(width, 1), minlength=len(targets))
    first_place = np.zeros(ranked.size, dtype=bool)
    first_place[np.unique(ranked_keys, return_index=True)[1]] = True
    hits = (
        np.isin(ranked_keys, target_keys) & (ranked_keys >= 0) & first_place.reshape(ranked.shape)
    )
    return hits, num_targets


def _keys(items: np.ndarray, width: int) -> np.ndarray:
    """One number per (case, item), -1 for padding: set operations on it need no loop over cases."""
    cases = np.arange(len(items), dtype=np.int64)[:, None]
    return np.where(items >= 0, cases * width + items, -1)


def _check_items(items: np.ndarray, name: str) -> None:
    if items.ndim != 2 or not np.issubdtype(items.dtype, np.integer):
        raise ValueError(
            f"{name} is {items.dtype} of shape {items.shape}: metrics count items, so give item "
            "indices, one row per case; look semantic IDs up in their table first"
        )
