"""A catalogue with semantic IDs and the vectors they were made from, extended every day.

A tokenizer version opens when a codebook is fitted: its directory holds the codebook, the IDs of
the items it was fitted on, and their vectors, which define the codebook's vector space. Every later
nightly run appends the new items. Shapes: N items, Dv width of the vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from onerec.config import TokenizerConfig
from onerec.embeddings.item_embeddings import (
    BEFORE_VALIDATION_FILE,
    VECTORS_FILE,
    ItemEmbeddings,
    load_vectors,
)
from onerec.tokenizer.codebook import fit_codebook, load_codebook
from onerec.tokenizer.diagnostics import tokenizer_diagnostics
from onerec.tokenizer.relabelling import renumbered
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
    vectors: (N, Dv) float32, row-aligned, in the space of the tokenizer version's codebook.
    before_validation: (N, Dv) float32, the same without the co-watching of the validation day;
        None where nothing depends on it.
    """

    ids: SemanticIds
    vectors: np.ndarray
    before_validation: np.ndarray | None = None

    def save(self, directory: Path) -> None:
        """Write `semantic_ids.parquet`, `vectors.safetensors` and, where there are such vectors,
        `vectors_before_validation.safetensors`."""
        self.ids.save(directory)
        save_file({"vectors": np.ascontiguousarray(self.vectors)}, directory / VECTORS_FILE)
        if self.before_validation is not None:
            vectors = np.ascontiguousarray(self.before_validation)
            save_file({"vectors": vectors}, directory / BEFORE_VALIDATION_FILE)

    def diagnostics(self, codebook_directory: Path) -> dict[str, Any]:
        """Balance, reconstruction and collisions (`tokenizer_diagnostics`)."""
        codebook = load_codebook(codebook_directory)
        return tokenizer_diagnostics(codebook, self.ids.codes, torch.from_numpy(self.vectors))

    def only(self, item_ids: np.ndarray) -> "TokenizedCatalogue":
        """The rows of the given items, in the given order."""
        rows = self.ids.index_of(item_ids)
        ids = replace(
            self.ids,
            item_ids=self.ids.item_ids[rows],
            codes=self.ids.codes[torch.from_numpy(rows)],
            first_seen=self.ids.first_seen[rows],
            withdrawn_on=self.ids.withdrawn_days(item_ids),
        )
        before = None if self.before_validation is None else self.before_validation[rows]
        return TokenizedCatalogue(ids, self.vectors[rows], before)


def load_tokenized(directory: Path) -> TokenizedCatalogue:
    """Read what `TokenizedCatalogue.save` wrote."""
    return TokenizedCatalogue(
        load_semantic_ids(directory),
        load_file(directory / VECTORS_FILE)["vectors"],
        load_vectors(directory / BEFORE_VALIDATION_FILE),
    )


def tokenize_catalogue(
    embeddings: ItemEmbeddings,
    before: date,
    config: TokenizerConfig,
    directory: Path,
    *,
    earlier: SemanticIds | None = None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> tuple[TokenizedCatalogue, Tensor]:
    """Fit a codebook and assign IDs to its items; write both to `directory`.

    Args:
        embeddings: The catalogue.
        before: Only items first seen before this day take part.
        config: Levels, codes, steps, seed.
        directory: Gets the codebook and what `TokenizedCatalogue.save` writes.
        earlier: IDs of another tokenizer version, of as many levels and codes, whose numbers the
            codes get (`renumbered`).
        on_progress: Called with messages about the fit.

    Returns:
        The items with their IDs, and the (N, L) codes of the fit, which differ from those of the ID
        where a leaf was full.

    Raises:
        ValueError: As `fit_codebook`.
    """
    known = embeddings.rows(embeddings.known_before(before))
    vectors = torch.from_numpy(known.vectors)
    codebook, codes = fit_codebook(vectors, config, on_progress=on_progress)
    if earlier is not None:
        codebook, codes = renumbered(earlier, codebook, codes, known.item_ids)
    ids = assign_semantic_ids(codebook, codes, vectors, known.item_ids, known.first_seen)
    opened = TokenizedCatalogue(ids, known.vectors)
    codebook.save(directory)
    opened.save(directory)
    return opened, codes


def extend_tokenized(
    codebook_directory: Path, previous: TokenizedCatalogue | None, embeddings: ItemEmbeddings
) -> TokenizedCatalogue:
    """IDs and vectors of a day's catalogue inside the codebook's tokenizer version.

    Args:
        codebook_directory: What `tokenize_catalogue` wrote.
        previous: IDs of an earlier day, which are extended if they are of the same tokenizer
            version; otherwise the IDs that the version opened with are.
        embeddings: The day's catalogue.

    Returns:
        Every earlier row unchanged, then the new items in the catalogue's order. An item that has
        left the catalogue, or that the day's does not hold, is withdrawn; it keeps its row, its ID
        and its last vector.

    Raises:
        ValueError: More items than IDs, or nothing in common with the items it opened with.
    """
    codebook = load_codebook(codebook_directory)
    opened = load_tokenized(codebook_directory)
    base = opened
    if previous is not None and previous.ids.tokenizer_version == codebook.tokenizer_version:
        base = previous
    vectors = _in_codebook_space(embeddings, embeddings.vectors, opened)
    is_new = base.ids.index_of(embeddings.item_ids) < 0
    new = embeddings.rows(is_new)
    ids = extend_semantic_ids(
        base.ids, codebook, new.item_ids, torch.from_numpy(vectors[is_new]), new.first_seen
    )
    ids = replace(ids, withdrawn_on=embeddings.withdrawn_days(ids.item_ids))
    before = embeddings.before_validation
    if before is not None:
        before = _extended(base, ids, embeddings, _in_codebook_space(embeddings, before, opened))
    return TokenizedCatalogue(ids, _extended(base, ids, embeddings, vectors), before)


def _extended(
    base: TokenizedCatalogue, ids: SemanticIds, embeddings: ItemEmbeddings, vectors: np.ndarray
) -> np.ndarray:
    """(N, Dv) the day's vectors; of items that have left the catalogue those they had last."""
    extended = np.zeros((len(ids), vectors.shape[1]), np.float32)
    extended[: len(base.ids)] = base.vectors
    extended[ids.index_of(embeddings.item_ids)] = vectors
    return extended


def _in_codebook_space(
    embeddings: ItemEmbeddings, vectors: np.ndarray, opened: TokenizedCatalogue
) -> np.ndarray:
    """(N, Dv): vectors of the day's items, rotated into the space of the tokenizer version."""
    at = opened.ids.index_of(embeddings.item_ids)
    shared = at >= 0
    if not shared.any():
        raise ValueError(
            "item_embeddings: none of the items this tokenizer version opened with is in the "
            "catalogue; materialise codebook again, which opens a new tokenizer version"
        )
    reference = opened.vectors[at[shared]]
    if np.array_equal(vectors[shared], reference):
        return vectors  # the day the codebook was fitted: no rotation is needed
    rows = torch.from_numpy(np.flatnonzero(shared))
    turned = align_vectors(torch.from_numpy(vectors), rows, torch.from_numpy(reference))
    return turned.numpy()
