"""Ingest: a day of the log and of the catalogue into the warehouse, as delivered."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.code_version import code_version
from assets.support import DAILY, IN_ONE_RUN, PIPELINE, POOL_WAREHOUSE, launchpad
from onerec.datasets import EventSource
from onerec.disk import require_free_space
from resources.landing_tables import DATED, Landing
from resources.stores import Source
from resources.warehouse import Warehouse

if TYPE_CHECKING:
    from resources.file_source import FileSource


EARLIER_DAYS = "earlier_days_could_be_read"
"""Warns when a run could not land a day before its own, whose file is damaged say."""


class IngestLaunchpad(launchpad(PIPELINE.window, "window_days")):
    """The window; a single day is landed with those days of its window that are missing."""


@dataclass(frozen=True)
class LookBack:
    """Days before its own that a run for a single day lands too.

    Attributes:
        missing: So far back the days that were never landed: a skipped nightly run must not stop
            the next one.
        reread: So far back every day, as late rows may have come since.
    """

    missing: int
    reread: int

    def days(self, day: date, known: Collection[date], source: EventSource) -> Iterator[date]:
        """Those days, oldest first; `known` were landed before."""
        for number in range(max(self.missing, self.reread), 0, -1):
            earlier = day - timedelta(days=number)
            if earlier < source.first_day:
                continue
            is_missing = number <= self.missing and earlier not in known
            if is_missing or (number <= self.reread and _is_still_delivered(source, earlier)):
                yield earlier


class EventsLaunchpad(IngestLaunchpad, launchpad(PIPELINE.sessions, "lateness_days")):
    """The same, and how far back days are read again."""


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=IN_ONE_RUN,
    group_name="raw",
    kinds={"duckdb"},
    pool=POOL_WAREHOUSE,
    code_version=code_version(__name__, "raw_events"),
    check_specs=[dg.AssetCheckSpec(EARLIER_DAYS, asset="raw_events")],
)
def raw_events(
    context: dg.AssetExecutionContext, config: EventsLaunchpad, source: Source, warehouse: Warehouse
) -> dg.MaterializeResult:
    """Exposures of the day as delivered, typed. A second delivery replaces the first."""
    back = LookBack(missing=config.window_days, reread=config.lateness_days)
    return _land(context, warehouse, "raw_events", source.open(), back)


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=IN_ONE_RUN,
    group_name="raw",
    kinds={"duckdb"},
    pool=POOL_WAREHOUSE,
    code_version=code_version(__name__, "raw_items"),
    check_specs=[dg.AssetCheckSpec(EARLIER_DAYS, asset="raw_items")],
)
def raw_items(
    context: dg.AssetExecutionContext, config: IngestLaunchpad, source: Source, warehouse: Warehouse
) -> dg.MaterializeResult:
    """What the day changed in the catalogue: new items, and items with new values."""
    back = LookBack(missing=config.window_days, reread=0)
    return _land(context, warehouse, "raw_items", source.open(), back)


@dg.asset(
    group_name="raw",
    kinds={"duckdb"},
    pool=POOL_WAREHOUSE,
    code_version=code_version(__name__, "raw_prior_history"),
)
def raw_prior_history(source: Source, warehouse: Warehouse) -> dg.MaterializeResult:
    """What users watched before the log begins, as delivered; empty where the source has none."""
    from resources.deliveries import delivered_history

    with _reported("raw_prior_history"):
        landing = warehouse.land_prior_history(delivered_history(source.open()))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(landing.fingerprint),
        metadata={
            "dagster/row_count": landing.num_stored,
            "dagster/table_name": "raw.raw_prior_history",
            "ignored columns": ", ".join(landing.ignored) or "none",
        },
    )


def checked_days(context: dg.AssetCheckExecutionContext) -> tuple[date, date]:
    """First and last day of a check's run; every day where the check was started by itself."""
    if not (context.has_partition_key or context.has_partition_key_range):
        return date.min, date.max
    days = sorted(context.partition_keys)
    return date.fromisoformat(days[0]), date.fromisoformat(days[-1])


