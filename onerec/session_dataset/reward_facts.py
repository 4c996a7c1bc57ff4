"""Point-in-time features ("facts") of items and users: outcomes of their earlier exposures.

No fact uses the block it describes or anything later: facts of an item are computed over the days
before the block's day, facts of a user over the exposures before the block. So training blocks have
the same features as candidates have when they are served.

Facts of items use the exposures of some users only (`counted_users`), so that the reward model and
the evaluator share no exposure, not even through a rate. Facts of a user use the user's own
exposures, on either side.

Shapes: E exposures, S outcomes, N items, R blocks, M items of a block, U users, Fi and Fu facts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onerec.catalogue import Catalogue
from onerec.session_dataset.item_attributes import ItemAttributes
from onerec.session_dataset.reader import (
    dates_of,
    exposure_numbers,
    exposure_signals,
    items_of,
    read_sessions,
    read_signals,
    users_of,
)
from onerec.session_dataset.reward_blocks import RewardBlocks, watched_share
from onerec.session_dataset.splits import LEARNED

SMOOTHING = 10.0
"""Pseudo-count: exposures of average outcome that smooth the rates of items, authors and users."""
RECENT = 10
"""Newest exposures of a user, of which separate rates are computed."""
RECENT_SMOOTHING = 3.0


@dataclass(frozen=True, kw_only=True)
class ExposureLog:
    """E exposures of known items, ordered by user, then by time.

    Attributes:
        user_ids: (U,) the users, sorted.
        user: (E,) rows of `user_ids`.
        started_at: (E,) datetime64[us], UTC, when the exposure's session began.
        day: (E,) datetime64[D], its day in the log's time zone.
        item: (E,) item indices.
        outcomes: (E, S) numbers: 1 where a declared signal's condition holds, the logarithm of
            1 + watch seconds, and the share watched.
        names: S names of the outcomes.
        attributes: Of the N items.
        first_seen: (N,) datetime64[D].
    """

    user_ids: np.ndarray
    user: np.ndarray
    started_at: np.ndarray
    day: np.ndarray
    item: np.ndarray
    outcomes: np.ndarray
    names: tuple[str, ...]
    attributes: ItemAttributes
    first_seen: np.ndarray

    @property
    def item_fact_names(self) -> tuple[str, ...]:
        """Fi names, in the order of `item_facts`."""
        return (
            "log_duration",
            "log_age",
            "log_shown",
            *self.names,
            "author_log_shown",
            *(f"author_{name}" for name in self.names),
        )

    @property
    def user_fact_names(self) -> tuple[str, ...]:
        """Fu names, in the order of `user_facts`."""
        return (
            "log_exposures",
            *self.names,
            *(f"recent_{name}" for name in self.names),
            "log_hours_since",
            "place",
            "hour_sin",
            "hour_cos",
        )

    def item_facts(self, day: np.datetime64, counted_users: np.ndarray) -> np.ndarray:
        """(N, Fi) float32 facts of items at the beginning of a day; NaN where unknown.

        Rates of an item are smoothed towards its author's, those of an author towards the mean.

        Args:
            day: Exposures of earlier days count.
            counted_users: (U,) booleans, users whose exposures count.
        """
        counted = (self.day < day) & counted_users[self.user]
        item, outcomes = self.item[counted], self.outcomes[counted]
        overall = outcomes.mean(0) if len(item) else np.full(len(self.names), np.nan)
        author = self.attributes.author
        authors = int(author.max(initial=-1)) + 2  # the last one is the unknown author
        made_by = np.where(author >= 0, author, authors - 1)
        by_author, author_shown = _smoothed(made_by[item], outcomes, authors, overall)
        by_author[-1], author_shown[-1] = overall, 0
        rates, shown = _smoothed(item, outcomes, len(author), by_author[made_by])
        age = (day - self.first_seen).astype(float)
        columns = [
            np.log(self.attributes.duration_seconds),
            np.log1p(np.maximum(age, 0)),
            np.log1p(shown),
            *rates.T,
            np.log1p(author_shown)[made_by],
            *by_author[made_by].T,
        ]
        return np.stack(columns, -1).astype(np.float32)

    def user_facts(self, blocks: RewardBlocks, counted_users: np.ndarray) -> np.ndarray:
        """(R, Fu) float32 facts of users just before each block; NaN where unknown.

        Args:
            blocks: Their labels are not used.
            counted_users: (U,) booleans, users whose exposures before the block's day make the
                mean rate that a user's rates are smoothed towards.
        """
        begin, end = self._exposures_before(blocks)
        sums = np.concatenate([np.zeros((1, len(self.names))), self.outcomes.cumsum(0)])
        overall = self._overall_before(blocks.date, counted_users)
        num = (end - begin)[:, None]
        rates = (sums[end] - sums[begin] + SMOOTHING * overall) / (num + SMOOTHING)
        newest = np.maximum(begin, end - RECENT)
        recent = (sums[end] - sums[newest] + RECENT_SMOOTHING * rates) / (
            (end - newest)[:, None] + RECENT_SMOOTHING
        )
        last = self.started_at[np.maximum(end - 1, 0)]
        hours = (blocks.started_at - last) / np.timedelta64(1, "h")
        angle = 2 * np.pi * blocks.hour / 24
        columns = [
            np.log1p(end - begin),
            *rates.T,
            *recent.T,
            np.where(end > begin, np.log1p(np.maximum(hours, 0)), np.nan),
            blocks.place.numpy(),
            np.sin(angle),
            np.cos(angle),
        ]
        return np.stack(columns, -1).astype(np.float32)

    def facts_of(self, blocks: RewardBlocks, counted_users: np.ndarray) -> tuple[Tensor, Tensor]:
        """Facts of blocks: of their items (R, M, Fi), 0 where padded, and their users (R, Fu)."""
        items = blocks.items.numpy()
        by_item = np.zeros((*items.shape, len(self.item_fact_names)), dtype=np.float32)
        for day in np.unique(blocks.date):
            rows = blocks.date == day
            table = self.item_facts(day, counted_users)
            by_item[rows] = table[np.maximum(items[rows], 0)]
        by_item[items < 0] = 0
        by_user = self.user_facts(blocks, counted_users)
        return torch.from_numpy(by_item), torch.from_numpy(by_user)

    def _exposures_before(self, blocks: RewardBlocks) -> tuple[np.ndarray, np.ndarray]:
        """(R,) first exposure of each block's user, and (R,) the end of those before the block.

        Earlier blocks of the same session are full and count as before the block.
        """
        times = np.unique(self.started_at)
        width = len(times) + 1
        key = self.user * width + np.searchsorted(times, self.started_at)
        row = np.searchsorted(self.user_ids, blocks.user_ids)
        known = row < len(self.user_ids)
        row = np.where(known, row, 0)
        known &= self.user_ids[row] == blocks.user_ids
        user, known = row[blocks.user.numpy()], known[blocks.user.numpy()]
        begin = np.searchsorted(key, user * width)
        now = user * width + np.searchsorted(times, blocks.started_at)
        end = np.searchsorted(key, now) + blocks.place.numpy() * blocks.items.shape[1]
        end = np.minimum(end, np.searchsorted(key, now, side="right"))
        return np.where(known, begin, 0), np.where(known, end, 0)

    def _overall_before(self, dates: np.ndarray, counted_users: np.ndarray) -> np.ndarray:
        """(R, S) mean outcomes of the counted users before each date; NaN on the first day."""
        days, row = np.unique(dates, return_inverse=True)
        counted = counted_users[self.user]
        means = np.full((len(days), len(self.names)), np.nan)
        for number, day in enumerate(days):
            before = counted & (self.day < day)
            if before.any():
                means[number] = self.outcomes[before].mean(0)
        return means[row]


def load_exposure_log(
    directory: Path,
    catalogue: Catalogue,
    attributes: ItemAttributes,
    splits: Sequence[str] = LEARNED,
) -> ExposureLog:
    """Read the exposures of a session dataset.

    Args:
        directory: Files of the artifact.
        catalogue: Exposures of items that it does not know are left out.
        attributes: Of its items.
        splits: `test` belongs to them only where blocks of the test day want their facts.
    """
    columns = ["user_id", "session_date", "started_at", "item_ids", "watch_seconds", "signals"]
    table, declared = read_sessions(directory, splits, columns), read_signals(directory)
    item, session = items_of(table, "item_ids", catalogue)
    user_ids, user = users_of(table)
    started = table["started_at"].to_numpy().astype("datetime64[us]")
    known = np.flatnonzero(item >= 0)
    order = known[np.lexsort((known, started[session[known]], user[session[known]]))]
    met = exposure_signals(table, len(declared))
    seconds = exposure_numbers(table, "watch_seconds")
    share = watched_share(seconds, attributes.duration_seconds[item])
    outcomes = {signal.name: met[:, i] for i, signal in enumerate(declared)}
    if seconds.any():
        outcomes |= {"log_seconds": np.log1p(seconds)}
        outcomes |= {"watch_share": share} if attributes.has_durations else {}
    outcomes = {n: v[order] for n, v in outcomes.items()}
    # a condition that every exposure meets, or none, says nothing
    outcomes = {n: v for n, v in outcomes.items() if len(v) and v.min() < v.max()}
    return ExposureLog(
        user_ids=user_ids,
        user=user[session[order]],
        started_at=started[session[order]],
        day=dates_of(table)[session[order]],
        item=item[order],
        outcomes=np.stack([*outcomes.values()], -1).astype(np.float64)
        if outcomes
        else np.zeros((len(order), 0)),
        names=tuple(outcomes),
        attributes=attributes,
        first_seen=catalogue.first_seen,
    )


def _smoothed(
    key: np.ndarray, outcomes: np.ndarray, num_keys: int, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(K, S) mean outcomes of the exposures (E,) of each key, smoothed, and (K,) their number."""
    shown = np.bincount(key, minlength=num_keys).astype(float)
    sums = (
        np.stack([np.bincount(key, column, minlength=num_keys) for column in outcomes.T], -1)
        if outcomes.shape[1]
        else np.zeros((num_keys, 0))
    )
    return (sums + SMOOTHING * prior) / (shown + SMOOTHING)[:, None], shown
