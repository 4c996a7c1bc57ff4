"""Immutable artifacts: directories of files, published whole or not at all.

    <root>/<asset>/<partition>/<version>/   files..., manifest.json
    <root>/<asset>/<partition>/current.json the pointer, replaced in one atomic step
    <root>/.damaged/<asset>/<partition>/    versions that did not verify when they were made again

A writer fills a directory aside; publishing hashes every file, writes `manifest.json` last, moves
the directory to its version (a hash of files, settings, seed, code and upstream versions) and only
then replaces the pointer. A reader follows the pointer, so it sees a whole artifact or none, and
the same inputs give the same version. It never gets another version than the pointer's: one that
does not verify is an error until the asset is materialised again.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from onerec.artifacts.files import open_to_readers, write_json
from onerec.artifacts.local import DAMAGED, LocalStorage
from onerec.artifacts.manifest import (
    MANIFEST,
    Artifact,
    ArtifactError,
    DamagedArtifactError,
    damaged,
    digest_of,
    manifest_of,
    parse_manifest,
)
from onerec.artifacts.remote import RemoteStorage
from onerec.artifacts.staging import SCRATCH, STAGING, staging_directory
from onerec.config.fields import SettingError, require
from onerec.disk import disk_named
from onerec.urls import require_no_credentials

log = logging.getLogger(__name__)

POINTER = "current.json"
_VERSION = re.compile(r"[0-9a-f]{16}")


@dataclass
class Draft:
    """A directory being filled. `row_counts` and `metadata` end up in the manifest.

    `metadata` is for numbers a reader wants without opening files; it must be deterministic.
    `artifact` is set once the draft is published.
    """

    path: Path
    row_counts: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    _artifact: Artifact | None = None

    @property
    def artifact(self) -> Artifact:
        assert self._artifact is not None, "read Draft.artifact after the with-block"
        return self._artifact


class ArtifactStore:
    """Artifacts under one fsspec URL: a local directory, `s3://...`, `memory://...`."""

    def __init__(self, url: str, cache_dir: str | None = None) -> None:
        """Open the store.

        Args:
            url: Root of every artifact.
            cache_dir: Where copies of a remote store's artifacts are kept, for this user alone;
                `cache/artifacts` under `ONEREC_HOME` (`~/.onerec`) if not given.

        Raises:
            SettingError: The URL holds credentials, or names a kind of store that is not known.
            ArtifactError: The cache belongs to another user.
        """
        require_no_credentials("ONEREC_ARTIFACTS", url)
        # another process publishes too: what was listed once is no answer later
        try:
            self.fs, self.root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            remedy = f"{error}; use a directory, or s3://BUCKET/PREFIX with the extra [s3]"
            raise SettingError("ONEREC_ARTIFACTS", url, remedy) from None
        if isinstance(self.fs, LocalFileSystem):
            self.place = LocalStorage(Path(self.root))
        else:
            home = Path(os.environ.get("ONEREC_HOME") or "~/.onerec").expanduser()
            cache = Path(cache_dir) if cache_dir else home / "cache" / "artifacts"
            self.place = RemoteStorage(self.fs, self.root, cache)

    @contextmanager
    def write(
        self,
        asset: str,
        partition: str,
        *,
        config: Mapping[str, Any],
        upstream: Mapping[str, str],
        code_version: str,
        seed: int | None = None,
    ) -> Iterator[Draft]:
        """Fill a directory aside, then publish it. Nothing is published if the block raises.

        Args:
            asset: Name of the asset.
            partition: The partition.
            config: The stage's settings, JSON-able.
            upstream: Version of each artifact or table that was read.
            code_version: Version of the code that writes.
            seed: The seed, where there is one.

        Yields:
            A `Draft` whose `path` is an empty local directory.

        Raises:
            DiskFullError: There is no room; the message names the disk.
            ArtifactError: A remote store cannot be reached.
        """
        identity = {
            "asset": asset,
            "partition": partition,
            "config": dict(config),
            "seed": seed,
            "code_version": code_version,
            "upstream": dict(upstream),
        }
        with disk_named(self.work, f"{asset}[{partition}]"):
            staging = staging_directory(self.work / STAGING / asset / partition)
            try:
                draft = Draft(staging / "files")
                draft.path.mkdir()
                yield draft
                identity |= {"row_counts": draft.row_counts, "metadata": draft.metadata}
                draft._artifact = self._publish(staging, identity)
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def latest(self, asset: str, partition: str) -> Artifact:
        """The current version of a partition.

        Raises:
            ArtifactError: Nothing is published, or the store cannot be reached.
            DamagedArtifactError: The pointer or the manifest is damaged; the files are verified
                where `Artifact.path` is read. Materialising the partition again repairs it.
        """
        text = self.place.read(f"{asset}/{partition}/{POINTER}")
        if text is None:
            known = ", ".join(self.partitions(asset)[-5:]) or "none"
            raise ArtifactError(
                f"{asset}[{partition}] is not there yet (partitions published: {known}); "
                f"materialise {asset} for {partition} first"
            )
        version = _version_in(text)
        if version is None:
            raise damaged(f"{asset}/{partition}", f"{POINTER} names no version")
        artifact = self._read(asset, partition, version)
        if artifact is None:
            raise damaged(f"{asset}/{partition}/{version}", f"{MANIFEST} is gone")
        return artifact

    def get(self, asset: str, partition: str, version: str) -> Artifact:
        """One version by name; errors as for `latest`."""
        artifact = self._read(asset, partition, version) if _VERSION.fullmatch(version) else None
        if artifact is None:
            if (partition, version) in self.versions(asset):
                raise damaged(f"{asset}/{partition}/{version}", f"{MANIFEST} is gone")
            raise ArtifactError(f"{asset}[{partition}] has no published version {version}")
        return artifact

    def partitions(self, asset: str) -> list[str]:
        """Partitions that have a current version, in order."""
        return self.place.partitions_with(asset, POINTER)

    def current_version(self, asset: str, partition: str) -> str | None:
        """The version that a partition's pointer names; None without a pointer that can be read."""
        text = self.place.read(f"{asset}/{partition}/{POINTER}")
        return None if text is None else _version_in(text)

    def assets(self) -> list[str]:
        """Assets with a directory, in order."""
        return [name for name in self._directories("") if not name.startswith(".")]

    def versions(self, asset: str) -> list[tuple[str, str]]:
        """Partition and version of everything that is published of an asset, in order."""
        return [
            (partition, version)
            for partition in self._directories(asset)
            for version in self._directories(f"{asset}/{partition}")
            if _VERSION.fullmatch(version)
        ]

    def size_of(self, asset: str, partition: str, version: str) -> int:
        """Bytes of a version."""
        return self.place.call(self.fs.du, f"{self.root}/{asset}/{partition}/{version}")

    def remove(self, asset: str, partition: str, version: str) -> None:
        """Delete a version, and this machine's copy of it, if any.

        A partition that loses its current version is no longer there. The pointer goes first, so
        that no reader is led to a version that is half gone.
        """
        require(bool(_VERSION.fullmatch(version)), "version", version, "use 16 hex digits")
        where = f"{self.root}/{asset}/{partition}"
        if self.current_version(asset, partition) == version:
            self.place.call(self.fs.rm, f"{where}/{POINTER}")
        self.place.drop_copy(f"{asset}/{partition}/{version}")
        self.place.call(self.fs.rm, f"{where}/{version}", recursive=True)

    def set_aside(self) -> list[tuple[str, str]]:
        """Asset and partition of the damaged versions that were set aside."""
        return [
            (asset, partition)
            for asset in self._directories(DAMAGED)
            for partition in self._directories(f"{DAMAGED}/{asset}")
        ]

    def remove_set_aside(self, asset: str, partition: str, *, dry_run: bool = False) -> int:
        """Delete the damaged versions of a partition that were set aside; returns their bytes."""
        where = f"{self.root}/{DAMAGED}/{asset}/{partition}"
        size = self.place.call(self.fs.du, where)
        if not dry_run:
            self.place.call(self.fs.rm, where, recursive=True)
        return size

    def _directories(self, name: str) -> list[str]:
        try:
            path = f"{self.root}/{name}".rstrip("/")
            found = self.place.call(self.fs.ls, path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(Path(e["name"]).name for e in found if e["type"] == "directory")

    def latest_until(
        self, asset: str, partition: str, *, inclusive: bool = True
    ) -> Artifact | None:
        """The current version of the last partition up to (or before) `partition`, if any."""
        earlier = [
            p for p in self.partitions(asset) if p < partition or (inclusive and p == partition)
        ]
        return self.latest(asset, earlier[-1]) if earlier else None

    def made_with(self, asset: str, partition: str, key: Mapping[str, Any]) -> Artifact | None:
        """The current version if it verifies and was made with this; None where it is to be made.

        Args:
            asset: Name of the asset.
            partition: The partition.
            key: Entries of the manifest, e.g. `config`, `upstream` and `code_version`.
        """
        if partition not in self.partitions(asset):
            return None
        try:
            artifact = self.latest(asset, partition)
            wanted = json.loads(json.dumps(dict(key)))
            if any(artifact.manifest[name] != value for name, value in wanted.items()):
                return None
            return artifact.verify()
        except DamagedArtifactError as error:
            log.warning("%s", error)
            return None

    @property
    def work(self) -> Path:
        """A directory of this machine, on the disk that drafts are written to."""
        return self.place.work

    def scratch(self, asset: str, partition: str, key: Mapping[str, Any]) -> Path:
        """A local directory that outlives a killed run, for resuming it.

        `key` names everything the unfinished work depends on: with another key the directory is
        another one, and those of older keys are deleted. The caller removes it when done.
        """
        parent = self.work / SCRATCH / asset / partition
        mine = parent / digest_of(dict(key))
        for old in parent.iterdir() if parent.exists() else ():
            if old != mine:
                shutil.rmtree(old, ignore_errors=True)
        mine.mkdir(parents=True, exist_ok=True)
        return mine

    def _publish(self, staging: Path, identity: Mapping[str, Any]) -> Artifact:
        files, partition = staging / "files", f"{identity['asset']}/{identity['partition']}"
        open_to_readers(files)  # before hashing: a new mode is a change
        manifest = manifest_of(files, identity)
        write_json(files / MANIFEST, manifest)
        version = manifest["version"]
        self.place.publish(files, f"{partition}/{version}", manifest)
        pointer = json.dumps({"version": version}).encode() + b"\n"
        self.place.replace(f"{partition}/{POINTER}", pointer, staging / POINTER)
        return self.get(identity["asset"], identity["partition"], version)

    def _read(self, asset: str, partition: str, version: str) -> Artifact | None:
        name = f"{asset}/{partition}/{version}"
        text = self.place.read(f"{name}/{MANIFEST}")
        if text is None:
            return None
        try:
            manifest = parse_manifest(text, version)
        except ValueError as error:
            raise damaged(name, f"{MANIFEST} {error}") from None
        fetch = partial(self.place.fetch, name, manifest)
        return Artifact(asset, partition, version, manifest, fetch)


def _version_in(pointer: bytes) -> str | None:
    """The version that a pointer names; None where it is damaged."""
    try:
        version = json.loads(pointer)["version"]
    except (ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, str) and _VERSION.fullmatch(version) else None
