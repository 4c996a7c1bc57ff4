"""What every asset module shares: partitions, pools, launchpad configuration, results."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import dagster as dg
import pydantic

from onerec.artifacts import Artifact
from onerec.config import PipelineConfig, ValidatedConfig, require
from onerec.config.fields import pydantic_fields
from resources.commit import current_commit
from resources.settings import load_settings

SETTINGS = load_settings()
PIPELINE: PipelineConfig = SETTINGS.stages
"""The settings of every stage that launchpads show as defaults."""

POOL_WAREHOUSE = "warehouse"
"""One process at a time opens the DuckDB file."""
POOL_TRAINER = "trainer"
"""One training at a time per machine."""

_FIRST_DAY, _LAST_DAY = SETTINGS.partition_range()

DAILY = dg.DailyPartitionsDefinition(
    start_date=_FIRST_DAY.isoformat(),
    end_date=(_LAST_DAY + timedelta(days=1)).isoformat() if _LAST_DAY else None,
    timezone=SETTINGS.time_zone,
)
"""Partition D is the nightly run for day D. One definition, shared by every daily asset."""

DAY_BY_DAY = dg.BackfillPolicy.multi_run(max_partitions_per_run=1)
"""Models: a run for each day, so that a backfill is a walk-forward evaluation."""
IN_ONE_RUN = dg.BackfillPolicy.single_run()
"""Ingest and SQL: a range of days is one statement."""

C = TypeVar("C", bound=ValidatedConfig)


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


CORRECTABLE = upstream("sessions", first=-PIPELINE.window.window_days)
"""The log that every asset of a nightly run depends on. Dagster finds an asset out of date by its
direct dependencies alone, so that each names this one: a corrected day then shows in all of them.
"""


def launchpad(defaults: ValidatedConfig, *names: str) -> type[dg.Config]:
    """Dagster configuration of an asset: the fields of a core config that act in it.

    Args:
        defaults: The core config; its values are the defaults, its docs and ranges are shown.
        names: Those fields; all of them where none is named.

    Raises:
        ValueError: The core config has no field of a name.
    """
    known = pydantic_fields(type(defaults))
    for name in names:
        require(name in known, "names", name, f"use fields of {type(defaults).__name__}")
    fields: dict[str, Any] = {
        name: (kind, pydantic.Field(default=getattr(defaults, name), **arguments))
        for name, (kind, arguments) in known.items()
        if name in (names or known)
    }
    return pydantic.create_model(f"{type(defaults).__name__}Base", __base__=dg.Config, **fields)


def all_but(defaults: ValidatedConfig, *names: str) -> tuple[str, ...]:
    """The fields of a core config without some."""
    return tuple(name for name in pydantic_fields(type(defaults)) if name not in names)


def to_core(config: dg.Config, defaults: C) -> C:
    """A core config with the values of a launchpad; fields that it does not show keep theirs.

    Raises:
        SettingError: The values do not go together.
    """
    shown = type(config).model_fields.keys() & pydantic_fields(type(defaults)).keys()
    return dataclasses.replace(defaults, **{name: getattr(config, name) for name in shown})


def published(artifact: Artifact, metadata: Mapping[str, Any]) -> dg.MaterializeResult:
    """An asset's result: the content hash as data version, and where to find the files."""
    counts = artifact.manifest["row_counts"]
    rows = {"dagster/row_count": counts["rows"]} if "rows" in counts else {}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(artifact.content_hash),
        metadata={
            "artifact version": artifact.version,
            "commit": current_commit(),
            "path": dg.MetadataValue.path(str(artifact.path)),
            "size (bytes)": artifact.size_bytes,
            "row counts": dg.MetadataValue.json(counts),
            "upstream versions": dg.MetadataValue.json(artifact.manifest["upstream"]),
            **rows,
            **metadata,
        },
    )


def check_specs(
    asset: dg.AssetsDefinition | str, descriptions: Mapping[str, str], *, blocking: bool = False
) -> list[dg.AssetCheckSpec]:
    """The checks of an asset by name; blocking ones stop what is downstream when they fail."""
    return [
        dg.AssetCheckSpec(name, asset=asset, blocking=blocking, description=description)
        for name, description in descriptions.items()
    ]


def listed(items: Iterable[object]) -> dg.MarkdownMetadataValue:
    """A list for the UI."""
    from onerec.markdown import markdown_list

    return dg.MetadataValue.md(markdown_list(items))


def table_of(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """A table for the UI; at least one row, all with the same columns."""
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])
