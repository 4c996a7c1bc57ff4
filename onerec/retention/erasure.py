"""Erasure of users: their rows are removed from published artifacts."""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from onerec.artifacts import Artifact, ArtifactStore, DamagedArtifactError
from onerec.artifacts.manifest import MANIFEST
from onerec.evaluation.example_page import PAGE_FILE, without_users

USER = "user_id"


class Erased(NamedTuple):
    """What happened to one version that held rows of the users.

    Attributes:
        asset: Name of the asset.
        partition: The partition.
        rows: How many rows of theirs were found, and examples on a page.
        done: What was done.
        problem: Why the version is left as it is, with the remedy; empty where it is not.
    """

    asset: str
    partition: str
    rows: int
    done: str
    problem: str = ""


def erase_users(store: ArtifactStore, users: Sequence[str]) -> Iterator[Erased]:
    """Publish each current version without the users' rows, and remove those with them.

    The version that follows has the settings and upstream versions of the one before, and
    `erased_rows` in its metadata. Weights that were trained on the rows stay as they are. What a
    damaged version holds is not known: it is removed, or is a problem where it is the current one.

    Args:
        store: The artifacts; every Parquet file with a column `user_id` is read, and the pages of
            example users.
        users: Ids of the users.
    """
    wanted = pa.array(users, pa.string())
    for asset in store.assets():
        for partition, version in list(store.versions(asset)):
            if erased := _erase(store, asset, partition, version, wanted):
                yield erased


def _erase(
    store: ArtifactStore, asset: str, partition: str, version: str, users: pa.Array
) -> Erased | None:
    is_current = store.current_version(asset, partition) == version
    try:
        artifact = store.get(asset, partition, version)
        rows = sum(_rows_of(path, users) for path in _tables(artifact.path))
        rows += sum(_without(path, users)[1] for path in artifact.path.rglob(PAGE_FILE))
    except DamagedArtifactError as error:
        if is_current:
            return Erased(
                asset, partition, 0, "damaged, left as it is", f"{error}; then forget again"
            )
        store.remove(asset, partition, version)
        return Erased(asset, partition, 0, "an earlier version that is damaged, removed")
    if not rows:
        return None
    if is_current:
        _publish_without(store, artifact, users, rows)
    store.remove(asset, partition, version)
    done = "published again without them" if is_current else "an earlier version, removed"
    return Erased(asset, partition, rows, done)


def _publish_without(store: ArtifactStore, artifact: Artifact, users: pa.Array, rows: int) -> None:
    made = artifact.manifest
    with store.write(
        artifact.asset,
        artifact.partition,
        config=made["config"],
        upstream=made["upstream"],
        code_version=made["code_version"],
        seed=made["seed"],
    ) as draft:
        left_out = shutil.ignore_patterns(MANIFEST)
        shutil.copytree(artifact.path, draft.path, ignore=left_out, dirs_exist_ok=True)
        for path in _tables(draft.path):
            _write_without(path, users)
        for path in draft.path.rglob(PAGE_FILE):
            path.write_text(_without(path, users)[0], encoding="utf-8")
        draft.row_counts |= made["row_counts"]
        draft.metadata |= made["metadata"]
        draft.metadata["erased_rows"] = rows + made["metadata"].get("erased_rows", 0)


def _tables(directory: Path) -> list[Path]:
    """Parquet files with a column of users."""
    files = sorted(directory.rglob("*.parquet"))
    return [path for path in files if USER in pq.read_schema(path).names]


def _rows_of(path: Path, users: pa.Array) -> int:
    column = pq.read_table(path, columns=[USER]).column(USER).cast(pa.string())
    return int(pc.sum(pc.is_in(column, value_set=users)).as_py() or 0)


def _without(page: Path, users: pa.Array) -> tuple[str, int]:
    return without_users(page.read_text(encoding="utf-8"), users.to_pylist())


def _write_without(path: Path, users: pa.Array) -> None:
    """Row group by row group: a table may be larger than the memory."""
    aside = path.with_suffix(".aside")
    with pq.ParquetFile(path) as file, pq.ParquetWriter(aside, file.schema_arrow) as writer:
        for number in range(file.num_row_groups):
            group = file.read_row_group(number)
            theirs = pc.is_in(group.column(USER).cast(pa.string()), value_set=users)
            writer.write_table(group.filter(pc.invert(theirs)))
    aside.replace(path)
