"""Immutable artifacts: directories of files, published whole or not at all, verified when read."""

from onerec.artifacts.files import read_json, write_json
from onerec.artifacts.manifest import (
    MANIFEST,
    Artifact,
    ArtifactError,
    DamagedArtifactError,
)
from onerec.artifacts.store import ArtifactStore, Draft

__all__ = [
    "MANIFEST",
    "Artifact",
    "ArtifactError",
    "ArtifactStore",
    "DamagedArtifactError",
    "Draft",
    "read_json",
    "write_json",
]
