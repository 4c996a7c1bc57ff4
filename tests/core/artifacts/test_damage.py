"""What is damaged after publishing is never read, and publishing the same again repairs it."""

import hashlib
import json
import os
import stat
import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from onerec.artifacts import ArtifactError, ArtifactStore, DamagedArtifactError, files, local
from onerec.artifacts.manifest import digest_of, is_plain
from tests.core.artifacts.small import DAY, publish

Damage = Callable[[Path], object]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"))


def flip(file: Path) -> None:
    """Change one bit, and set the modification time back."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def edit_manifest(version: Path) -> None:
    """Claim other settings."""
    manifest = json.loads((version / "manifest.json").read_text())
    manifest["config"]["k"] = 64
    (version / "manifest.json").write_text(json.dumps(manifest))


def edit_manifest_and_file(version: Path) -> None:
    """Change a file and its hash in the manifest: only the version still tells."""
    file = version / "text.txt"
    file.write_text("jello")
    manifest = json.loads((version / "manifest.json").read_text())
    manifest["files"]["text.txt"]["sha256"] = hashlib.sha256(b"jello").hexdigest()
    (version / "manifest.json").write_text(json.dumps(manifest))


DAMAGES: dict[str, tuple[Damage, str]] = {
    "bit flipped": (lambda v: flip(v / "text.txt"), r"text.txt .*\(other bytes\)"),
    "cut off": (lambda v: os.truncate(v / "text.txt", 4), r"text.txt .*\(4 bytes, not 5\)"),
    "emptied": (lambda v: os.truncate(v / "text.txt", 0), r"text.txt .*\(0 bytes, not 5\)"),
    "deleted": (lambda v: (v / "deep/er/numbers.json").unlink(), "deep/er/numbers.json .*gone"),
    "added": (lambda v: (v / "more.parquet").write_text("x"), "more.parquet .*not in it"),
    "manifest edited": (edit_manifest, "manifest.json does not hash to its version"),
    "manifest and file edited": (edit_manifest_and_file, "manifest.json does not hash"),
    "manifest cut off": (
        lambda v: os.truncate(v / "manifest.json", 50),
        "manifest.json is not JSON",
    ),
    "manifest deleted": (lambda v: (v / "manifest.json").unlink(), "manifest.json is gone"),
}


@pytest.mark.parametrize(("damage", "found"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_an_error_until_it_is_made_again(
    damage: Damage, found: str, store: ArtifactStore, caplog: pytest.LogCaptureFixture
) -> None:
    older = publish(store, "older")
    made = publish(store)
    directory = made.path
    damage(directory)
    damaged = {f.name: f.read_bytes() for f in directory.rglob("*") if f.is_file()}
    remedy = f"materialise codebook for {DAY} again"
    for _ in range(2):  # never the older version instead, however often it is read
        with pytest.raises(
            DamagedArtifactError, match=f"codebook/{DAY}/{made.version}/{found}.*{remedy}"
        ):
            _ = store.latest("codebook", DAY).path

    again = publish(store)
    assert again.version == made.version
    assert (store.latest("codebook", DAY).path / "text.txt").read_text() == "hello"
    (kept,) = (Path(store.root) / local.DAMAGED / "codebook" / DAY).iterdir()
    assert kept.name.startswith(made.version)
    assert {f.name: f.read_bytes() for f in kept.rglob("*") if f.is_file()} == damaged
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert str(kept) in warning
    assert made.version in warning
    assert store.get("codebook", DAY, older.version).verify().version == older.version
    assert store.partitions("codebook") == [DAY]


@pytest.mark.parametrize("text", ["", "{}", '{"version": "../../secret"}', '{"version": 3}'])
def test_a_damaged_pointer_is_an_error_until_it_is_made_again(
    text: str, store: ArtifactStore
) -> None:
    publish(store)
    (Path(store.root) / "codebook" / DAY / "current.json").write_text(text)
    with pytest.raises(DamagedArtifactError, match=r"current.json names no version.*materialise"):
        store.latest("codebook", DAY)
    assert publish(store).version == store.latest("codebook", DAY).verify().version


def test_what_verifies_is_not_written_again(store: ArtifactStore) -> None:
    made = publish(store)
    before = {f: f.stat().st_ino for f in made.path.rglob("*")}
    assert {f: f.stat().st_ino for f in publish(store).path.rglob("*")} == before
    assert not (Path(store.root) / local.DAMAGED).exists()


def test_a_file_is_hashed_once_per_process(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    digest = hashlib.file_digest

    def count(file, name: str):
        hashed.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(files.hashlib, "file_digest", count)
    made = publish(store)
    assert sorted(hashed) == ["numbers.json", "text.txt"]
    for _ in range(3):
        _ = store.latest("codebook", DAY).verify().path
    publish(store)
    # the second draft is other files, to be compared with what is there
    assert sorted(hashed) == ["numbers.json", "numbers.json", "text.txt", "text.txt"]
    os.utime(made.path / "text.txt")
    made.verify()
    assert hashed[4:] == ["text.txt"]


def test_settings_with_keys_that_are_no_strings_verify(store: ArtifactStore) -> None:
    publish(store, config={"sizes": {10: 1, 9: 2}})
    assert store.latest("codebook", DAY).verify().manifest["config"] == {"sizes": {"9": 2, "10": 1}}


def test_everything_is_on_disk_before_it_is_visible(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power failure after a rename must not leave the new name with the old, empty content."""
    done: list[str] = []
    root = str(store.root)
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def place(path: str) -> str:
        parts = Path(path).relative_to(root).parts
        return "/".join(["draft", *parts[4:]] if parts[:1] == (".staging",) else parts)

    def synced(handle: int) -> None:
        fsync(handle)
        done.append("sync " + place(os.readlink(f"/proc/self/fd/{handle}")))

    def renamed(old, new) -> None:
        rename(old, new)
        done.append("rename " + place(str(new)))

    def replaced(old, new) -> None:
        replace(old, new)
        done.append("replace " + place(str(new)))

    monkeypatch.setattr(files.os, "fsync", synced)
    monkeypatch.setattr(local.os, "rename", renamed)
    monkeypatch.setattr(local.os, "replace", replaced)
    version = publish(store).version
    partition = f"codebook/{DAY}"
    moved, pointed = (
        done.index(f"{w}")
        for w in (f"rename {partition}/{version}", f"replace {partition}/current.json")
    )
    written = {
        f"files/{f}"
        for f in ("text.txt", "manifest.json", "deep", "deep/er", "deep/er/numbers.json")
    }
    assert {f"sync draft/{f}" for f in {"files", *written}} == set(done[:moved])
    assert f"sync {partition}" in done[moved:pointed]
    assert "sync draft/current.json" in done[moved:pointed]
    assert done[pointed + 1 :] == [f"sync {partition}"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_who_may_read_is_the_umask(umask: int, store: ArtifactStore) -> None:
    before = os.umask(umask)
    try:
        with store.write("model", DAY, config={}, upstream={}, code_version="c") as draft:
            save_file({"x": torch.zeros(3)}, draft.path / "model.safetensors")
        made = publish(store)
    finally:
        os.umask(before)
    root = Path(store.root)
    seen = [p for p in root.rglob("*") if ".staging" not in p.parts]
    assert made.path / "text.txt" in seen
    assert root / "codebook" / DAY / "current.json" in seen
    assert draft.artifact.path / "model.safetensors" in seen
    for path in seen:
        full = 0o777 if path.is_dir() else 0o666
        assert stat.S_IMODE(path.stat().st_mode) == full & ~umask, path


@pytest.mark.parametrize(
    "name", ["../outside", "a/../../outside", "/outside", "a//b", ".", "manifest.json"]
)
def test_a_manifest_cannot_name_files_outside_of_its_directory(name: str, tmp_path: Path) -> None:
    root = f"memory://{uuid.uuid4().hex}"
    cache = tmp_path / "deep" / "cache"
    store = ArtifactStore(root, cache_dir=str(cache))
    body = {"files": {name: {"sha256": "0" * 64, "size_bytes": 1}}}
    version = digest_of(body)
    memory = fsspec.filesystem("memory")
    memory.pipe_file(
        f"{store.root}/codebook/{DAY}/{version}/manifest.json",
        json.dumps(body | {"version": version}).encode(),
    )
    memory.pipe_file(
        f"{store.root}/codebook/{DAY}/current.json", json.dumps({"version": version}).encode()
    )
    with pytest.raises(DamagedArtifactError, match="names a file outside of its directory"):
        _ = store.latest("codebook", DAY).path
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@given(st.text(alphabet="ab./\\\0~ ", max_size=12))
def test_a_plain_name_stays_below_its_directory(name: str) -> None:
    base = Path("/base/of/files")
    if is_plain(name):
        inside = Path(os.path.normpath(base / name))
        assert inside.is_relative_to(base)
        assert inside != base
        assert inside.relative_to(base).as_posix() == name


def test_a_damaged_version_is_not_taken_for_a_missing_one(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError) as missing:
        store.get("codebook", DAY, "0" * 16)
    assert not isinstance(missing.value, DamagedArtifactError)
