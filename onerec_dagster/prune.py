"""What `prune` removes: everything that no kept nightly run depends on.

The state then grows with what is kept and not with what was ever made: versions of artifacts,
Dagster's runs with their events and logs, days of the warehouse, unfinished and damaged work.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
from pydantic import Field

from onerec.artifacts import ArtifactStore
from onerec.artifacts.staging import SCRATCH, left_behind
from onerec.config import require
from onerec.disk import GIB
from onerec.retention.pruning import Removal, Version, removals
from onerec.serving.current import read_served
from onerec_dagster.delete_runs import delete_runs
from resources.settings import Settings
from resources.warehouse import Warehouse

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
PARTITION, RANGE_END = "dagster/partition", "dagster/asset_partition_range_end"


class PruneConfig(dg.Config):
    """What stays."""

    keep_nights: int = Field(default=30, ge=1, description="Last nightly runs of each asset")
    keep_champions: int = Field(default=30, ge=1, description="Last champions")
    keep_days: int = Field(default=400, ge=1, description="Last days of the warehouse's log")
    dry_run: bool = Field(default=True, description="Only say what would be removed")


@dataclass(frozen=True)
class State:
    """What is pruned.

    Attributes:
        settings: Where it is.
        store: The artifacts.
        warehouse: The warehouse.
        instance: The runs.
    """

    settings: Settings
    store: ArtifactStore
    warehouse: Warehouse
    instance: dg.DagsterInstance


@dataclass(frozen=True)
class Kept:
    """What stays.

    Attributes:
        first_night: The oldest run that is kept for its own sake; None where there is none yet.
        last_night: The newest one.
        config: How much stays.
        window_days: Days that a nightly run learns from.
    """

    first_night: date | None
    last_night: date | None
    config: PruneConfig
    window_days: int

    def run(self, day: str) -> bool:
        """Whether the runs of a day stay: its nightly run is kept, or one that learned from it."""
        if self.first_night is None:
            return True
        return day >= (self.first_night - timedelta(days=self.window_days)).isoformat()

    @property
    def first_log_day(self) -> date | None:
        """The oldest day of the log that the warehouse keeps."""
        if self.last_night is None:
            return None
        return self.last_night - timedelta(days=self.config.keep_days - 1)


def remove_superseded(state: State, config: PruneConfig) -> Iterator[str]:
    """Remove superseded versions, old nightly runs, runs and days, and DuckDB's free pages.

    Yields:
        A line per kind of thing, with what it frees.

    Raises:
        ValueError: The warehouse would lose days that the next nightly run learns from.
    """
    stages = state.settings.stages
    needed = stages.window.window_days + 1 + stages.sessions.lateness_days
    remedy = f"use at least {needed}: the next nightly run reads so many days"
    require(config.keep_days >= needed, "keep_days", config.keep_days, remedy)
    gone = removals(
        state.store,
        keep_nights=config.keep_nights,
        keep_champions=config.keep_champions,
        served=_served_and_pinned(state),
    )
    kept = _kept(state, config)  # before anything is removed
    would = "would remove" if config.dry_run else "removed"
    for line in (
        *_artifacts(state, gone, config),
        *_set_aside(state, kept),
        *_runs(state, kept),
        *_logs(state, config),
        *_warehouse_rows(state, kept),
    ):
        yield f"{would} {line}"
    if config.dry_run:
        yield "would compact the warehouse. Nothing was removed: this was a dry run"
    elif Path(state.warehouse.path).exists():
        before, after = state.warehouse.compact()
        yield f"compacted the warehouse: {before / GIB:.3f} GiB to {after / GIB:.3f} GiB"


def _served_and_pinned(state: State) -> list[Version]:
    from onerec.promotion.champion import pinned_champion

    served, pinned = read_served(state.settings.serving_dir), pinned_champion(state.store)
    found = [Version("recommendations", served.day, served.version)] if served else []
    return (
        [*found, Version("champion", pinned[0].partition, pinned[0].version)] if pinned else found
    )


def _kept(state: State, config: PruneConfig) -> Kept:
    nights = [date.fromisoformat(p) for p in state.store.partitions("recommendations")]
    nights = nights[-config.keep_nights :]
    window = state.settings.stages.window.window_days
    first, last = (nights[0], nights[-1]) if nights else (None, None)
    return Kept(first, last, config, window)


def _artifacts(state: State, gone: list[Removal], config: PruneConfig) -> Iterator[str]:
    total = 0
    for removal in gone:
        size = state.store.size_of(*removal.what)
        total += size
        if not config.dry_run:
            state.store.remove(*removal.what)
        yield f"{'/'.join(removal.what)} ({size / GIB:.3f} GiB): {removal.reason}"
    yield f"{len(gone)} versions of artifacts, {total / GIB:.3f} GiB"


def _set_aside(state: State, kept: Kept) -> Iterator[str]:
    """Damaged and unfinished artifacts of days that are gone, and drafts of killed processes."""
    store, work, dry_run = state.store, state.store.work, kept.config.dry_run
    damaged = [where for where in store.set_aside() if not kept.run(where[1])]
    size = sum(store.remove_set_aside(*where, dry_run=dry_run) for where in damaged)
    yield f"{len(damaged)} days of damaged artifacts, {size / GIB:.3f} GiB"
    unfinished = [path for path in (work / SCRATCH).glob("*/*") if not kept.run(path.name)]
    yield from _files(unfinished, "days of unfinished artifacts", kept.config)
    yield from _files(left_behind(work), "drafts of killed processes", kept.config)
    if not dry_run:
        _remove_empty_directories(work, kept)


def _remove_empty_directories(work: Path, kept: Kept) -> None:
    """Directories of days that are gone; nothing is written to those any more."""
    for path in (*work.glob("*/*"), *work.glob(".*/*/*")):
        if path.is_dir() and not kept.run(path.name) and not any(path.iterdir()):
            path.rmdir()


def _runs(state: State, kept: Kept) -> Iterator[str]:
    """Runs of days that are gone, with their events and what they printed; also old maintenance."""
    cutoff = datetime.now(UTC) - timedelta(days=kept.config.keep_nights)
    old = []
    for record in state.instance.get_run_records(dg.RunsFilter(statuses=ENDED)):
        day = day_of_run(record.dagster_run.tags)
        is_old = record.create_timestamp < cutoff if day is None else not kept.run(day)
        if is_old:
            old.append(record.dagster_run.run_id)
    storage = Path(state.instance.storage_directory())
    yield from _files(
        [storage / run for run in old if (storage / run).exists()], "outputs of runs", kept.config
    )
    if not kept.config.dry_run:
        delete_runs(state.instance, old)
    yield f"{len(old)} runs of days that are not kept, with their events"


def day_of_run(tags: Mapping[str, str]) -> str | None:
    """The day of a run, the last one of a range; None for a run of no day.

    >>> day_of_run({"dagster/asset_partition_range_end": "2026-06-05"}), day_of_run({})
    ('2026-06-05', None)
    """
    return tags.get(PARTITION) or tags.get(RANGE_END)


def _logs(state: State, config: PruneConfig) -> Iterator[str]:
    """dbt's logs that are older than the kept nightly runs."""
    cutoff = datetime.now(UTC) - timedelta(days=config.keep_nights)
    logs = [
        path
        for path in (state.settings.root / "dbt").rglob("*.log*")
        if path.stat().st_mtime < cutoff.timestamp()
    ]
    yield from _files(logs, "logs of dbt", config)


def _files(paths: list[Path], what: str, config: PruneConfig) -> Iterator[str]:
    size = sum(_size_of(path) for path in paths)
    if not config.dry_run:
        for path in paths:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    yield f"{len(paths)} {what}, {size / GIB:.3f} GiB"


def _warehouse_rows(state: State, kept: Kept) -> Iterator[str]:
    """Days of the log, and tables of nightly runs that are gone; the catalogue's history stays."""
    if kept.first_log_day is None or kept.first_night is None:
        return
    if Path(state.warehouse.path).exists():
        rows = state.warehouse.remove_days(
            log_before=kept.first_log_day,
            published_before=kept.first_night,
            dry_run=kept.config.dry_run,
        )
        for table, number in rows.items():
            yield f"{number:,} rows of {table}"


def _size_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
