"""Exact ranked lists of many users: every item of the catalogue scored, in shards of users.

Shapes: U users, H history items, N items, K places of a list.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from onerec.generation import score_catalogue
from onerec.model import load_model
from onerec.ranked_lists import RankedLists
from onerec.shards import (
    ShardFunction,
    ShardPool,
    arrays_of,
    columns_of,
    gathered,
    map_shards,
)
from onerec.tokenizer.semantic_ids import load_semantic_ids

BATCH_USERS = 64
"""Users whose scores of the whole catalogue are in memory at once."""


def exact_lists(
    checkpoint: Path,
    semantic_ids: Path,
    histories: np.ndarray,
    top_k: int,
    pool: ShardPool,
) -> RankedLists:
    """Items by their exact log-probability of being a session's first: what beam search finds.

    Args:
        checkpoint: Directory of a generator.
        semantic_ids: The catalogue of its tokenizer version.
        histories: (U, H) item indices, oldest first, -1 padded.
        top_k: K.
        pool: How users are spread over workers.
    """
    load = partial(load_exact_ranker, checkpoint, semantic_ids, top_k, pool.device)
    table = columns_of({"history": histories})
    found = gathered(map_shards(load, table, pool, multiple_of=BATCH_USERS))
    return RankedLists(found["items"], found["scores"])


def load_exact_ranker(
    checkpoint: Path, semantic_ids: Path, top_k: int, device: str
) -> ShardFunction:
    """The function of a worker: histories -> exact lists."""
    ids = load_semantic_ids(semantic_ids)
    model, _ = load_model(checkpoint, expected_tokenizer_version=ids.tokenizer_version)
    model, codes = model.to(device).eval(), ids.codes.to(device)

    def rank(table: pa.Table) -> pa.Table:
        history = torch.from_numpy(arrays_of(table)["history"]).long()
        items, scores = [], []
        for rows in history.split(BATCH_USERS):
            exact = score_catalogue(model, rows.to(device), codes)
            # a stable sort: of equal scores the lower item index comes first
            best = exact.sort(dim=1, descending=True, stable=True)
            items.append(best.indices[:, :top_k].cpu())
            scores.append(best.values[:, :top_k].double().cpu())
        return columns_of({"items": torch.cat(items).numpy(), "scores": torch.cat(scores).numpy()})

    return rank
