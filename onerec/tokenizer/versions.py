"""Tokenizer versions: which one is current, and whether a refit may replace it.

A refit that is worse than the current version on the same items is refused: it is published with
the reasons in its manifest, and every reader keeps the current one. A refit is accepted in any case
where no current version can be extended.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from onerec.artifacts import Artifact, ArtifactError, ArtifactStore, write_json
from onerec.config import TokenizerConfig
from onerec.embeddings.item_embeddings import ItemEmbeddings
from onerec.tokenizer.codebook import Codebook, load_codebook
from onerec.tokenizer.diagnostics import fit_balance, quality_of
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids
from onerec.tokenizer.tokenized_catalogue import (
    TokenizedCatalogue,
    extend_tokenized,
    load_tokenized,
    tokenize_catalogue,
)

TOKENIZER_MANIFEST = "tokenizer_version.json"
DIAGNOSTICS_FILE = "diagnostics.json"
LOWER_IS_BETTER = {"relative_mse", "collision_rate"}


@dataclass(frozen=True)
class CurrentVersion:
    """The tokenizer version that a day uses.

    Attributes:
        codebook: Its artifact.
        last_ids: `semantic_ids` of the last earlier day, if they are of this version.
    """

    codebook: Artifact
    last_ids: Artifact | None

    def upstream(self) -> dict[str, str]:
        """Asset -> version of what an extension reads."""
        read = {"codebook": self.codebook, "semantic_ids": self.last_ids}
        return {name: artifact.version for name, artifact in read.items() if artifact}

    def extended(self, embeddings: ItemEmbeddings) -> TokenizedCatalogue:
        """IDs and vectors of a day's catalogue (`extend_tokenized`)."""
        previous = load_tokenized(self.last_ids.path) if self.last_ids else None
        return extend_tokenized(self.codebook.path, previous, embeddings)


def current_version(
    store: ArtifactStore, partition: str, *, inclusive: bool = True
) -> CurrentVersion | None:
    """The newest version opened up to (or before) a day and not refused, if any."""
    for day in reversed(store.partitions("codebook")):
        if day > partition or (day == partition and not inclusive):
            continue
        version = accepted_codebook(store, day)
        if version:
            codebook = store.get("codebook", day, version)
            return CurrentVersion(codebook, _last_ids(store, partition, codebook))
    return None


def require_current_version(store: ArtifactStore, partition: str) -> CurrentVersion:
    """As `current_version`, but it must exist.

    Raises:
        ArtifactError: No version was opened yet.
    """
    current = current_version(store, partition)
    if current is None:
        raise ArtifactError(
            f"codebook: no tokenizer version was opened up to {partition}; materialise codebook "
            f"for {partition} first, or run the job weekly_retokenize"
        )
    return current


def accepted_codebook(store: ArtifactStore, day: str) -> str | None:
    """Artifact version of a day's codebook: the latest, or the one it failed to replace."""
    if day not in store.partitions("codebook"):
        return None
    latest = store.latest("codebook", day)
    metadata = latest.manifest["metadata"]
    return latest.version if metadata.get("accepted", True) else metadata.get("stands")


def _last_ids(store: ArtifactStore, partition: str, codebook: Artifact) -> Artifact | None:
    earlier = store.latest_until("semantic_ids", partition, inclusive=False)
    if earlier is None:
        return None
    versions = [a.manifest["metadata"]["tokenizer_version"] for a in (earlier, codebook)]
    return earlier if versions[0] == versions[1] else None


@dataclass(frozen=True)
class TokenizerManifest:
    """The manifest of a tokenizer version, `tokenizer_version.json`.

    Attributes:
        tokenizer_version: Hash of the codebook.
        day: Only items first seen before it took part in the fit.
        opened_because: "first tokenizer version", or "refit of" the parent.
        settings: The `TokenizerConfig`.
        parent: Hash of the tokenizer version that was current, if any.
        quality: Of this tokenizer version on the day's items (`quality_of`).
        parent_quality: Of the parent on the same items, with its published IDs and the IDs it
            would give to new ones; None where there is no parent or it has no IDs left.
        refused_because: Why this tokenizer version must not be used; empty when it is accepted.
        numbered_like: The parent, where the codes have its numbers, see
            `TokenizerConfig.keep_numbers`.
    """

    tokenizer_version: str
    day: str
    opened_because: str
    settings: dict[str, Any]
    parent: str | None
    quality: dict[str, float]
    parent_quality: dict[str, float] | None
    refused_because: list[str]
    numbered_like: str | None = None

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


