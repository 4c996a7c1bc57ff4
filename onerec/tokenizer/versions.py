"""Tokenizer versions: one codebook, and the IDs that are appended to it night by night.

A tokenizer version opens when a codebook is fitted: its directory holds the codebook, the IDs of
the items it was fitted on, and their vectors, which fix the space it lives in. Every night after
that appends the items that are new. A tokenizer version that is worse than the current one is
refused: its manifest says so, and readers do not use it. Shapes: N items, Dv width of the vectors.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from onerec.config import TokenizerConfig
from onerec.embeddings.item_embeddings import VECTORS_FILE, ItemEmbeddings
from onerec.tokenizer.codebook import Codebook, fit_codebook, load_codebook
from onerec.tokenizer.diagnostics import quality_of, tokenizer_diagnostics
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


def open_tokenizer_version(
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
        on_progress: Called with messages about the fit.

    Raises:
        ValueError: As `fit_codebook`.
    """
    known = embeddings.known_before(before)
    vectors = torch.from_numpy(embeddings.vectors[known])
    codebook, codes = fit_codebook(vectors, config, on_progress=on_progress)
    ids = assign_semantic_ids(
        codebook, codes, vectors, embeddings.item_ids[known], embeddings.first_seen[known]
    )
    opened = TokenizedCatalogue(ids, embeddings.vectors[known])
    codebook.save(directory)
    opened.save(directory)
    return opened


TOKENIZER_MANIFEST = "tokenizer_version.json"
LOWER_IS_BETTER = {"relative_mse", "collision_rate"}


@dataclass(frozen=True)
class TokenizerManifest:
    """The manifest of a tokenizer version, `tokenizer_version.json`.

    Attributes:
        tokenizer_version: Hash of the codebook.
        day: Only items first seen before it took part in the fit.
        opened_because: "first tokenizer version", or that the one in force was refitted.
        settings: The `TokenizerConfig`.
        parent: Hash of the tokenizer version that was in force, if any.
        quality: Of this tokenizer version on the day's items (`quality_of`).
        parent_quality: Of the parent on the same items, with its published IDs and the IDs it
            would give to new ones; None where there is no parent or it has no IDs left.
        refused_because: Why this tokenizer version must not be used; empty when it is in force.
    """

    tokenizer_version: str
    day: str
    opened_because: str
    settings: dict[str, Any]
    parent: str | None
    quality: dict[str, float]
    parent_quality: dict[str, float] | None
    refused_because: list[str]

    @property
    def accepted(self) -> bool:
        return not self.refused_because

    def save(self, directory: Path) -> None:
        """Write `tokenizer_version.json`."""
        text = json.dumps(asdict(self), indent=2, sort_keys=True)
        (directory / TOKENIZER_MANIFEST).write_text(text + "\n")


def load_tokenizer_manifest(directory: Path) -> TokenizerManifest | None:
    """Read what `TokenizerManifest.save` wrote; None for a codebook from before there were
    manifests."""
    file = directory / TOKENIZER_MANIFEST
    return TokenizerManifest(**json.loads(file.read_text())) if file.exists() else None


def describe_tokenizer_version(
    codebook_directory: Path,
    diagnostics: Mapping[str, Any],
    embeddings: ItemEmbeddings,
    before: date,
    *,
    parent_directory: Path | None,
    published: TokenizedCatalogue | None,
) -> TokenizerManifest:
    """Describe a tokenizer version that was just opened, and decide whether it may be used.

    It is refused when it breaks its method's promise of balance, or when it is worse than the one
    in force on the same items by more than `quality_tolerance`.

    Args:
        codebook_directory: What `open_tokenizer_version` wrote.
        diagnostics: Of its IDs.
        embeddings: The catalogue it was fitted on.
        before: As for `open_tokenizer_version`.
        parent_directory: The codebook in force, if any.
        published: The parent's last night, if any.
    """
    codebook = load_codebook(codebook_directory)
    quality, faults = quality_of(diagnostics), _broken_promises(codebook, diagnostics)
    parent, reason, parent_quality = None, "first tokenizer version", None
    if parent_directory is not None:
        parent = load_codebook(parent_directory).tokenizer_version
        reason = f"refit of {parent}"
        known = embeddings.known_before(before)
        try:
            night = append_night(parent_directory, published, _rows_of(embeddings, known))
        except ValueError as error:  # e.g. the catalogue has outgrown the parent's IDs
            reason += f", which cannot go on: {error}"
        else:
            parent_quality = quality_of(
                _only(night, embeddings, known).diagnostics(parent_directory)
            )
            faults += worse_than(parent_quality, quality, codebook.config.quality_tolerance)
    return TokenizerManifest(
        tokenizer_version=codebook.tokenizer_version,
        day=before.isoformat(),
        opened_because=reason,
        settings=asdict(codebook.config),
        parent=parent,
        quality=quality,
        parent_quality=parent_quality,
        refused_because=faults,
    )


