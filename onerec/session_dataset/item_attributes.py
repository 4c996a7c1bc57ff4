"""Item attributes from the catalogue beside texts: duration, author and category.

Stored in the `session_dataset` artifact, as of the end of day D.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from onerec.catalogue import Catalogue
from onerec.schema import ITEM_ATTRIBUTES

ITEMS_FILE = "items.parquet"


@dataclass(frozen=True)
class ItemAttributes:
    """Attributes of the N items of a catalogue.

    Attributes:
        duration_seconds: (N,) float64, NaN where it is unknown.
        author: (N,) int64, equal for items of one author, -1 where it is unknown.
        category: (N,) int64, equal for items of one category, -1 where it is unknown.
    """

    duration_seconds: np.ndarray
    author: np.ndarray
    category: np.ndarray

    @property
    def has_durations(self) -> bool:
        """Whether the duration of at least one item is known."""
        return bool(np.isfinite(self.duration_seconds).any())


def write_item_attributes(items: pa.Table, directory: Path) -> None:
    """Write `items.parquet`.

    Args:
        items: Has the columns of `schema.ITEM_ATTRIBUTES`, one item a row.
        directory: Of the `session_dataset` artifact.
    """
    table = items.select(ITEM_ATTRIBUTES.names).cast(ITEM_ATTRIBUTES)
    pq.write_table(table, directory / ITEMS_FILE)


def load_item_attributes(directory: Path, catalogue: Catalogue) -> ItemAttributes | None:
    """Read what `write_item_attributes` wrote; None where a session dataset has no such file.

    Args:
        directory: Of the `session_dataset` artifact.
        catalogue: Its N items get the attributes; for items missing in the file they are unknown.
    """
    if not (directory / ITEMS_FILE).exists():
        return None
    table = pq.read_table(directory / ITEMS_FILE, schema=ITEM_ATTRIBUTES)
    at = catalogue.index_of(table["item_id"].combine_chunks())
    known = at >= 0
    durations = np.full(len(catalogue), np.nan)
    durations[at[known]] = table["duration_seconds"].to_numpy()[known]
    return ItemAttributes(
        np.where(durations > 0, durations, np.nan),
        _numbered(table["author_id"], at, len(catalogue)),
        _numbered(table["category"], at, len(catalogue)),
    )


def _numbered(column: pa.ChunkedArray, at: np.ndarray, num_items: int) -> np.ndarray:
    """(N,) a code for each distinct text, -1 for null and for items without a row."""
    encoded = pc.dictionary_encode(column.combine_chunks()).indices
    values = pc.fill_null(encoded.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    numbers = np.full(num_items, -1, dtype=np.int64)
    numbers[at[at >= 0]] = values[at >= 0]
    return numbers
