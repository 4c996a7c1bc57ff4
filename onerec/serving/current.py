"""The files that consumers read: current recommendations, independent of the warehouse's lock.

    <root>/current -> versions/<day>-<version>     a link, moved in one atomic step
    <root>/current/recommendations.parquet         a row per user and rank, with titles
    <root>/current/bundle/                         for `onerec.serving.bundle.load_bundle`
    <root>/current/served.json                     day, model, and the reason if degraded

Everything here may be read by other users of the machine: directories are 0755, files 0644. A
reader that resolves `current` once sees one version throughout; recent versions stay for it.
"""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

import filecmp
import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from onerec.artifacts import read_json, write_json
from onerec.artifacts.files import sync, sync_tree
from onerec.artifacts.staging import is_left_behind
from onerec.schema import RECOMMENDATIONS

CURRENT, VERSIONS, BUNDLE = "current", "versions", "bundle"
TABLE, TITLES, SERVED = "recommendations.parquet", "titles.parquet", "served.json"
KEPT = 3
"""Number of newest versions kept for readers that still have them open."""
PUBLISH_AGAIN = "publish it again, materialise recommendations of the newest day"


@dataclass(frozen=True, kw_only=True)
class ServedVersion:
    """Contents of `served.json`.

    Attributes:
        day: The nightly run's day D.
        serve_date: The day that the recommendations are meant for.
        version: Of the `recommendations` artifact.
        model_version: Of the checkpoint, or the name of a simple system.
        degraded: Why the model is not the one of the day's nightly run; None where that run
            succeeded.
    """

    day: str
    serve_date: str
    version: str
    model_version: str
    degraded: str | None


def publish_current(
    root: Path, served: ServedVersion, *, table: pa.Table, titles: pa.Table, bundle: Path
) -> bool:
    """Write a new version beside the current one, then move the link `current` to it atomically.

    Args:
        root: The directory that consumers know.
        served: Day and model that are published.
        table: `schema.RECOMMENDATIONS`.
        titles: `item_id` and `title` of the catalogue; an item that it lacks has no title.
        bundle: Directory of the bundle that made the table.

    Returns:
        Whether `current` is now this version; False where it already is of a later day, and nothing
        is written.
    """
    try:
        standing = read_served(root)
    except ValueError:
        standing = None  # damaged: this version takes its place
    if standing is not None and standing.day > served.day:
        return False
    versions = root / VERSIONS
    versions.mkdir(parents=True, exist_ok=True)
    aside = versions / f".{uuid.uuid4().hex}"
    try:
        aside.mkdir()
        pq.write_table(with_titles(table, titles), aside / TABLE)
        pq.write_table(titles, aside / TITLES)
        shutil.copytree(bundle, aside / BUNDLE)
        write_json(aside / SERVED, asdict(served))
        _open_to_everyone(aside)
        sync_tree(aside)
        target = versions / f"{served.day}-{served.version}"
        if target.exists() and not _same_files(aside, target):  # damaged since: readers keep it
            target = versions / f"{target.name}-{aside.name[1:9]}"
        if not target.exists():
            os.rename(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for directory in (root, versions):
        mode = directory.stat().st_mode
        if mode & 0o755 != 0o755:  # only its owner may change it
            directory.chmod(mode | 0o755)
    current = root / CURRENT
    if current.is_dir() and not current.is_symlink():
        shutil.rmtree(current)  # a copy of the state that followed the link
    replaced = current.resolve().name
    link = root / f".{uuid.uuid4().hex}"
    link.symlink_to(Path(VERSIONS) / target.name)
    os.replace(link, current)
    sync(root)
    _drop_old(versions, {target.name, replaced})
    return True


def read_served(root: Path) -> ServedVersion | None:
    """Read `current/served.json`; None where nothing was published.

    Raises:
        ValueError: `served.json` is damaged.
    """
    file = root / CURRENT / SERVED
    if not file.exists():
        return None
    try:
        return ServedVersion(**read_json(file))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error}): {PUBLISH_AGAIN}") from None


def problem_of_current(root: Path) -> str:
    """The problem that makes `current` unreadable, in words; empty where there is none."""
    try:
        if read_served(root) is None:
            return "nothing is served: make a nightly run, python -m onerec_dagster rerun DAY"
        pq.read_table(root / CURRENT / TABLE, columns=["user_id", "item_id"])
    except (ValueError, OSError, pa.ArrowException) as error:
        return str(error) if PUBLISH_AGAIN in str(error) else f"{error}: {PUBLISH_AGAIN}"
    if not (root / CURRENT / BUNDLE).is_dir():
        return f"{root / CURRENT / BUNDLE} is not there: {PUBLISH_AGAIN}"
    return ""


def with_titles(table: pa.Table, titles: pa.Table) -> pa.Table:
    """The table with a column `title` after `item_id`; null for items without a title.

    Examples:
        >>> rows = [dict(user_id="u", serve_date=None, rank=1, item_id="a", score=0.0, reward=None,
        ...              model_version="m", tokenizer_version="t")]
        >>> table = pa.Table.from_pylist(rows)
        >>> with_titles(table, pa.table({"item_id": ["a"], "title": ["A"]}))["title"].to_pylist()
        ['A']
    """
    item_ids = titles.column("item_id").combine_chunks()
    row = pc.index_in(table.column("item_id"), value_set=item_ids)
    title = titles.column("title").combine_chunks().cast(pa.string()).take(row.combine_chunks())
    field = pa.field("title", pa.string(), metadata={"doc": "The item's title, if it has one"})
    return table.add_column(RECOMMENDATIONS.get_field_index("item_id") + 1, field, title)


def _same_files(one: Path, other: Path) -> bool:
    names = [{str(f.relative_to(d)) for f in d.rglob("*") if f.is_file()} for d in (one, other)]
    common = sorted(names[0])
    return names[0] == names[1] and not any(filecmp.cmpfiles(one, other, common, shallow=False)[1:])


def _open_to_everyone(directory: Path) -> None:
    directory.chmod(0o755)
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _drop_old(versions: Path, in_use: set[str]) -> None:
    """Keep the newest versions by the time they were published, the current one and the one before,
    which readers may have open. What killed processes left half-written goes, too."""
    for unfinished in versions.glob(".*"):
        if is_left_behind(unfinished):
            shutil.rmtree(unfinished, ignore_errors=True)
    there = [p for p in versions.iterdir() if not p.name.startswith(".") and p.name not in in_use]
    there.sort(key=lambda path: path.stat().st_mtime)
    for old in there[: max(0, len(there) - (KEPT - len(in_use)))]:
        shutil.rmtree(old, ignore_errors=True)
