"""The catalogue: which items there are, in which order, and since when.

An item's position is its index in every tensor, mask and list of a day. Tables that hold one row
per item (`SemanticIds`, `ItemEmbeddings`) are catalogues with further columns. Shapes: N items.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NO_LONGER_KNOWN = np.datetime64("1970-01-01", "D")
"""The day of withdrawal of items that a catalogue does not hold: before any on which lists are
made."""


@dataclass(frozen=True)
class Catalogue:
    """Attributes:
    item_ids: (N,) strings, each once.
    first_seen: (N,) datetime64[D], the first day on which the item could be shown.
    withdrawn_on: (N,) datetime64[D], the day whose delivery of the catalogue no longer held the
        item, NaT for an item that is still in it; None where no item was withdrawn.
    """

    item_ids: np.ndarray
    first_seen: np.ndarray
    withdrawn_on: np.ndarray | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def _value_set(self) -> pa.Array:
        return pa.array(self.item_ids, pa.string())

    def index_of(self, item_ids: Any) -> np.ndarray:
        """Item indices of ids (an Arrow or NumPy array), int64; -1 where unknown or null.

        >>> days = np.array(["2026-06-01", "2026-06-02"], "datetime64[D]")
        >>> Catalogue(np.array(["a", "b"], object), days).index_of(pa.array(["b", "z", None]))
        array([ 1, -1, -1])
        """
        if isinstance(item_ids, np.ndarray):
            item_ids = pa.array(item_ids, pa.string())
        found = pc.index_in(item_ids.cast(pa.string()), value_set=self._value_set)
        return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)

    def known_before(self, day: date) -> np.ndarray:
        """(N,) bool: items first seen before a day, all that a model of that day may learn or list.

        >>> days = np.array(["2026-06-01", "2026-06-02"], "datetime64[D]")
        >>> Catalogue(np.array(["a", "b"], object), days).known_before(date(2026, 6, 2))
        array([ True, False])
        """
        return self.first_seen < np.datetime64(day, "D")

    def candidates(self, day: date) -> np.ndarray:
        """(N,) bool: items that may be listed on a day: known before it and in the catalogue then.

        >>> first = np.array(["2026-06-01", "2026-06-01"], "datetime64[D]")
        >>> gone = np.array(["2026-06-03", "NaT"], "datetime64[D]")
        >>> catalogue = Catalogue(np.array(["a", "b"], object), first, withdrawn_on=gone)
        >>> catalogue.candidates(date(2026, 6, 3)), catalogue.candidates(date(2026, 6, 4))
        (array([ True,  True]), array([False,  True]))
        """
        known = self.known_before(day)
        if self.withdrawn_on is None:
            return known
        return known & ~(self.withdrawn_on < np.datetime64(day, "D"))  # NaT is before no day

    def withdrawn_days(self, item_ids: Any) -> np.ndarray:
        """(M,) datetime64[D] of some ids: their `withdrawn_on`, `NO_LONGER_KNOWN` for those that
        are not in it: corrected deliveries no longer hold them.

        >>> days = np.array(["2026-06-01"], "datetime64[D]")
        >>> Catalogue(np.array(["a"], object), days).withdrawn_days(np.array(["a", "z"], object))
        array([       'NaT', '1970-01-01'], dtype='datetime64[D]')
        """
        at = self.index_of(item_ids)
        found, held = np.full(len(at), NO_LONGER_KNOWN), at >= 0
        found[held] = "NaT" if self.withdrawn_on is None else self.withdrawn_on[at[held]]
        return found


def read_withdrawn_on(table: pa.Table) -> np.ndarray | None:
    """The column of a stored catalogue; None where an earlier version stored none."""
    if "withdrawn_on" not in table.column_names:
        return None
    return table["withdrawn_on"].to_numpy(zero_copy_only=False).astype("datetime64[D]")
