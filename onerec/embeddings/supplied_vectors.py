"""Validation of supplied item vectors: which of them can be used."""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def usable_vectors(supplied: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """The first usable vector of each item; an item without one gets its vector from the rest.

    Args:
        supplied: `schema.ITEM_VECTORS`, of any quality.

    Returns:
        The rows that can be used, and how many of the others there are by reason: no item or no
        vector, another length than most, NaN or infinite, all zeros, a repeated item.
    """
    ids = supplied["item_id"].combine_chunks()
    lists = supplied["vector"].combine_chunks().cast(pa.large_list(pa.float64()))
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    values = pc.list_flatten(lists).to_numpy(zero_copy_only=False)
    row = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    named = pc.is_valid(ids).to_numpy(zero_copy_only=False) & (lengths > 0)
    width = np.bincount(lengths[named]).argmax() if named.any() else 0
    unclear = np.bincount(row, weights=~np.isfinite(values), minlength=len(lengths)) > 0
    filled = np.bincount(row, weights=values != 0, minlength=len(lengths)) > 0
    usable = np.ones(len(lengths), bool)
    reasons = {}
    for reason, is_broken in (
        ("no item or no vector", ~named),
        ("another length than most", lengths != width),
        ("NaN or infinite", unclear),
        ("all zeros", ~filled),
    ):
        reasons[reason] = int((usable & is_broken).sum())
        usable &= ~is_broken
    kept = supplied.filter(pa.array(usable))
    _, first = np.unique(kept["item_id"].to_numpy().astype(object), return_index=True)
    reasons["a repeated item"] = len(kept) - len(first)
    return kept.take(pa.array(np.sort(first))), {r: n for r, n in reasons.items() if n}
