"""Pairwise accuracy: share of pairs of sessions or items that a score orders as their outcomes.

Pairs are those within a group with different outcomes; a pair is concordant when the one with the
better outcome has the higher score, and half concordant when the scores are equal.

Shapes: R rows, G groups.
"""

import numpy as np


def pairs_in_order(
    scores: np.ndarray, outcomes: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Concordant pairs and all pairs, per group.

    For 0/1 outcomes their ratio is each group's AUC. Sorts once and loops over distinct outcomes,
    so that pairs are never enumerated.

    Args:
        scores: (R,).
        outcomes: (R,) with few distinct values, such as a reward of four labels.
        group: (R,) integers from 0.

    Returns:
        (G,) concordant pairs and (G,) pairs, where G is the largest group + 1.

    Examples:
        >>> group, score = np.array([0, 0, 0, 1, 1]), np.array([.9, .5, .1, .3, .3])
        >>> won, pairs = pairs_in_order(score, np.array([2.0, 0.0, 1.0, 1.0, 0.0]), group)
        >>> won.tolist(), pairs.tolist()
        ([2.0, 0.5], [3.0, 1.0])
    """
    num_groups = int(group.max(initial=-1)) + 1
    order = np.lexsort((scores, group))
    group, scores, outcomes = group[order], scores[order], outcomes[order]
    opens_group = np.diff(group, prepend=-1) != 0
    opens_tie = opens_group | (np.diff(scores, prepend=np.nan) != 0)
    first_of_group = _start_of_run(opens_group)
    first_of_tie = _start_of_run(opens_tie)
    after_tie = _end_of_run(opens_tie)
    won, pairs = np.zeros(num_groups), np.zeros(num_groups)
    for outcome in np.unique(outcomes)[1:]:
        better = outcomes == outcome
        worse = np.concatenate([[0], np.cumsum(outcomes < outcome)])  # before each row
        total = np.bincount(group, outcomes < outcome, minlength=num_groups)
        below = worse[first_of_tie] - worse[first_of_group]
        up_to = worse[after_tie] - worse[first_of_group]
        won += np.bincount(group, better * (below + up_to) / 2, minlength=num_groups)
        pairs += np.bincount(group, better, minlength=num_groups) * total
    return won, pairs


def _start_of_run(opens: np.ndarray) -> np.ndarray:
    """For every row the row where its run begins."""
    return np.maximum.accumulate(np.where(opens, np.arange(len(opens)), 0))


def _end_of_run(opens: np.ndarray) -> np.ndarray:
    """For every row the row after the last one of its run."""
    starts = np.append(np.flatnonzero(opens), len(opens))
    return starts[np.cumsum(opens)]