def worse_than(old: Mapping[str, float], new: Mapping[str, float], tolerance: float) -> list[str]:
    """In which figures of `quality_of` the new one is worse by more than the tolerance, in words.

    A tolerance of 1 accepts anything, also a relative error above 1.

    >>> worse_than({"hit_rate": 0.5}, {"hit_rate": 0.4}, 0.05)
    ['hit_rate falls from 0.5000 to 0.4000']
    """
    faults: list[str] = []
    if tolerance >= 1:
        return faults
    for name, before in old.items():
        sign, verb = (1, "rises") if name in LOWER_IS_BETTER else (-1, "falls")
        if not sign * (new[name] - before) <= tolerance:  # NaN is a fault
            faults.append(f"{name} {verb} from {before:.4f} to {new[name]:.4f}")
    return faults


def _broken_promises(codebook: Codebook, diagnostics: Mapping[str, Any]) -> list[str]:
    levels = diagnostics["levels"]
    if not codebook.promises_balance:
        return []
    dead = [i + 1 for i, level in enumerate(levels) if level["utilisation"] < 1]
    uneven = [i + 1 for i, level in enumerate(levels) if level["size_spread"] > 1]
    return [f"level {i} has dead codes" for i in dead] + [
        f"the codes of level {i} differ in size by more than one" for i in uneven
    ]


def _rows_of(embeddings: ItemEmbeddings, kept: np.ndarray) -> ItemEmbeddings:
    flags = {name: flag[kept] for name, flag in embeddings.flags.items()}
    vectors = embeddings.vectors[kept]
    return ItemEmbeddings(embeddings.item_ids[kept], embeddings.first_seen[kept], vectors, flags)


def _only(
    night: TokenizedCatalogue, embeddings: ItemEmbeddings, known: np.ndarray
) -> TokenizedCatalogue:
    """The rows of today's known items: not of those that have left the catalogue."""
    rows = night.ids.index_of(embeddings.item_ids[known])
    ids = replace(
        night.ids,
        item_ids=night.ids.item_ids[rows],
        codes=night.ids.codes[torch.from_numpy(rows)],
        first_seen=night.ids.first_seen[rows],
    )
    return TokenizedCatalogue(ids, night.vectors[rows])


def append_night(
    codebook_directory: Path, previous: TokenizedCatalogue | None, embeddings: ItemEmbeddings
) -> TokenizedCatalogue:
    """IDs and vectors of a night's catalogue inside the codebook's tokenizer version.

    Args:
        codebook_directory: What `open_tokenizer_version` wrote.
        previous: An earlier night; it is built on when it is of the same tokenizer version,
            otherwise the IDs the tokenizer version opened with are.
        embeddings: The night's catalogue.

    Returns:
        Every earlier row unchanged, then the new items in the catalogue's order. An item that has
        left the catalogue keeps its row, its ID and its last vector.
    """
    codebook = load_codebook(codebook_directory)
    opened = load_tokenized(codebook_directory)
    base = opened
    if previous is not None and previous.ids.tokenizer_version == codebook.tokenizer_version:
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
    """(N, Dv): the night's vectors, turned into the space of the tokenizer version."""
    at = opened.ids.index_of(embeddings.item_ids)
    shared = at >= 0
    if not shared.any():
        raise ValueError(
            "item_embeddings: none of the items this tokenizer version opened with is in the "
            "catalogue; "
            "materialise codebook again, which opens a new tokenizer version"
        )
    reference = opened.vectors[at[shared]]
    if np.array_equal(embeddings.vectors[shared], reference):
        return embeddings.vectors  # the night the codebook was fitted: nothing has turned
    rows: Tensor = torch.from_numpy(np.flatnonzero(shared))
    turned = align_vectors(torch.from_numpy(embeddings.vectors), rows, torch.from_numpy(reference))
    return turned.numpy()
