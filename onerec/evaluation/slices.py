"""Slices of the cases: by how well known the targets are, and by how much is known of the user.

* `cold`: items without an exposure in the window. `hot`: the third of the shown items that was
  shown most. `warm`: the other shown ones.
* `short` histories hold fewer than half of the places a history has, `long` ones the rest.
"""

import numpy as np

ITEM_SLICES = ("cold", "warm", "hot")
HISTORY_SLICES = ("short_history", "long_history")


def item_slices(exposures: np.ndarray, candidates: np.ndarray) -> dict[str, np.ndarray]:
    """Which items are cold, warm and hot.

    Args:
        exposures: (N,) how often each item was shown in the window.
        candidates: (N,) booleans: items that may be recommended; others are in no slice.

    Returns:
        (N,) booleans per name of `ITEM_SLICES`.

    Examples:
        >>> slices = item_slices(np.array([0, 1, 2, 9]), np.array([True] * 4))
        >>> [name for name in ITEM_SLICES for _ in range(int(slices[name].sum()))]
        ['cold', 'warm', 'warm', 'hot']
    """
    shown = (exposures > 0) & candidates
    # Places, not values, cut the thirds: equal counts cannot push a third over its size.
    order = np.argsort(-exposures, kind="stable")
    order = order[shown[order]]
    hot = np.zeros(len(exposures), dtype=bool)
    hot[order[: round(len(order) / 3)]] = True
    return {"cold": candidates & ~shown, "warm": shown & ~hot, "hot": hot}


def targets_in(targets: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The targets that are in a slice, the others made padding.

    Args:
        targets: (C, T_max) item indices, -1 padded.
        members: (N,) booleans.

    Returns:
        (C, T_max) item indices, -1 where not in the slice.
    """
    inside = (targets >= 0) & members[np.where(targets >= 0, targets, 0)]
    return np.where(inside, targets, -1)


def history_slices(history: np.ndarray) -> dict[str, np.ndarray]:
    """Which cases have a short and which a long history.

    Args:
        history: (C, H) item indices, -1 padded.

    Returns:
        (C,) booleans per name of `HISTORY_SLICES`.
    """
    short = (history >= 0).sum(1) * 2 < history.shape[1]
    return {"short_history": short, "long_history": ~short}
