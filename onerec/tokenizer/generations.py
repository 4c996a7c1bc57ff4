"""Tokenizer generations: one codebook, and the IDs that are appended to it night by night.

A generation opens when a codebook is fitted: its directory holds the codebook, the IDs of the items
it was fitted on, and their vectors, which fix the space it lives in. Every night after that appends
the items that are new. Shapes: N items, Dv width of the vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from onerec.config import TokenizerConfig
from onerec.embeddings.item_embeddings import VECTORS_FILE, ItemEmbeddings
from onerec.tokenizer.codebook import fit_codebook, load_codebook
from onerec.tokenizer.diagnostics import tokenizer_diagnostics
from onerec.tokenizer.semantic_ids import (
    SemanticIds,
    align_vectors,
    assign_semantic_ids,
    extend_semantic_ids,
    load_semantic_ids,
)


@dataclass(frozen=True)
class TokenizedCatalogue:
    """Attributes:
    ids: N items with their IDs.
    vectors: (N, Dv) float32, row-aligned, in the space of the generation's codebook.
    """

    ids: SemanticIds
    vectors: np.ndarray

    def save(self, directory: Path) -> None:
        """Write `semantic_ids.parquet` and `vectors.safetensors`."""
        self.ids.save(directory)
        save_file({"vectors": np.ascontiguousarray(self.vectors)}, directory / VECTORS_FILE)

    def diagnostics(self, codebook_directory: Path) -> dict:
        """Balance, reconstruction and collisions (`tokenizer_diagnostics`)."""
        codebook = load_codebook(codebook_directory)
        return tokenizer_diagnostics(codebook, self.ids.codes, torch.from_numpy(self.vectors))


def load_tokenized(directory: Path) -> TokenizedCatalogue:
    """Read what `TokenizedCatalogue.save` wrote."""
    return TokenizedCatalogue(
        load_semantic_ids(directory), load_file(directory / VECTORS_FILE)["vectors"]
    )


def open_generation(
    embeddings: ItemEmbeddings,
    before: date,
    config: TokenizerConfig,
    directory: Path,
    *,
    on_progress: Callable[[str], None] = lambda message: None,
) -> TokenizedCatalogue:
    """Fit a codebook and give its items their IDs; write both to `directory`.

    Args:
        embeddings: The catalogue.
        before: Only items first seen before this day take part.
        config: Levels, codes, steps, seed.
        directory: Gets the codebook and what `TokenizedCatalogue.save` writes.
        on_progress: Told about the fit.

    Raises:
        ValueError: As `fit_codebook`.
    """
    known = embeddings.first_seen < np.datetime64(before)
    vectors = torch.from_numpy(embeddings.vectors[known])
    codebook, codes = fit_codebook(vectors, config, on_progress=on_progress)
    ids = assign_semantic_ids(
        codebook, codes, vectors, embeddings.item_ids[known], embeddings.first_seen[known]
    )
    opened = TokenizedCatalogue(ids, embeddings.vectors[known])
    codebook.save(directory)
    opened.save(directory)
    return opened


def append_night(
    codebook_directory: Path, previous: TokenizedCatalogue | None, embeddings: ItemEmbeddings
) -> TokenizedCatalogue:
    """IDs and vectors of a night's catalogue inside the codebook's generation.

    Args:
        codebook_directory: What `open_generation` wrote.
        previous: An earlier night; it is built on when it is of the same generation, otherwise
            the IDs the generation opened with are.
        embeddings: The night's catalogue.

    Returns:
        Every earlier row unchanged, then the new items in the catalogue's order. An item that has
        left the catalogue keeps its row, its ID and its last vector.
    """
    codebook = load_codebook(codebook_directory)
    opened = load_tokenized(codebook_directory)
    base = opened
    if previous is not None and previous.ids.generation == codebook.generation:
        base = previous
    tonight = torch.from_numpy(_in_codebook_space(embeddings, opened))
    is_new = base.ids.index_of(embeddings.item_ids) < 0
    ids = extend_semantic_ids(
        base.ids,
        codebook,
        embeddings.item_ids[is_new],
        tonight[torch.from_numpy(is_new)],
        embeddings.first_seen[is_new],
    )
    rows = ids.index_of(embeddings.item_ids)
    vectors = np.zeros((len(ids), opened.vectors.shape[1]), np.float32)
    vectors[: len(base.ids)] = base.vectors
    vectors[rows] = tonight.numpy()
    return TokenizedCatalogue(ids, vectors)


def _in_codebook_space(embeddings: ItemEmbeddings, opened: TokenizedCatalogue) -> np.ndarray:
    """(N, Dv): the night's vectors, turned into the space of the generation."""
    at = opened.ids.index_of(embeddings.item_ids)
    shared = at >= 0
    if not shared.any():
        raise ValueError(
            "item_embeddings: none of the items this generation opened with is in the catalogue; "
            "materialise codebook again, which opens a new generation"
        )
    reference = opened.vectors[at[shared]]
    if np.array_equal(embeddings.vectors[shared], reference):
        return embeddings.vectors  # the night the codebook was fitted: nothing has turned
    rows: Tensor = torch.from_numpy(np.flatnonzero(shared))
    turned = align_vectors(torch.from_numpy(embeddings.vectors), rows, torch.from_numpy(reference))
    return turned.numpy()