@dataclass(frozen=True)
class OpenedVersion:
    """Attributes:
    tokenized: The items it opened with.
    diagnostics: Of their IDs (`tokenizer_diagnostics`).
    manifest: Where it comes from, and whether it may be used.
    """

    tokenized: TokenizedCatalogue
    diagnostics: dict[str, Any]
    manifest: TokenizerManifest


def open_tokenizer_version(
    embeddings: ItemEmbeddings,
    before: date,
    config: TokenizerConfig,
    directory: Path,
    *,
    parent: CurrentVersion | None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> OpenedVersion:
    """Fit a codebook, assign IDs to its items, and compare it with the current version.

    Args:
        embeddings: The catalogue.
        before: Only items first seen before this day take part.
        config: Levels, codes, steps, seed.
        directory: Gets the codebook, the IDs with their vectors, diagnostics and manifest.
        parent: The current version, if any.
        on_progress: Called with messages about the fit.

    Raises:
        ValueError: As `fit_codebook`.
    """
    known = embeddings.rows(embeddings.known_before(before))
    earlier = _same_numbers(parent, config, len(known)) if config.keep_numbers else None
    tokenized, fitted = tokenize_catalogue(
        embeddings, before, config, directory, earlier=earlier, on_progress=on_progress
    )
    codebook = load_codebook(directory)
    balance = fit_balance(fitted, tokenized.ids.codes, codebook.size)
    diagnostics = {**tokenized.diagnostics(directory), "fit": balance}
    write_json(directory / DIAGNOSTICS_FILE, diagnostics)
    quality, faults, parent_quality = quality_of(diagnostics), [], None
    parent_name = parent.codebook.manifest["metadata"]["tokenizer_version"] if parent else None
    reason = "first tokenizer version"
    if parent is not None:
        reason = f"refit of {parent_name}"
        try:
            extended = parent.extended(known)
        except ValueError as error:  # e.g. the catalogue has outgrown the parent's IDs
            reason += f", which cannot go on: {error}"
        else:  # on the day's items, without those that have left the catalogue
            shared = extended.only(known.item_ids)
            parent_quality = quality_of(shared.diagnostics(parent.codebook.path))
            old = _comparable(parent_quality, load_codebook(parent.codebook.path), codebook)
            faults = worse_than(old, quality, config.quality_tolerance)
            faults += broken_guarantees(balance) if codebook.guarantees_balance else []
    manifest = TokenizerManifest(
        tokenizer_version=codebook.tokenizer_version,
        day=before.isoformat(),
        opened_because=reason,
        settings=asdict(codebook.config),
        parent=parent_name,
        quality=quality,
        parent_quality=parent_quality,
        refused_because=faults,
        numbered_like=earlier.tokenizer_version if earlier is not None else None,
    )
    manifest.save(directory)
    return OpenedVersion(tokenized, diagnostics, manifest)


def _same_numbers(
    parent: CurrentVersion | None, config: TokenizerConfig, num_items: int
) -> SemanticIds | None:
    """IDs of the parent, if it has as many levels and codes as a fit to so many items."""
    if parent is None:
        return None
    ids = load_semantic_ids((parent.last_ids or parent.codebook).path)
    shape = (config.num_levels + 1, config.codes_per_level(num_items))
    return ids if (ids.num_sid_tokens, ids.codebook_size) == shape else None


def worse_than(old: Mapping[str, float], new: Mapping[str, float], tolerance: float) -> list[str]:
    """Figures of `quality_of` that are worse by more than the tolerance, in words.

    A tolerance of 1 accepts everything, including a relative error above 1.

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


def broken_guarantees(balance: Mapping[str, Any]) -> list[str]:
    """Balance guarantees that `fit_balance` finds violated, in words.

    >>> broken_guarantees({"utilisation": [1.0, 0.9], "size_spread": [1, 3]})
    ['level 2 has dead codes', 'the codes of level 2 differ in size by more than one']
    """
    dead = [n for n, share in enumerate(balance["utilisation"], 1) if share < 1]
    uneven = [n for n, spread in enumerate(balance["size_spread"], 1) if spread > 1]
    return [f"level {n} has dead codes" for n in dead] + [
        f"the codes of level {n} differ in size by more than one" for n in uneven
    ]


def _comparable(quality: Mapping[str, float], old: Codebook, new: Codebook) -> dict[str, float]:
    """The figures comparable between codebook sizes; the hit rate changes with the size alone."""
    same = (old.size, old.num_levels) == (new.size, new.num_levels)
    return {name: value for name, value in quality.items() if same or name != "hit_rate"}