def _empty_day_check(asset: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset, name="day_is_not_empty", pool=POOL_WAREHOUSE)
    def day_is_not_empty(
        context: dg.AssetCheckExecutionContext, warehouse: Warehouse
    ) -> dg.AssetCheckResult:
        """A warning on a delivered day without rows: legal, but usually a mistake."""
        delivered = warehouse.num_delivered(asset.key.path[-1], *checked_days(context))
        empty = [day.isoformat() for day, rows in delivered.items() if not rows]
        return dg.AssetCheckResult(
            passed=not empty,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"no rows on {', '.join(empty)}" if empty else None,
            metadata={"rows delivered": sum(delivered.values()), "empty days": len(empty)},
        )

    return day_is_not_empty


raw_events_day_is_not_empty = _empty_day_check(raw_events)
raw_items_day_is_not_empty = _empty_day_check(raw_items)


class CatalogueLaunchpad(launchpad(PIPELINE.sessions, "max_withdrawn_share")):
    """When too much of the catalogue is withdrawn."""


@dg.asset_check(asset=raw_items, pool=POOL_WAREHOUSE)
def catalogue_did_not_shrink(
    context: dg.AssetCheckExecutionContext, config: CatalogueLaunchpad, warehouse: Warehouse
) -> dg.AssetCheckResult:
    """Items that a full delivery lacks are withdrawn; many of them at once mean a cut delivery."""
    days = warehouse.withdrawn_items(*checked_days(context))
    shares = {day: gone / (gone + there) for day, (gone, there) in days.items() if gone}
    worst = max(shares, key=lambda day: shares[day], default=None)
    limit = config.max_withdrawn_share
    share = shares[worst] if worst else 0.0
    return dg.AssetCheckResult(
        passed=share <= limit,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"{worst}: {days[worst][0]} items ({share:.1%}, threshold {limit:.1%}) are not in the "
            "delivery and are no longer recommended. If they are still for sale, deliver the whole "
            "catalogue and materialise raw_items of the day again, or set items.delivery: partial"
            if worst
            else None
        ),
        metadata={
            "items withdrawn": sum(gone for gone, _ in days.values()),
            "largest share of a day": share,
            "threshold": limit,
        },
    )


def _land(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    table: str,
    source: EventSource,
    back: LookBack,
) -> dg.MaterializeResult:
    """Land the days of the run, and those before it that are missing or read again."""
    from resources.file_source import FileSource

    days = [date.fromisoformat(partition) for partition in sorted(context.partition_keys)]
    own = set(days)
    known: dict[date, str | None] = {}
    if len(days) == 1:
        known = warehouse.fingerprints(table, source.first_day, days[0])
        days = [*back.days(days[0], known, source), *days]
    require_free_space(Path(warehouse.path).parent, f"{table}, days: {len(days)},")
    notes: dict[str, Any] = {}
    with _reported(f"{table}[{_shown(sorted(own))}]"):
        landed, unread = _land_days(warehouse, table, source, sorted({*days} - own), sorted(own))
        for day, landing in landed.items():
            context.log.info("%s[%s]: %d rows", table, day, landing.num_delivered)
        if isinstance(source, FileSource) and table == "raw_events":
            notes = _notes(source, days)
    for note in (*notes.values(), *unread.values()):
        context.log.warning("%s: %s", table, note)
    for day, landing in landed.items():
        if day not in own and known.get(day) != landing.fingerprint:
            record_day(
                context, day, dict.fromkeys(context.selected_asset_keys, landing.fingerprint)
            )
    only = landed[min(own)] if len(own) == 1 else None
    return dg.MaterializeResult(
        # one version per partition: a range of days has none of its own
        data_version=dg.DataVersion(only.fingerprint) if only else None,
        metadata=_summary(table, landed)
        | notes
        | ({"dagster/partition_row_count": only.num_stored} if only else {}),
        check_results=[_earlier_days(unread)],
    )


