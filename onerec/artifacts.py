"""Immutable artifacts: directories of files, published whole or not at all.

    <root>/<asset>/<partition>/<version>/   files..., manifest.json
    <root>/<asset>/<partition>/current.json the pointer, replaced in one atomic step

A writer fills a directory aside; publishing hashes every file, writes `manifest.json` last, moves
the directory to its version (a hash of files, settings, seed, code and upstream versions) and only
then replaces the pointer. A reader follows the pointer, so it sees a whole artifact or none, and
the same inputs give the same version.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

MANIFEST = "manifest.json"
POINTER = "current.json"
STAGING = ".staging"


class ArtifactError(Exception):
    """An artifact is missing or damaged; the message says which, and the remedy."""


@dataclass(frozen=True)
class Artifact:
    """One published version.

    Attributes:
        asset: Name of the asset, e.g. `codebook`.
        partition: The partition, e.g. `2026-06-14`.
        version: Hash of everything that made it.
        path: A local directory with its files.
        manifest: The parsed `manifest.json`.
    """

    asset: str
    partition: str
    version: str
    path: Path
    manifest: Mapping[str, Any]

    @property
    def content_hash(self) -> str:
        """Hash of the files alone: equal when the bytes are equal, whatever made them."""
        return _digest(self.manifest["files"])

    @property
    def size_bytes(self) -> int:
        return sum(f["size_bytes"] for f in self.manifest["files"].values())

    def verify(self) -> "Artifact":
        """Compare every file with the manifest; raise `ArtifactError` on the first difference."""
        for name, expected in self.manifest["files"].items():
            file = self.path / name
            if not file.exists() or _file_entry(file) != expected:
                raise ArtifactError(
                    f"{self.asset}/{self.partition}/{self.version}/{name} differs from its "
                    "manifest: it was changed or cut off after publishing; materialise it again"
                )
        return self


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
            cache_dir: Where artifacts of a remote store are downloaded; a temporary directory if
                not given. Versions are immutable, so a cached one never goes stale.
        """
        self.fs, self.root = fsspec.core.url_to_fs(url)
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self._cache = Path(cache_dir or Path(tempfile.gettempdir()) / "onerec-artifacts")

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
        """
        staging = self._staging(asset, partition)
        try:
            draft = Draft(staging)
            yield draft
            identity = {
                "asset": asset,
                "partition": partition,
                "config": dict(config),
                "seed": seed,
                "code_version": code_version,
                "upstream": dict(upstream),
                "row_counts": draft.row_counts,
                "metadata": draft.metadata,
                "files": {
                    p.relative_to(staging).as_posix(): _file_entry(p)
                    for p in sorted(staging.rglob("*"))
                    if p.is_file()
                },
            }
            version = _digest(identity)
            manifest = {"version": version, **identity}
            (staging / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
            self._publish(staging, asset, partition, version)
            draft._artifact = self.get(asset, partition, version)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def latest(self, asset: str, partition: str) -> Artifact:
        """The current version of a partition."""
        pointer = self._join(asset, partition, POINTER)
        if not self.fs.exists(pointer):
            known = ", ".join(self.partitions(asset)[-5:]) or "none"
            raise ArtifactError(
                f"{asset}[{partition}] is not there yet (partitions published: {known}); "
                f"materialise {asset} for {partition} first"
            )
        version = json.loads(self.fs.cat_file(pointer))["version"]
        return self.get(asset, partition, version)

    def get(self, asset: str, partition: str, version: str) -> Artifact:
        """One version by name."""
        directory = self._join(asset, partition, version)
        if not self.fs.exists(f"{directory}/{MANIFEST}"):
            raise ArtifactError(f"{asset}[{partition}] has no published version {version}")
        manifest = json.loads(self.fs.cat_file(f"{directory}/{MANIFEST}"))
        path = Path(directory) if self.is_local else self._download(directory, manifest)
        return Artifact(asset, partition, version, path, manifest)

    def partitions(self, asset: str) -> list[str]:
        """Partitions that have a current version, in order."""
        pattern = self._join(asset, "*", POINTER)
        return sorted(PurePosixPath(p).parent.name for p in self.fs.glob(pattern))

    def latest_until(
        self, asset: str, partition: str, *, inclusive: bool = True
    ) -> Artifact | None:
        """The current version of the last partition up to (or before) `partition`, if any."""
        earlier = [
            p for p in self.partitions(asset) if p < partition or (inclusive and p == partition)
        ]
        return self.latest(asset, earlier[-1]) if earlier else None

    def scratch(self, asset: str, partition: str, key: Mapping[str, Any]) -> Path:
        """A local directory that outlives a killed run, for resuming it.

        `key` names everything the unfinished work depends on: with another key the directory is
        another one, and those of older keys are deleted. The caller removes it when done.
        """
        parent = self._local_root() / ".scratch" / asset / partition
        mine = parent / _digest(dict(key))
        for old in parent.iterdir() if parent.exists() else ():
            if old != mine:
                shutil.rmtree(old, ignore_errors=True)
        mine.mkdir(parents=True, exist_ok=True)
        return mine

    def _local_root(self) -> Path:
        return Path(self.root) if self.is_local else self._cache

    def _join(self, *parts: str) -> str:
        return "/".join((self.root.rstrip("/"), *parts))

    def _staging(self, asset: str, partition: str) -> Path:
        parent = self._local_root() / STAGING / asset / partition
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.iterdir():  # what a killed run left behind
            if not _alive(int(left.name.split("-")[0])):
                shutil.rmtree(left, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))

    def _publish(self, staging: Path, asset: str, partition: str, version: str) -> None:
        directory = self._join(asset, partition, version)
        if not self.fs.exists(f"{directory}/{MANIFEST}"):
            if self.is_local:
                target = Path(directory)
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.rename(staging, target)
                except OSError:  # another process published the same version meanwhile
                    if not (target / MANIFEST).exists():
                        raise
            else:
                files = sorted(p for p in staging.rglob("*") if p.is_file() and p.name != MANIFEST)
                for file in [*files, staging / MANIFEST]:
                    name = file.relative_to(staging).as_posix()
                    self.fs.makedirs(f"{directory}/{name}".rsplit("/", 1)[0], exist_ok=True)
                    self.fs.put_file(str(file), f"{directory}/{name}")
        pointer = self._join(asset, partition, POINTER)
        body = json.dumps({"version": version}).encode() + b"\n"
        if self.is_local:
            handle, aside = tempfile.mkstemp(prefix=f".{POINTER}-", dir=Path(pointer).parent)
            with os.fdopen(handle, "wb") as f:
                f.write(body)
            os.replace(aside, pointer)
        else:  # one PUT is atomic on object stores
            self.fs.pipe_file(pointer, body)

    def _download(self, directory: str, manifest: Mapping[str, Any]) -> Path:
        target = self._cache / _digest({"url": self.fs.unstrip_protocol(directory)})
        if (target / MANIFEST).exists():
            return target
        self._cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=self._cache))
        for name in [*manifest["files"], MANIFEST]:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            self.fs.get_file(f"{directory}/{name}", str(aside / name))
        try:
            os.rename(aside, target)
        except OSError:  # another process downloaded it meanwhile
            shutil.rmtree(aside)
        return target


def read_json(path: Path) -> Any:
    """Parse a JSON file."""
    return json.loads(path.read_text())


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values give equal bytes."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _file_entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    return {"sha256": digest, "size_bytes": path.stat().st_size}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
