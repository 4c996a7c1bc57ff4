"""One unit vector per item: text, co-watching, attributes and supplied vectors, fused.

Every block is reduced to its principal components, scaled so that an item has norm 1 in it on
average, and weighted; the blocks are concatenated and the whole is normalised. Where an item lacks
co-watching, what its other blocks predict stands in, so that cold items lie among the warm items
they resemble and not on a plane of their own.

Shapes: N items, Dv width of the fused vectors.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where pyright cannot see them

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from onerec.catalogue import Catalogue, read_withdrawn_on
from onerec.config import EmbeddingConfig
from onerec.embeddings.collaborative import co_watching, collaborative_vectors
from onerec.embeddings.reduction import principal_components, ridge, truncated_svd
from onerec.embeddings.text import (
    attributes_of,
    encode_minilm,
    hash_strings,
    hashed_tokens,
    item_texts,
    words_of,
)
from onerec.session_dataset.splits import LEARNED
from onerec.shards import ShardPool

log = logging.getLogger(__name__)

FLAGS = ("has_text", "has_collaborative", "has_attributes", "has_supplied")
ITEMS_FILE, VECTORS_FILE = "items.parquet", "vectors.safetensors"
BEFORE_VALIDATION_FILE = "vectors_before_validation.safetensors"
RIDGE_STRENGTH = 0.05
"""Share of the fitted items by which the prediction of co-watching is damped."""


@dataclass(frozen=True)
class ItemEmbeddings(Catalogue):
    """A catalogue, ordered by (first_seen, item_id), with a vector per item.

    Attributes:
        vectors: (N, Dv) float32, unit norm.
        flags: `has_text`, `has_collaborative`, `has_attributes`, `has_supplied`: (N,) bool each.
            An item with none of them has an arbitrary direction of its own.
        before_validation: (N, Dv') float32, unit norm, on axes of their own: the vectors without
            the co-watching of the validation day, for what is chosen on that day; None where
            nothing depends on it.
    """

    vectors: np.ndarray
    flags: dict[str, np.ndarray]
    before_validation: np.ndarray | None = field(default=None, kw_only=True)

    @property
    def has_nothing(self) -> np.ndarray:
        """(N,) bool: items without any feature."""
        return ~np.logical_or.reduce([self.flags[name] for name in FLAGS])

    def rows(self, kept: np.ndarray) -> "ItemEmbeddings":
        """Some of the items, by (N,) bools or by row numbers."""
        flags = {name: flag[kept] for name, flag in self.flags.items()}
        some = {"withdrawn_on": self.withdrawn_on, "before_validation": self.before_validation}
        return ItemEmbeddings(
            self.item_ids[kept],
            self.first_seen[kept],
            self.vectors[kept],
            flags,
            **{name: None if rows is None else rows[kept] for name, rows in some.items()},
        )

    def save(self, directory: Path) -> None:
        """Write `items.parquet` and `vectors.safetensors`, row-aligned."""
        columns = {
            "item_id": pa.array(self.item_ids, pa.string()),
            "first_seen": pa.array(self.first_seen, pa.date32()),
            "withdrawn_on": pa.array(self.withdrawn_days(self.item_ids), pa.date32()),
            **{name: pa.array(self.flags[name]) for name in FLAGS},
        }
        pq.write_table(pa.table(columns), directory / ITEMS_FILE)
        save_file({"vectors": self.vectors}, directory / VECTORS_FILE)
        if self.before_validation is not None:
            save_file({"vectors": self.before_validation}, directory / BEFORE_VALIDATION_FILE)


def load_item_embeddings(directory: Path) -> ItemEmbeddings:
    """Read what `ItemEmbeddings.save` wrote."""
    items = pq.read_table(directory / ITEMS_FILE)
    return ItemEmbeddings(
        item_ids=items["item_id"].to_numpy(zero_copy_only=False).astype(object),
        first_seen=items["first_seen"].to_numpy().astype("datetime64[D]"),
        vectors=load_file(directory / VECTORS_FILE)["vectors"],
        flags={name: items[name].to_numpy() for name in FLAGS},
        withdrawn_on=read_withdrawn_on(items),
        before_validation=load_vectors(directory / BEFORE_VALIDATION_FILE),
    )


def load_vectors(file: Path) -> np.ndarray | None:
    """The vectors of a file; None where there is none, as in artifacts of before."""
    return load_file(file)["vectors"] if file.exists() else None


def vectors_before_validation(directory: Path) -> np.ndarray:
    """(N, Dv) what the validation day may choose with, of a `semantic_ids` artifact: the vectors
    without that day's co-watching, or all where nothing depends on it."""
    before = load_vectors(directory / BEFORE_VALIDATION_FILE)
    return load_file(directory / VECTORS_FILE)["vectors"] if before is None else before


def embed_items(
    catalogue: pa.Table,
    sessions: Path,
    supplied: pa.Table | None,
    config: EmbeddingConfig,
    *,
    before: date | None = None,
    pool: ShardPool | None = None,
    on_progress: Callable[[str], None] = log.info,
) -> ItemEmbeddings:
    """Embed a catalogue.

    Args:
        catalogue: `schema.ITEMS` columns and `first_seen` (date32), perhaps `withdrawn_on`
            (date32); withdrawn items get a vector like the others.
        sessions: The `session_dataset` directory; its training and validation days are read.
        supplied: `schema.ITEM_VECTORS`, one's own vectors, for any of the items.
        config: Blocks, widths and weights.
        before: Axes, scales and rarities are learned from items first seen before this day only:
            what arrives later moves nobody's vector. All items if not given.
        pool: How texts are spread over workers; this process alone if not given.
        on_progress: Called with what is being done.

    Raises:
        ValueError: An empty catalogue, a repeated item, or supplied vectors of unequal length or
            with NaN; the message names the item.
    """
    catalogue = catalogue.sort_by([("first_seen", "ascending"), ("item_id", "ascending")])
    ids = catalogue["item_id"].combine_chunks().cast(pa.string())
    _check_catalogue(ids)
    item_ids = ids.to_numpy(zero_copy_only=False).astype(object)
    first_seen = catalogue["first_seen"].to_numpy().astype("datetime64[D]")
    items = Catalogue(item_ids, first_seen)
    fitted_on = np.ones(len(ids), bool) if before is None else items.known_before(before)
    if not fitted_on.any():
        raise ValueError(f"before={before}: no item was first seen earlier; choose a later day")

    encode = partial(encode_minilm, on_progress=on_progress, pool=pool)
    content, used = _content(catalogue, supplied, fitted_on, config, encode)
    on_progress("co-watching: counting item pairs")
    co_watched = partial(_collaborative_block, sessions, items, content, fitted_on, config)
    together, has_together = co_watched(LEARNED)
    vectors, before_validation = _fused(content, together, item_ids, config), None
    if has_together.any():
        on_progress("co-watching: counting item pairs without the validation day")
        before_validation = _fused(content, co_watched(("train",))[0], item_ids, config)
    return ItemEmbeddings(
        item_ids,
        first_seen,
        vectors,
        used | {"has_collaborative": has_together & (config.collaborative_weight > 0)},
        withdrawn_on=read_withdrawn_on(catalogue),
        before_validation=before_validation,
    )


def _content(
    catalogue: pa.Table,
    supplied: pa.Table | None,
    fitted_on: np.ndarray,
    config: EmbeddingConfig,
    encode: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(N, Dc) weighted blocks of all but co-watching, and which items have which of them."""
    ids = catalogue["item_id"].combine_chunks().cast(pa.string())
    found = (
        ("has_text", config.text_weight, _text_block(catalogue, fitted_on, config, encode)),
        (
            "has_attributes",
            config.attributes_weight,
            _attributes_block(catalogue, fitted_on, config),
        ),
        ("has_supplied", config.supplied_weight, _supplied_block(supplied, ids, fitted_on)),
    )
    blocks = [block * w for _, w, (block, _) in found if w > 0 and block.any()]
    used = {name: has & (w > 0) for name, w, (_, has) in found}
    return np.concatenate([np.zeros((len(ids), 0)), *blocks], 1), used


def _text_block(
    catalogue: pa.Table,
    fitted_on: np.ndarray,
    config: EmbeddingConfig,
    encode: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    texts = item_texts(catalogue)
    has_text = texts.astype(bool)
    if config.text_encoder == "none" or not (has_text & fitted_on).any():
        return np.zeros((len(texts), 0)), np.zeros(len(texts), bool)
    if config.text_encoder == "hashed":
        hashed = hashed_tokens(words_of(texts), fitted_on & has_text)
        axes = truncated_svd(hashed[fitted_on & has_text], config.text_dim)[2]
        return _scaled(hashed @ axes, has_text, fitted_on), has_text
    raw = np.zeros((len(texts), 384), np.float32)
    # apart, so that the batches of older items do not depend on what came later
    for rows in (has_text & fitted_on, has_text & ~fitted_on):
        raw[rows] = encode(texts[rows]) if rows.any() else 0.0
    return _reduced(raw, has_text, fitted_on, config.text_dim), has_text


def _attributes_block(
    catalogue: pa.Table, fitted_on: np.ndarray, config: EmbeddingConfig
) -> tuple[np.ndarray, np.ndarray]:
    names, has_any = attributes_of(catalogue)
    if config.attributes_dim == 0 or not (has_any & fitted_on).any():
        return np.zeros((len(names), 0)), np.zeros(len(names), bool)
    hashed = hashed_tokens(names, fitted_on & has_any)
    axes = truncated_svd(hashed[fitted_on & has_any], config.attributes_dim)[2]
    return _scaled(hashed @ axes, has_any, fitted_on), has_any


def _supplied_block(
    supplied: pa.Table | None, ids: pa.Array, fitted_on: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if supplied is None or len(supplied) == 0:
        return np.zeros((len(ids), 0)), np.zeros(len(ids), bool)
    supplied_ids = supplied["item_id"].combine_chunks().cast(pa.string())
    lists = supplied["vector"].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    width = int(np.bincount(lengths).argmax())
    flat = pc.list_flatten(lists).cast(pa.float64()).to_numpy(zero_copy_only=False)
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    for wrong, problem in (
        (lengths != width, f"does not have the {width} numbers of the other vectors"),
        (np.bincount(parents[~np.isfinite(flat)], minlength=len(lists)) > 0, "holds NaN"),
    ):
        if wrong.any():
            item = supplied_ids[int(wrong.argmax())].as_py()
            raise ValueError(
                f"item_vectors[{item!r}]: the vector {problem} ({int(wrong.sum())} such items); "
                "correct it or leave the item out, which then gets its vector from the rest"
            )
    at = pc.index_in(ids, value_set=supplied_ids)
    found = pc.fill_null(at, -1).to_numpy(zero_copy_only=False)
    has_supplied = found >= 0
    raw = np.where(has_supplied[:, None], flat.reshape(-1, width)[found], 0.0)
    return _reduced(raw, has_supplied, fitted_on, width), has_supplied


def _collaborative_block(
    sessions: Path,
    items: Catalogue,
    content: np.ndarray,
    fitted_on: np.ndarray,
    config: EmbeddingConfig,
    splits: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Observed vectors of often watched items, predicted ones of the rest, mixed in between."""
    nothing = np.zeros((len(items), 0)), np.zeros(len(items), bool)
    if config.collaborative_dim == 0 or config.collaborative_weight == 0:
        return nothing
    pairs, watched = co_watching(sessions, items, splits)
    vectors = collaborative_vectors(pairs, config.collaborative_dim)
    observed = np.abs(vectors).sum(1) > 0
    if not observed.any():
        return nothing
    vectors = _scaled(vectors, observed, fitted_on)
    trust = np.where(observed, watched / (watched + config.collaborative_shrinkage + 1e-9), 0.0)
    learn = observed & fitted_on
    if content.shape[1] == 0 or not learn.any():
        return vectors, observed
    rows = np.sqrt(trust[learn])[:, None]
    weights = ridge(content[learn] * rows, vectors[learn] * rows, RIDGE_STRENGTH * learn.sum())
    mixed = trust[:, None] * vectors + (1 - trust[:, None]) * (content @ weights)
    return mixed, observed


def _reduced(raw: np.ndarray, present: np.ndarray, fitted_on: np.ndarray, dim: int) -> np.ndarray:
    """Principal components of the rows that are present; zero, the mean, for the others."""
    learn = present & fitted_on
    if not learn.any():
        return np.zeros((len(raw), 0))
    mean, axes = principal_components(raw, learn, dim)
    projected = (raw - mean) @ axes.T
    power = float(np.square(raw[learn]).sum(1).mean())
    return _scaled(np.where(present[:, None], projected, 0.0), present, fitted_on, of=power)


def _scaled(
    block: np.ndarray, present: np.ndarray, fitted_on: np.ndarray, *, of: float = 1.0
) -> np.ndarray:
    """Root-mean-square norm 1 over the rows that are present and learned from; zeros where next to
    nothing is left of the mean square `of` of what was reduced, as all rows are equal."""
    learn = present & fitted_on
    power = np.square(block[learn]).sum(1).mean() if learn.any() else 0.0
    return block / np.sqrt(power) if power > 1e-12 * of else np.zeros_like(block)


def _fused(
    content: np.ndarray, together: np.ndarray, item_ids: np.ndarray, config: EmbeddingConfig
) -> np.ndarray:
    """(N, Dv) the blocks of content beside weighted co-watching, of unit norm."""
    fused = np.concatenate([content, together * config.collaborative_weight], 1)
    fused = fused if fused.shape[1] else np.zeros((len(item_ids), config.text_dim))  # no block
    return _normalised(fused, item_ids)


def _normalised(fused: np.ndarray, item_ids: np.ndarray) -> np.ndarray:
    """(N, Dv) float32 unit rows; a zero row becomes an arbitrary direction, the item's own."""
    norms = np.linalg.norm(fused, axis=1)
    empty = norms < 1e-9
    if empty.any():
        fused = fused.copy()
        fused[empty] = _own_directions(item_ids[empty], fused.shape[1])
        norms = np.linalg.norm(fused, axis=1)
    vectors = (fused / norms[:, None]).astype(np.float32)
    assert np.isfinite(vectors).all(), "every block is finite and every row is normalised"
    return vectors


def _own_directions(item_ids: np.ndarray, width: int) -> np.ndarray:
    """(N, width) in (-1, 1), decided by the item's id alone."""
    state = hash_strings(item_ids)[:, None] + np.arange(1, width + 1, dtype=np.uint64)
    # one round of splitmix64, so that neighbouring states give unrelated numbers
    state = state * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = state ^ (state >> np.uint64(27))
    return (state >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0


def _check_catalogue(ids: pa.Array) -> None:
    if len(ids) == 0:
        raise ValueError("catalogue: no items; ingest raw_items for this day or an earlier one")
    counts = pc.value_counts(ids)
    repeated = pc.greater(counts.field("counts"), 1)
    if pc.any(repeated).as_py():
        first = counts.field("values").filter(repeated)[0].as_py()
        raise ValueError(f"catalogue: item {first!r} is there twice; give every item one row")
