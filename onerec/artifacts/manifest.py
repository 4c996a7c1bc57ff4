"""The manifest of a published version, and the verification of its files against it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from onerec.artifacts.files import file_entry

MANIFEST = "manifest.json"


class ArtifactError(Exception):
    """An artifact is missing or damaged, or the store is out of reach; with the remedy."""


class DamagedArtifactError(ArtifactError):
    """An artifact is not what was published; the message says which file, and the remedy."""


@dataclass(frozen=True)
class Artifact:
    """One published version.

    Attributes:
        asset: Name of the asset, e.g. `codebook`.
        partition: The partition, e.g. `2026-06-14`.
        version: Hash of everything that made it.
        manifest: The parsed `manifest.json`, which hashes to `version`.
        fetch: Returns the local directory with the files, all of them verified.
    """

    asset: str
    partition: str
    version: str
    manifest: Mapping[str, Any]
    fetch: Callable[[], Path] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.asset} of {self.partition}, version {self.version}"

    @cached_property
    def path(self) -> Path:
        """A local directory with the files, each compared with its hash at the first use.

        Raises:
            DamagedArtifactError: A file was changed, cut off, added or deleted.
            ArtifactError: The store cannot be reached.
        """
        return self.fetch()

    @property
    def content_hash(self) -> str:
        """Hash of the files alone: equal when the bytes are equal, whatever made them."""
        return digest_of(self.manifest["files"])

    @property
    def size_bytes(self) -> int:
        return sum(f["size_bytes"] for f in self.manifest["files"].values())

    def verify(self) -> "Artifact":
        """Compare every file that changed since with the manifest; errors as for `path`."""
        self.fetch()
        return self


def digest_of(value: Any) -> str:
    """Hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def manifest_of(directory: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a filled directory.

    Args:
        directory: The files.
        identity: What made them; goes into the version with the hash of every file.
    """
    files = {name: file_entry(directory / name) for name in sorted(_files(directory))}
    # as it will be read: keys that are no strings are sorted otherwise than their text
    whole = json.loads(json.dumps({**identity, "files": files}))
    return {"version": digest_of(whole), **whole}


def parse_manifest(text: bytes, version: str) -> dict[str, Any]:
    """The manifest of a version.

    Raises:
        ValueError: It is not that of `version`, or names a file outside of its directory; the
            message says which, without a remedy.
    """
    try:
        manifest = json.loads(text)
    except ValueError:
        raise ValueError("is not JSON") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ValueError("lists no files")
    if digest_of({k: v for k, v in manifest.items() if k != "version"}) != version:
        raise ValueError("does not hash to its version")
    for name, entry in manifest["files"].items():
        if not is_plain(name) or name == MANIFEST:
            raise ValueError(f"names a file outside of its directory: {name!r}")
        if not isinstance(entry, dict) or entry.keys() != {"sha256", "size_bytes"}:
            raise ValueError(f"has no hash and size of {name}")
    return manifest


def manifest_damage(text: bytes | None, version: str) -> str | None:
    """The damage of a manifest's text, described as `damage_of` does."""
    if text is None:
        return f"{MANIFEST} is gone"
    try:
        parse_manifest(text, version)
    except ValueError as error:
        return f"{MANIFEST} {error}"
    return None


def is_plain(name: str) -> bool:
    """Whether a name is a relative path that stays below the directory it is joined to."""
    path = PurePosixPath(name)
    return (
        path.as_posix() == name
        and bool(path.parts)
        and not path.is_absolute()
        and ".." not in path.parts
        and "\\" not in name
        and "\0" not in name
    )


def damage_of(directory: Path, manifest: Mapping[str, Any]) -> str | None:
    """What first differs between a directory and its manifest, e.g. `a.txt has 4 bytes, not 5`.

    Other files than those of the manifest are a difference too: readers take all Parquet files of
    a directory. Names that begin with a dot are not looked at, network file systems make them.
    """
    for name, expected in manifest["files"].items():
        file = directory / name
        if not file.is_file():
            return f"{name} differs from its manifest (it is gone)"
        if (size := file.stat().st_size) != expected["size_bytes"]:
            return f"{name} differs from its manifest ({size} bytes, not {expected['size_bytes']})"
        if file_entry(file) != expected:
            return f"{name} differs from its manifest (other bytes)"
    for name in sorted(_files(directory) - manifest["files"].keys() - {MANIFEST}):
        if not name.rpartition("/")[2].startswith("."):
            return f"{name} differs from its manifest (it is not in it)"
    return None


def damaged(name: str, damage: str) -> DamagedArtifactError:
    """The error of a reader.

    Args:
        name: `<asset>/<partition>/<version>`, or without a version.
        damage: As `damage_of` returns it.
    """
    asset, partition = name.split("/")[:2]
    return DamagedArtifactError(
        f"{name}/{damage}: it was changed or cut off after publishing; materialise {asset} for "
        f"{partition} again, which moves this version aside and makes it anew"
    )


def _files(directory: Path) -> set[str]:
    return {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()}
