"""Pictures of semantic IDs: a map of items by code, and items that share a prefix.

Shapes: N items, Dv width of the vectors, T SID tokens.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from onerec.embeddings.reduction import principal_components
from onerec.tokenizer.semantic_ids import SemanticIds

POINTS = 600
"""Items on the map."""
GROUPS = 7
"""First codes with a colour of their own; the rest are grey."""


def projection(codes: Tensor, vectors: np.ndarray) -> dict[str, tuple[list[float], list[float]]]:
    """Two principal components of a sample of items, grouped by first code.

    Args:
        codes: (N, T).
        vectors: (N, Dv).

    Returns:
        (x values, y values) per group, for `onerec.pictures.scatter`: "others" first, so that it
        lies below, then the most used codes.
    """
    rows = np.unique(np.linspace(0, len(codes) - 1, min(POINTS, len(codes))).astype(int))
    first = codes[torch.from_numpy(rows), 0].numpy()
    mean, axes = principal_components(vectors[rows], np.ones(len(rows), bool), 2)
    places = np.zeros((len(rows), 2))  # a width of one has no second axis
    places[:, : len(axes)] = (vectors[rows] - mean) @ axes.T
    counts = np.bincount(first)
    shown = [int(c) for c in np.argsort(-counts, kind="stable")[:GROUPS] if counts[c]]
    groups = {"others": ~np.isin(first, shown), **{f"code {c}": first == c for c in shown}}
    return {
        name: (places[mask, 0].tolist(), places[mask, 1].tolist())
        for name, mask in groups.items()
        if mask.any()
    }


def neighbours_by_prefix(
    ids: SemanticIds, titles: Mapping[str, str] | None, *, examples: int = 6, width: int = 4
) -> str:
    """A Markdown table: items whose IDs share the longest prefix with an example item.

    Args:
        ids: The catalogue.
        titles: Title of an item, where there is one.
        examples: Rows, spread over the catalogue.
        width: Neighbours per row.
    """
    titles = titles or {}
    codes = ids.codes
    lines = ["| ID | item | shares | neighbours |", "|---|---|---|---|"]
    for row in np.unique(np.linspace(0, max(0, len(ids) - 1), examples).astype(int)).tolist():
        shared = (codes == codes[row]).cumprod(1).sum(1)
        shared[row] = -1
        near = shared.argsort(descending=True, stable=True)[:width]
        near = near[shared[near] > 0].tolist()
        shared_tokens = f"{int(shared[near[0]])} tokens" if near else "nothing"
        names = "; ".join(_name(str(ids.item_ids[i]), titles) for i in near)
        code = "-".join(map(str, codes[row].tolist()))
        lines.append(
            f"| {code} | {_name(str(ids.item_ids[row]), titles)} | {shared_tokens} | {names} |"
        )
    return "\n".join(lines)


def _name(item: str, titles: Mapping[str, str]) -> str:
    """The title where there is one, safe inside a table."""
    return str(titles.get(item, item)).replace("|", "/").replace("\n", " ")[:60]
