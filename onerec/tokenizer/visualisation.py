"""Pictures and tables of semantic IDs: codes in use, a map of items, items that share a prefix.

Shapes: N items, Dv width of the vectors, T SID tokens.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onerec.embeddings.reduction import principal_components
from onerec.report.pictures import bar_chart, line_chart, scatter
from onerec.tokenizer.semantic_ids import SemanticIds
from onerec.tokenizer.tokenized_catalogue import TokenizedCatalogue

POINTS = 600
"""Items on the map."""
GROUPS = 7
"""Number of first codes with their own colour; the rest are grey."""


def pictures_of(tokenized: TokenizedCatalogue, diagnostics: Mapping[str, Any]) -> list[str]:
    """SVG: codes in use, error per level, quality, and a map of the items."""
    levels = diagnostics["levels"]
    usage = {f"level {i + 1}": sorted(v["usage"], reverse=True) for i, v in enumerate(levels)}
    error = {"left over": [1.0] + [level["relative_mse"] for level in levels]}
    shares = {
        f"{name.replace('_', ' ')}, level {i + 1}": level[name]
        for i, level in enumerate(levels)
        for name in ("entropy_share", "hit_rate")
    } | {"collision rate": diagnostics["collision_rate"]}
    return [
        line_chart(usage, "Items per code, most used first", "code", "items"),
        line_chart(error, "Relative squared error left after a level", "level", "share"),
        bar_chart(shares, "Entropy, neighbours that share the prefix, collisions", "share"),
        scatter(
            projection(tokenized.ids.codes, tokenized.vectors),
            "Items by first code",
            "first principal component",
            "second principal component",
        ),
    ]


def projection(codes: Tensor, vectors: np.ndarray) -> dict[str, tuple[list[float], list[float]]]:
    """Two principal components of a sample of items, grouped by first code.

    Args:
        codes: (N, T).
        vectors: (N, Dv).

    Returns:
        (x values, y values) per group, for `onerec.report.pictures.scatter`: "others" first,
        so that it is drawn below, then the most used codes.
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
    ids: SemanticIds, titles: Mapping[str, str], *, examples: int = 6, width: int = 4
) -> list[dict[str, str]]:
    """Items whose IDs share the longest prefix with an example item.

    Args:
        ids: The catalogue.
        titles: Title of an item, where there is one.
        examples: Rows, spread over the catalogue.
        width: Neighbours per row.

    Returns:
        One row per example: `ID`, `item`, `shares` (how long the prefix is), `neighbours`.
    """
    rows = []
    for row in np.unique(np.linspace(0, max(0, len(ids) - 1), examples).astype(int)).tolist():
        shared = (ids.codes == ids.codes[row]).cumprod(1).sum(1)
        shared[row] = -1
        near = shared.argsort(descending=True, stable=True)[:width]
        near = near[shared[near] > 0].tolist()
        names = [str(titles.get(item, item))[:60] for item in ids.item_ids[[row, *near]]]
        rows.append(
            {
                "ID": "-".join(map(str, ids.codes[row].tolist())),
                "item": names[0],
                "shares": f"{int(shared[near[0]])} tokens" if near else "nothing",
                "neighbours": "; ".join(names[1:]),
            }
        )
    return rows
