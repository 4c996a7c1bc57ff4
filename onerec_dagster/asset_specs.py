"""What the UI shows of assets beside their declarations: owner, freshness, columns of tables."""

from datetime import timedelta

import dagster as dg
import pyarrow as pa

from assets.support import SETTINGS
from onerec import schema

FRESH = {"pretrained_checkpoint", "offline_metrics", "champion", "recommendations"}
NIGHTLY_FRESHNESS = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(hours=36), warn_window=timedelta(hours=26)
)
"""A day is late after 26 hours and missing after 36."""
COLUMN_SCHEMA = "dagster/column_schema"
"""The key under which Dagster's UI looks for columns."""
TABLES = {
    "raw_events": schema.EVENTS,
    "raw_items": schema.ITEMS,
    "raw_prior_history": schema.PRIOR_HISTORY,
    "session_dataset": schema.SESSION_DATASET,
    "semantic_ids": schema.SEMANTIC_IDS,
    "preference_pairs": schema.PREFERENCE_PAIRS,
    "offline_metrics": schema.OFFLINE_METRICS,
    "recommendations": schema.RECOMMENDATIONS,
}
"""Tables that dbt does not make: it describes its own."""


def described(spec: dg.AssetSpec) -> dg.AssetSpec:
    """The spec with the owner, and where they apply a freshness policy and the columns."""
    name = spec.key.to_user_string()
    if name in TABLES:
        spec = spec.merge_attributes(metadata={COLUMN_SCHEMA: column_schema(TABLES[name])})
    if name in FRESH:
        spec = spec.replace_attributes(freshness_policy=NIGHTLY_FRESHNESS)
    return spec if spec.owners else spec.replace_attributes(owners=[SETTINGS.owner])


def column_schema(table: pa.Schema) -> dg.TableSchema:
    """Names, types and descriptions of a table's columns."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                str(column.type),
                description=(column.metadata or {}).get(b"doc", b"").decode(),
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in table
        ]
    )
