"""Shared by the assets of result tables: choice of days, provenance, and asset results."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from assets.support import SETTINGS, listed
from experiments.nightly_artifacts import NEEDED
from onerec.artifacts import ArtifactStore
from resources.commit import UNKNOWN, current_commit

if TYPE_CHECKING:
    from experiments.reporting.result_tables import Provenance, ResultTable

GROUP = "experiments"


class DaysLaunchpad(dg.Config):
    """Which nightly runs a table is made from."""

    first_day: str = Field(default="", description="Empty: from the first that there is")
    last_day: str = Field(default="", description="Empty: to the last that there is")

    def chosen(self, days: Iterable[str]) -> list[str]:
        """The days that lie in the range."""
        return [day for day in days if self.first_day <= day <= (self.last_day or day)]


def recorded(instance: dg.DagsterInstance, asset: str, partition: str, name: str) -> Any:
    """A value from the metadata of a partition's last materialization; None where there is none."""
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[partition])
    records = instance.fetch_materializations(wanted, limit=1).records
    event = records[0].asset_materialization if records else None
    return event.metadata[name].value if event and name in event.metadata else None


def recorded_seconds(
    instance: dg.DagsterInstance, asset: str, partition: str, name: str = "seconds"
) -> float | None:
    """A duration from the metadata of a partition's last materialization, if any."""
    value = recorded(instance, asset, partition, name)
    return float(value) if isinstance(value, int | float) else None


def commits_of_nights(instance: dg.DagsterInstance, days: Sequence[str]) -> list[str]:
    """The commits that made what experiments read of nightly runs; `UNKNOWN` where none is
    recorded."""
    found = {recorded(instance, asset, day, "commit") for asset in NEEDED for day in days}
    return sorted({commit or UNKNOWN for commit in found})


def provenance(
    instance: dg.DagsterInstance,
    store: ArtifactStore,
    days: Sequence[str],
    settings: Mapping[str, Any],
    seeds: Sequence[int],
    budget: str,
) -> "Provenance":
    """Provenance of a table of nightly runs.

    Args:
        instance: Where the nightly runs are recorded.
        store: The artifacts.
        days: The nightly runs' test days.
        settings: Settings of the nightly runs, as JSON.
        seeds: Seeds used.
        budget: Training budget of the systems.
    """
    from experiments.reporting.result_tables import Provenance

    hashes = [store.latest("session_dataset", day).content_hash for day in days]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return Provenance(
        data=f"{SETTINGS.dataset} {'+'.join(hashes)}",
        config=f"`{digest[:10]}` ({SETTINGS.preset} preset with the data set's settings)",
        seeds=seeds,
        budget=budget,
        commit=current_commit(),
        nights=commits_of_nights(instance, days),
    )


def written(
    tables: "Sequence[ResultTable]", metadata: Mapping[str, Any] | None = None
) -> dg.MaterializeResult:
    """Write an asset's tables to the directory of `make tables` and show them in the UI.

    The data version is a hash of the metrics, without timings.
    """
    from experiments.reporting.result_tables import cells
    from experiments.reporting.results_page import write_table
    from onerec.report.pictures import svg_markdown

    shown: dict[str, Any] = {}
    for table in tables:
        write_table(SETTINGS.tables_dir, table)
        head, *lines = cells(table)
        records = [dg.TableRecord(dict(zip(head, line, strict=True))) for line in lines]
        schema = dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in head])
        shown[table.name] = dg.MetadataValue.table(records, schema)
        shown[f"{table.name}: findings"] = listed(table.findings)
        for column, svg in table.pictures().items():
            title = table.shown.get(column, column.metric)
            shown[f"{table.name}: {title}"] = dg.MetadataValue.md(svg_markdown(svg))
    rows = [row for table in tables for row in table.metrics.rows]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest[:16]),
        metadata={
            "directory": dg.MetadataValue.path(str(SETTINGS.tables_dir)),
            **shown,
            **(metadata or {}),
        },
    )
