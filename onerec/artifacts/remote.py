"""Artifacts on an object store, or any other fsspec file system, with a verified local cache."""

import hashlib
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from fsspec import AbstractFileSystem

from onerec.artifacts.local import DAMAGED, stamped
from onerec.artifacts.manifest import (
    MANIFEST,
    ArtifactError,
    damage_of,
    damaged,
    digest_of,
    manifest_damage,
)
from onerec.artifacts.staging import STAGING, staging_directory
from onerec.urls import redact_url

log = logging.getLogger(__name__)

ATTEMPTS = 4
PAUSE_SECONDS = 0.5
"""Before the second attempt; twice as long before each one after it."""
CHUNK_BYTES = 2**22

T = TypeVar("T")


class RemoteStorage:
    """A version is visible when its `manifest.json`, which is written last, is there.

    A copy of each version that was read or written is kept in `work`, a directory of this user
    alone; it is verified at every use and fetched again where it is damaged.

    Attributes:
        work: Copies, drafts and unfinished work, on this machine.
    """

    def __init__(self, fs: AbstractFileSystem, root: str, cache: Path) -> None:
        self.fs, self.root = fs, root.rstrip("/")
        self.work = private_directory(cache)
        self.url = redact_url(fs.unstrip_protocol(self.root))

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""
        try:
            content = self.call(self.fs.cat_file, f"{self.root}/{name}")
        except FileNotFoundError:
            return None
        assert isinstance(content, bytes), "one file was read, as it is"
        return content

    def partitions_with(self, asset: str, file: str) -> list[str]:
        """Partitions of an asset that hold a file."""
        found = self.call(self.fs.glob, f"{self.root}/{asset}/*/{file}")
        return sorted(PurePosixPath(str(p)).parent.name for p in found)

    def fetch(self, name: str, manifest: Mapping[str, Any]) -> Path:
        """A local copy of a version, verified."""
        target = self._copy_of(name)
        if target.exists():
            damage = damage_of(target, manifest)
            if damage is None:
                return target
            log.warning("%s/%s in the cache; it is fetched again", name, damage)
            self._discard(target)
        aside = staging_directory(self.work / STAGING / "downloads")
        try:
            damage = self._download(name, manifest, aside)
            if damage:
                raise damaged(name, damage)
            self._keep(aside, target, manifest)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return target

    def publish(self, files: Path, name: str, manifest: Mapping[str, Any]) -> None:
        """Upload a filled directory, `manifest.json` last.

        A version that is there and verifies is left as it is; of one that does not, a copy is kept.

        Raises:
            ArtifactError: The store cannot be reached, or an upload was cut off.
        """
        if (text := self.read(f"{name}/{MANIFEST}")) is not None:
            damage = manifest_damage(text, manifest["version"]) or self._damage(name, manifest)
            if damage is None:
                return
            self._copy_aside(name, damage)
        for file in manifest["files"]:
            self._put(files / file, f"{name}/{file}")
        sizes = self._sizes(name)
        for file, entry in manifest["files"].items():
            if sizes.get(file) != entry["size_bytes"]:
                raise ArtifactError(
                    f"{self.url}/{name}/{file} has {sizes.get(file)} bytes after the upload, not "
                    f"{entry['size_bytes']}; nothing was published, run it again"
                )
        self._put(files / MANIFEST, f"{name}/{MANIFEST}")
        self._keep(files, self._copy_of(name), manifest)

    def drop_copy(self, name: str) -> None:
        """Delete the copy of a version in the cache, if there is one."""
        self._discard(self._copy_of(name))

    def replace(self, name: str, body: bytes, aside: Path) -> None:
        """Replace a small file; one PUT is atomic on object stores."""
        self.call(self.fs.pipe_file, f"{self.root}/{name}", body, must_exist=True)

    def _download(self, name: str, manifest: Mapping[str, Any], target: Path) -> str | None:
        """Fill a directory; returns what differs from the manifest even after several attempts."""
        damage = None
        for pause in _pauses():
            time.sleep(pause)
            for file in [*manifest["files"], MANIFEST]:
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                try:
                    self.call(self.fs.get_file, f"{self.root}/{name}/{file}", str(target / file))
                except FileNotFoundError:
                    return f"{file} differs from its manifest (it is gone)"
            damage = damage_of(target, manifest)
            if damage is None:
                return None
            log.warning("%s/%s after the download from %s", name, damage, self.url)
        return damage

    def _damage(self, name: str, manifest: Mapping[str, Any]) -> str | None:
        """Damage of the stored files themselves, read as a stream."""
        for file, entry in manifest["files"].items():
            try:
                if self.call(self._sha256, f"{self.root}/{name}/{file}") != entry["sha256"]:
                    return f"{file} differs from its manifest (other bytes)"
            except FileNotFoundError:
                return f"{file} differs from its manifest (it is gone)"
        return None

    def _sha256(self, path: str) -> str:
        digest = hashlib.sha256()
        with self.fs.open(path, "rb", block_size=CHUNK_BYTES) as f:
            while chunk := f.read(CHUNK_BYTES):
                digest.update(chunk)  # pyright: ignore[reportArgumentType]
        return digest.hexdigest()

    def _copy_aside(self, name: str, damage: str) -> None:
        aside = f"{DAMAGED}/{stamped(name)}"
        for file in self._sizes(name):
            self.call(self.fs.copy, f"{self.root}/{name}/{file}", f"{self.root}/{aside}/{file}")
        log.warning("%s/%s; it was copied to %s and is published anew", name, damage, aside)

    def _sizes(self, name: str) -> dict[str, int]:
        base = f"{self.root}/{name}/"
        found = self.call(self.fs.find, base, detail=True)
        assert isinstance(found, dict), "details were requested"
        return {str(p).rpartition(base.lstrip("/"))[2]: e["size"] for p, e in found.items()}

    def _put(self, file: Path, name: str) -> None:
        self.call(self.fs.put_file, str(file), f"{self.root}/{name}", must_exist=True)

    def _copy_of(self, name: str) -> Path:
        return self.work / digest_of({"url": self.fs.unstrip_protocol(f"{self.root}/{name}")})

    def _keep(self, files: Path, target: Path, manifest: Mapping[str, Any]) -> None:
        try:
            os.rename(files, target)
        except OSError:
            if damage_of(target, manifest) is None:
                return  # another process fetched it meanwhile, and may be reading it
            self._discard(target)
            os.rename(files, target)

    def _discard(self, copy: Path) -> None:
        aside = staging_directory(self.work / STAGING / "discarded")
        try:
            os.rename(copy, aside / copy.name)  # in one step: no reader sees it half deleted
        except FileNotFoundError:
            pass  # another process discarded it meanwhile
        finally:
            shutil.rmtree(aside)

    def call(
        self, operation: Callable[..., T], *args: Any, must_exist: bool = False, **kwargs: Any
    ) -> T:
        """Call the file system, again after a pause where it fails.

        Raises:
            FileNotFoundError: There is no such object (not with `must_exist`).
            ArtifactError: It failed every time; the message names the store and the remedy.
        """
        error: Exception | None = None
        for pause in _pauses():
            time.sleep(pause)
            try:
                return operation(*args, **kwargs)
            except FileNotFoundError as missing:
                if not must_exist:
                    raise
                error = missing  # the bucket is not there: no pause creates it
                break
            except PermissionError as refused:
                error = refused
                break
            except Exception as failed:  # every fsspec plug-in has errors of its own
                error = failed
                shown = redact_url(str(failed))
                log.warning("%s: %s: %s", self.url, type(failed).__name__, shown)
        raise ArtifactError(
            f"the artifact store {self.url} does not answer as it should "
            f"({type(error).__name__}: {redact_url(str(error))}); check ONEREC_ARTIFACTS, that the "
            "bucket is there, the endpoint (AWS_ENDPOINT_URL) and the credentials in the "
            "environment, then run it again: nothing was published half-done"
        ) from error


def private_directory(path: Path) -> Path:
    """Create a directory that no other user can read or change.

    Raises:
        ArtifactError: It belongs to another user.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = path.stat()
    if state.st_uid != os.getuid():
        raise ArtifactError(
            f"the cache directory {path} belongs to another user, who could change what is read "
            "from it; set ONEREC_HOME to a directory of your own"
        )
    if stat.S_IMODE(state.st_mode) & 0o077:
        path.chmod(0o700)
    return path


def _pauses() -> list[float]:
    return [0.0, *(PAUSE_SECONDS * 2**n for n in range(ATTEMPTS - 1))]
