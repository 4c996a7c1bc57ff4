"""What was shown and watched in the training window: all that a baseline may learn from.

Reads the `train` and `valid` splits of a `session_dataset` artifact, never `test`: nothing of the
test day reaches a baseline, as nothing of it reaches the generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from onerec.tokenizer.semantic_ids import SemanticIds

WINDOW_SPLITS = ("train", "valid")
COLUMNS = ["user_id", "session_date", "history_item_ids", "item_ids", "is_watched"]


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """Exposures of the window, one per entry, items without a semantic ID left out.

    Attributes:
        num_items: N, rows of the semantic-ID table.
        user: (E,) number of the user.
        item: (E,) item index.
        age: (E,) days between the exposure and the test day, at least 1.
        is_watched: (E,) booleans.
        past_user: (P,) number of the user, for what they liked before the window's sessions.
        past_item: (P,) item index.
        user_ids: (U,) the users.
    """

    num_items: int
    user: np.ndarray
    item: np.ndarray
    age: np.ndarray
    is_watched: np.ndarray
    past_user: np.ndarray
    past_item: np.ndarray
    user_ids: np.ndarray

    def exposures(self) -> np.ndarray:
        """(N,) how often each item was shown."""
        return np.bincount(self.item, minlength=self.num_items)

    def watches(self, *, half_life_days: float | None = None) -> np.ndarray:
        """(N,) how often each item was watched; old watches count less with a half-life."""
        weight = self.is_watched.astype(float)
        if half_life_days is not None:
            weight *= 0.5 ** ((self.age - 1) / half_life_days)
        return np.bincount(self.item, weight, minlength=self.num_items)

    def watched_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Different (user, item) pairs: watched in the window, or in a history of it."""
        user = np.concatenate([self.user[self.is_watched], self.past_user])
        item = np.concatenate([self.item[self.is_watched], self.past_item])
        keys = np.unique(user * self.num_items + item)
        return keys // self.num_items, keys % self.num_items


def load_interactions(
    directory: Path,
    semantic_ids: SemanticIds,
    *,
    test_day: date,
    splits: Sequence[str] = WINDOW_SPLITS,
) -> Interactions:
    """Read the window of a `session_dataset` artifact.

    Args:
        directory: Files of the artifact.
        semantic_ids: The catalogue.
        test_day: Day D; every session read is of an earlier day.
        splits: Days read; without `valid` the day before D is left out, too.

    Raises:
        ValueError: The window holds nothing, or a session of the test day or later.
    """
    files = [f for s in splits for f in sorted((directory / f"split={s}").glob("*.parquet"))]
    if not files:
        raise ValueError(
            f"{directory}: no session before {test_day}; ingest the days of the window first"
        )
    table = pads.dataset([str(f) for f in files], format="parquet").to_table(columns=COLUMNS)
    table = table.combine_chunks()
    day = table.column("session_date").to_numpy().astype("datetime64[D]")
    age = (np.datetime64(test_day, "D") - day).astype(np.int64)
    if len(age) and age.min() < 1:
        raise ValueError(
            f"{directory}: the window holds a session of {day.max()}, but the test day is "
            f"{test_day}; materialise session_dataset again"
        )
    users = table.column("user_id").combine_chunks().dictionary_encode()
    codes, names = users.indices.to_numpy().astype(np.int64), users.dictionary
    rows, items = _flat_items(table, "item_ids", semantic_ids)
    known = items >= 0
    watched = pc.fill_null(table.column("is_watched").combine_chunks().flatten(), False)
    past_rows, past_items = _flat_items(table, "history_item_ids", semantic_ids)
    past_known = past_items >= 0
    return Interactions(
        num_items=len(semantic_ids.item_ids),
        user=codes[rows[known]],
        item=items[known],
        age=age[rows[known]],
        is_watched=watched.to_numpy(zero_copy_only=False).astype(bool)[known],
        past_user=codes[past_rows[past_known]],
        past_item=past_items[past_known],
        user_ids=names.to_numpy(zero_copy_only=False),
    )


def _flat_items(
    table: pa.Table, column: str, semantic_ids: SemanticIds
) -> tuple[np.ndarray, np.ndarray]:
    """Row of the table and item index of every entry of a list column."""
    lists = table.column(column).combine_chunks()
    rows = lists.value_parent_indices().to_numpy().astype(np.int64)
    return rows, semantic_ids.index_of(lists.flatten())