def _land_days(
    warehouse: Warehouse,
    table: str,
    source: EventSource,
    earlier: Sequence[date],
    own: Sequence[date],
) -> tuple[dict[date, Landing], dict[date, str]]:
    """Land days of the log: a delivery of files in one transaction, else a day in one.

    Returns:
        What was landed, by day; and why earlier days could not be read, a damaged file say: they
        stay as they are, so that one bad day does not stop the days after it.

    Raises:
        OSError | ValueError: A day of the run's own cannot be read.
    """
    try:
        return _deliver(warehouse, table, source, [*earlier, *own]), {}
    except (OSError, ValueError):
        if not earlier:
            raise
    landed = _deliver(warehouse, table, source, own)
    unread = {}
    for day in earlier:
        try:
            landed |= _deliver(warehouse, table, source, [day])
        except (OSError, ValueError) as error:
            unread[day] = str(error)
    return dict(sorted(landed.items())), unread


def _deliver(
    warehouse: Warehouse, table: str, source: EventSource, days: Sequence[date]
) -> dict[date, Landing]:
    from resources.deliveries import deliveries

    landed: dict[date, Landing] = {}
    for delivery in deliveries(source, table, DATED[table], days):
        landed |= warehouse.land(table, delivery)
    return landed


def _earlier_days(unread: Mapping[date, str]) -> dg.AssetCheckResult:
    """A warning on days before the run's own that could not be read."""
    first = next(iter(unread), None)
    return dg.AssetCheckResult(
        check_name=EARLIER_DAYS,
        passed=not unread,
        severity=dg.AssetCheckSeverity.WARN,
        description=first
        and f"{', '.join(map(str, unread))} could not be read, and stay as they were landed before "
        f"or without rows: {unread[first]}. Deliver them again: the next nightly run reads them",
        metadata={"days": {str(day): reason for day, reason in unread.items()}},
    )


def _is_still_delivered(source: EventSource, day: date) -> bool:
    """Whether the source still holds the day: a deleted file is no correction to an empty day."""
    from resources.file_source import FileSource

    return source.holds(day) if isinstance(source, FileSource) else source.has_arrived(day)


def record_day(
    context: dg.AssetExecutionContext, day: date, versions: Mapping[dg.AssetKey, str]
) -> None:
    """Record that a run also made another day than its own, with its data versions.

    Dagster then shows these partitions of the assets as materialised, and what depends on another
    version of them as out of date.
    """
    for asset, version in versions.items():
        context.log_event(
            dg.AssetMaterialization(
                asset,
                partition=day.isoformat(),
                tags={"dagster/data_version": version},
                metadata={"made by the run for": context.partition_key_range.end},
            )
        )


def _summary(table: str, landed: Mapping[date, Landing]) -> dict[str, Any]:
    ignored = sorted({name for landing in landed.values() for name in landing.ignored})
    records = [
        dg.TableRecord(
            {"day": str(day), "rows delivered": x.num_delivered, "rows stored": x.num_stored}
        )
        for day, x in landed.items()
    ]
    return {
        "dagster/table_name": f"raw.{table}",
        "rows delivered": sum(x.num_delivered for x in landed.values()),
        "rows stored": sum(x.num_stored for x in landed.values()),
        "days": dg.MetadataValue.table(records),
        "empty days": ", ".join(str(d) for d, x in landed.items() if not x.num_delivered) or "none",
        "ignored columns": ", ".join(ignored) or "none",
    }


def _notes(source: "FileSource", days: Sequence[date]) -> dict[str, Any]:
    about_files = "; ".join(source.notes())
    notes: dict[str, Any] = {"files": about_files} if about_files else {}
    if source.first_day in days and (outside := source.rows_outside()):
        notes["rows outside of first_day..last_day"] = outside
    return notes


def _shown(days: Sequence[date]) -> str:
    return str(days[0]) if len(days) == 1 else f"{days[0]}..{days[-1]}"


@contextmanager
def _reported(what: str) -> Iterator[None]:
    """A delivery that cannot be read fails the run with its own message."""
    try:
        yield
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors or OSErrors
        raise dg.Failure(
            description=f"{what}: the source could not deliver: {error}. Nothing was changed in "
            "the warehouse; repair the delivery and materialise this partition again"
        ) from error
