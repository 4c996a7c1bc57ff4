"""What sequence models learn from: every user's positives in time order, of the training days and
of the newest ones.

Shapes: U users, W windows, H items a model reads, E exposures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onerec.catalogue import Catalogue
from onerec.evaluation.baselines.transformer import SequenceRanker
from onerec.evaluation.ndcg_by_weight import NdcgByWeight
from onerec.evaluation.recency import RecencyCases
from onerec.session_dataset.eval_users import EvalUsers
from onerec.session_dataset.holdout import load_newest_sequences
from onerec.session_dataset.padding import padded_slices
from onerec.session_dataset.splits import LEARNED
from onerec.session_dataset.user_sequences import cut_backwards, load_user_sequences


@dataclass(frozen=True, kw_only=True)
class WindowData:
    """What a sequence baseline is trained and chosen on.

    Attributes:
        windows: (W, L + 1) item indices of the training days, -1 padded on the right.
        valid: Users of the validation day; without any the last epoch counts.
        candidates: (N,) booleans: items that may be listed.
        valid_candidates: (N,) booleans: of them those that could be listed on the validation day;
            None: all.
        newest: What a last phase learns when the epoch is chosen; None leaves the phase out.
        newest_before: The same a day earlier, without the validation day.
        recency: What the weight of the recency prior is chosen on; None leaves the prior out.
        served: The model that could serve lists on the validation day, whose lists choose that
            weight; None: the trained model as it would be without that day.
        earlier: What nightly runs before measured of that weight, for the same model.
    """

    windows: np.ndarray
    valid: EvalUsers
    candidates: np.ndarray
    valid_candidates: np.ndarray | None = None
    newest: "NewestWindows | None" = None
    newest_before: "NewestWindows | None" = None
    recency: RecencyCases | None = None
    served: SequenceRanker | None = None
    earlier: Sequence[NdcgByWeight] = ()


@dataclass(frozen=True, kw_only=True)
class NewestWindows:
    """What users watched or liked on the newest days, after what they had watched before.

    Attributes:
        items: (W, L + 1) item indices, -1 padded on the right.
        learned: (W, L + 1) booleans: items of the newest days; the others are only read.
    """

    items: np.ndarray
    learned: np.ndarray


def load_windows(directory: Path, catalogue: Catalogue, *, history_length: int) -> np.ndarray:
    """Cut every user's positives of the training days into windows, from the last one backwards.

    A sequence begins with the history of the user's first session, so that nothing a generator may
    read is kept from a baseline. Neighbouring windows share one item, so that every step from an
    item to the next is learned once.

    Args:
        directory: Files of a `session_dataset` artifact; only `train` is read.
        catalogue: Items it does not know are dropped.
        history_length: H.

    Returns:
        (W, H + 1) item indices, oldest first, -1 padded on the right; at least two items each.

    Raises:
        ValueError: No user has two positives.
    """
    found = load_user_sequences(directory, catalogue)
    windows = cut_windows(found.item, found.user, history_length + 1)
    if not len(windows):
        raise ValueError(
            f"{directory}: no user has two positive items on the training days; use more days"
        )
    return windows


def load_newest_windows(
    directory: Path,
    catalogue: Catalogue,
    *,
    history_length: int,
    days: int,
    splits: Sequence[str] = LEARNED,
) -> NewestWindows:
    """The newest days as windows: what `load_newest_sequences` finds, every item of them learned
    once, after as many older items as a window has room for.

    Args:
        directory: Files of a `session_dataset` artifact; `test` is never read.
        catalogue: Items it does not know are dropped.
        history_length: H, the most items of a window that are learned.
        days: Number of the newest days.
        splits: Splits to read; `("train",)` ends the day before the validation day.
    """
    found, since = load_newest_sequences(directory, catalogue, days=days, splits=splits)
    newest = np.flatnonzero(found.day >= np.datetime64(since, "D"))
    begin, end, owner = cut_backwards(found.user[newest], history_length)
    begin, end = newest[begin], newest[end - 1] + 1
    start = np.maximum(end - (history_length + 1), np.searchsorted(found.user, owner))
    items = padded_slices(found.item, start, end, history_length + 1)
    is_newest = np.arange(history_length + 1) >= (begin - start)[:, None]
    return NewestWindows(items=items, learned=is_newest & (items >= 0))


def cut_windows(items: np.ndarray, owner: np.ndarray, width: int) -> np.ndarray:
    """Windows of each user's items, sharing one item with the next, aligned to the last item.

    Args:
        items: (E,) in time order within each user.
        owner: (E,) sorted.
        width: Items of a window, at least 2.

    Returns:
        (W, width), -1 padded on the right; users of one item have none.

    Examples:
        >>> cut_windows(np.array([4, 5, 6, 7, 9]), np.array([0, 0, 0, 0, 1]), 3).tolist()
        [[5, 6, 7], [4, 5, -1]]
    """
    assert width >= 2, "a window holds an item and the next"
    _, first, count = np.unique(owner, return_index=True, return_counts=True)
    windows_each = -(-(count - 1) // (width - 1))
    user = np.repeat(np.arange(len(count)), windows_each)
    number = np.arange(len(user)) - np.repeat(np.cumsum(windows_each) - windows_each, windows_each)
    last = first[user] + count[user] - 1 - number * (width - 1)
    start = np.maximum(last - width + 1, first[user])
    return padded_slices(items, start, last + 1, width)
