"""Which artifact versions can be removed: those that no kept version depends on.

Kept are, of each asset, the current versions of its last nightly runs; what those were made from;
and everything that what is served was made from, however old. Partitions that are no days belong to
experiments and are left alone.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from onerec.artifacts import ArtifactError, ArtifactStore, read_json
from onerec.config import require
from onerec.promotion.rule import DECISION

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
CHAMPION, METRICS = "champion", "offline_metrics"
_CHECKPOINT = "_checkpoint"


class Version(NamedTuple):
    """A published version."""

    asset: str
    partition: str
    version: str


@dataclass(frozen=True)
class Removal:
    """A version that is not needed.

    Attributes:
        what: The version.
        reason: Why it may go.
    """

    what: Version
    reason: str


def removals(
    store: ArtifactStore, *, keep_nights: int, keep_champions: int, served: Iterable[Version]
) -> list[Removal]:
    """What can be removed.

    Args:
        store: The artifacts.
        keep_nights: Last partitions of each asset whose current version stays.
        keep_champions: The same of `champion`.
        served: What is served or pinned: its lineage stays.

    Raises:
        ValueError: Nothing would be kept.
    """
    require(keep_nights >= 1, "keep_nights", keep_nights, "use at least 1")
    require(keep_champions >= 1, "keep_champions", keep_champions, "use at least 1")
    every = list(versions(store))
    by_version = {(v.asset, v.version): v for v in every}
    current, kept = _current(store, every), set[Version]()
    for asset in {v.asset for v in every}:
        nights = keep_champions if asset == CHAMPION else keep_nights
        kept |= set(sorted(v for v in current if v.asset == asset)[-nights:])
    kept |= {u for v in list(kept) for u in _made_from(store, v, by_version)}
    kept |= lineage(store, served, by_version)
    superseded, old = (
        "a newer version of its day is current",
        f"older than {keep_nights} nightly runs",
    )
    return [Removal(v, old if v in current else superseded) for v in every if v not in kept]


def versions(store: ArtifactStore) -> Iterator[Version]:
    """Every version of every daily artifact, in order."""
    for asset in store.assets():
        for partition, version in store.versions(asset):
            if _DAY.fullmatch(partition):
                yield Version(asset, partition, version)


def lineage(
    store: ArtifactStore, served: Iterable[Version], by_version: dict[tuple[str, str], Version]
) -> set[Version]:
    """Some versions, and everything that they were made from."""
    found, open_ends = set[Version](), list(served)
    while open_ends:
        version = open_ends.pop()
        if version not in found:
            found.add(version)
            open_ends += _made_from(store, version, by_version)
    return found


def _made_from(
    store: ArtifactStore, version: Version, by_version: dict[tuple[str, str], Version]
) -> list[Version]:
    if version.asset == METRICS:
        return []  # they record a decision; the champion does not depend on what they compare
    try:
        artifact = store.get(*version)
        upstream = dict(artifact.manifest["upstream"])
        if version.asset == CHAMPION:
            # not the challenger, which may have been refused, nor the champion before
            upstream = {k: v for k, v in upstream.items() if not k.endswith(_CHECKPOINT)}
            upstream.pop(CHAMPION, None)
            model = read_json(artifact.path / DECISION)["model"] or {}
            upstream[model.get("asset", "")] = model.get("version", "")
    except ArtifactError:
        return []  # removed or damaged: nothing can be read of it
    return [by_version[edge] for edge in upstream.items() if edge in by_version]


def _current(store: ArtifactStore, every: Iterable[Version]) -> set[Version]:
    current = set()
    for asset, partition in {(v.asset, v.partition) for v in every}:
        version = store.current_version(asset, partition)
        if version is not None:
            current.add(Version(asset, partition, version))
    return current
