"""Artifacts in a directory of this machine, or of a volume that machines share."""

import logging
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from onerec.artifacts.files import sync, sync_tree
from onerec.artifacts.manifest import MANIFEST, damage_of, damaged, manifest_damage

log = logging.getLogger(__name__)

DAMAGED = ".damaged"

T = TypeVar("T")


class LocalStorage:
    """Versions are moved into place by one rename; see `ArtifactStore` for the layout.

    Attributes:
        work: A directory on the same file system for drafts and unfinished work.
    """

    def __init__(self, root: Path) -> None:
        self.work = self.root = root

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def call(self, operation: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call the file system; a remote store's counterpart tries again."""
        return operation(*args, **kwargs)

    def partitions_with(self, asset: str, file: str) -> list[str]:
        """Partitions of an asset that hold a file."""
        # not `glob`, which would take what may not be read for what is not there
        try:
            partitions = list((self.root / asset).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(p.name for p in partitions if (p / file).exists())

    def fetch(self, name: str, manifest: Mapping[str, Any]) -> Path:
        """The directory of a version, verified."""
        directory = self.root / name
        if damage := damage_of(directory, manifest):
            raise damaged(name, damage)
        return directory

    def publish(self, files: Path, name: str, manifest: Mapping[str, Any]) -> None:
        """Move a filled directory, with its `manifest.json`, into its place.

        A version that is there and verifies is left as it is; one that does not is moved aside.
        """
        target = self.root / name
        if target.exists():
            damage = self._damage(name, manifest)
            if damage is None:
                return
            self._move_aside(name, damage)
        sync_tree(files)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(files, target)
        except OSError:
            if self._damage(name, manifest) is not None:
                raise  # else another process published the same version meanwhile
        for parent in (target.parent, target.parent.parent, self.root):
            sync(parent)

    def drop_copy(self, name: str) -> None:
        """Delete a copy of a version on this machine: there is none beside the version itself."""

    def replace(self, name: str, body: bytes, aside: Path) -> None:
        """Replace a small file in one step; `aside` is a path on the same file system."""
        aside.write_bytes(body)
        sync(aside)
        os.replace(aside, self.root / name)
        sync((self.root / name).parent)

    def _damage(self, name: str, manifest: Mapping[str, Any]) -> str | None:
        text = self.read(f"{name}/{MANIFEST}")
        return manifest_damage(text, manifest["version"]) or damage_of(self.root / name, manifest)

    def _move_aside(self, name: str, damage: str) -> None:
        aside = self.root / DAMAGED / stamped(name)
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(self.root / name, aside)
        except FileNotFoundError:
            return  # another process moved it meanwhile
        log.warning("%s/%s; it was moved to %s and is published anew", name, damage, aside)


def stamped(name: str) -> str:
    """A name with the time behind it."""
    return f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
