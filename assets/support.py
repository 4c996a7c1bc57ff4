"""What every asset module shares: partitions, pools, launchpad configuration, results."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import dagster as dg
import pydantic

from onerec.artifacts import Artifact
from onerec.config.fields import pydantic_fields
from resources.settings import load_settings

SETTINGS = load_settings()
STAGES = SETTINGS.stages

POOL_WAREHOUSE = "warehouse"
"""One process at a time opens the DuckDB file."""
POOL_TRAINER = "trainer"
"""One training at a time per machine."""

_FIRST_DAY, _LAST_DAY = SETTINGS.partition_range()

DAILY = dg.DailyPartitionsDefinition(
    start_date=_FIRST_DAY.isoformat(),
    end_date=(_LAST_DAY + timedelta(days=1)).isoformat() if _LAST_DAY else None,
)
"""Partition D is the nightly run for day D. One definition, shared by every daily asset."""

DAY_BY_DAY = dg.BackfillPolicy.multi_run(max_partitions_per_run=1)
"""Models: each night is a run of its own, so a backfill is a walk-forward evaluation."""
IN_ONE_RUN = dg.BackfillPolicy.single_run()
"""Ingest and SQL: a range of days is one statement."""

T = TypeVar("T")


def upstream(asset: str, *, first: int = 0, last: int = 0) -> dg.AssetDep:
    """A dependency on days `D + first` to `D + last` of a daily asset, as far as they exist.

    Example: `upstream("sessions", first=-13, last=-1)` is the training window of W = 13 days.
    """
    if first == last == 0:
        return dg.AssetDep(asset)
    return dg.AssetDep(
        asset,
        partition_mapping=dg.TimeWindowPartitionMapping(
            start_offset=first, end_offset=last, allow_nonexistent_upstream_partitions=True
        ),
    )


def launchpad(defaults: Any) -> type[dg.Config]:
    """Dagster configuration with the fields, defaults, ranges and docs of a core config."""
    fields: dict[str, Any] = {
        name: (kind, pydantic.Field(default=getattr(defaults, name), **arguments))
        for name, (kind, arguments) in pydantic_fields(type(defaults)).items()
    }
    return pydantic.create_model(f"{type(defaults).__name__}Base", __base__=dg.Config, **fields)


def to_core(config: dg.Config, core: type[T]) -> T:
    """The core dataclass that a launchpad configuration describes; its own checks apply."""
    return core(**config.model_dump())


def published(artifact: Artifact, metadata: Mapping[str, Any]) -> dg.MaterializeResult:
    """An asset's result: the content hash as data version, and where to find the files."""
    counts = artifact.manifest["row_counts"]
    rows = {"dagster/row_count": counts["rows"]} if "rows" in counts else {}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(artifact.content_hash),
        metadata={
            "artifact version": artifact.version,
            "path": dg.MetadataValue.path(str(artifact.path)),
            "size (bytes)": artifact.size_bytes,
            "row counts": dg.MetadataValue.json(counts),
            "upstream versions": dg.MetadataValue.json(artifact.manifest["upstream"]),
            **rows,
            **metadata,
        },
    )


def table_of(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """A table for the UI; at least one row, all with the same columns."""
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])
