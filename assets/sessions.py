"""Session SQL: the dbt project as assets, its data tests as checks."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg
from dagster_dbt import (
    DagsterDbtTranslator,
    DagsterDbtTranslatorSettings,
    DbtProject,
    dbt_assets,
)

from assets.raw import IngestLaunchpad, checked_days, record_day
from assets.support import (
    DAILY,
    IN_ONE_RUN,
    PIPELINE,
    POOL_WAREHOUSE,
    SETTINGS,
    all_but,
    launchpad,
    to_core,
)
from onerec.config import SessionConfig
from onerec.config.feedback import VIDEO, Feedback
from resources import log_quality
from resources.dbt import SessionDbt, dbt_project
from resources.warehouse import DeliveredDay, Warehouse

NOT_FOR_SQL = {
    "max_rejected_share",
    "max_withdrawn_share",
    "max_volume_ratio",
    "min_positive_share",
    "max_positive_share",
    "repeats",
    "min_repeat_share",
}
"""Session settings that only the session dataset and its checks read."""

OF_LISTS = {"history_length", "session_items"}
"""Settings of which the stored tables know nothing: lists are cut when they are read."""

REJECTED_BY_CHOICE = {"user_id has more than max_events_per_user_day events on the day"}
"""Reasons that a setting turns on; they are no sign of a damaged log."""


class SessionLaunchpad(
    IngestLaunchpad, launchpad(PIPELINE.sessions, *all_but(PIPELINE.sessions, *NOT_FOR_SQL))
):
    """Thresholds of sessions, handed to dbt as variables of the same names, and the window."""


class RejectionLaunchpad(launchpad(PIPELINE.sessions, "max_rejected_share")):
    """When too many rows are rejected."""


class OrderLaunchpad(launchpad(PIPELINE.sessions, "session_order", "max_tied_share")):
    """When the order of a session counts as unknown."""


def session_variables(
    config: SessionConfig, feedback: Feedback = VIDEO, time_zone: str = "UTC"
) -> dict[str, Any]:
    """dbt's variables: the settings under their own names, what events mean, and the time zone of
    the log's days."""
    settings = {k: v for k, v in dataclasses.asdict(config).items() if k not in NOT_FOR_SQL}
    variables = {"time_zone": time_zone} | settings | feedback.variables()
    stored = {name: value for name, value in variables.items() if name not in OF_LISTS}
    built_with = hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()[:16]
    return {"built_with": built_with, "user_sample": 1.0} | variables


PROJECT = dbt_project(
    SETTINGS.root / "dbt",
    SETTINGS.warehouse_path,
    session_variables(PIPELINE.sessions, SETTINGS.feedback, SETTINGS.time_zone),
)


class SessionSqlTranslator(DagsterDbtTranslator):
    """Macros count for a model's code version: they hold what a signal or a watched item is."""

    MACROS = hashlib.sha256(
        b"".join(file.read_bytes() for file in sorted(PROJECT.project_dir.glob("macros/*.sql")))
    ).hexdigest()

    def get_asset_spec(
        self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None
    ) -> dg.AssetSpec:
        spec = super().get_asset_spec(manifest, unique_id, project)
        versions = f"{spec.code_version} {self.MACROS}".encode()
        return spec.replace_attributes(code_version=hashlib.sha256(versions).hexdigest()[:12])


@dbt_assets(
    manifest=PROJECT.manifest_path,
    project=PROJECT,
    name="session_sql",
    partitions_def=DAILY,
    backfill_policy=IN_ONE_RUN,
    pool=POOL_WAREHOUSE,
    # what was landed and the record of it are made by one asset
    dagster_dbt_translator=SessionSqlTranslator(
        settings=DagsterDbtTranslatorSettings(enable_duplicate_source_asset_keys=True)
    ),
)
def session_sql(
    context: dg.AssetExecutionContext,
    config: SessionLaunchpad,
    dbt: SessionDbt,
    warehouse: Warehouse,
) -> Iterator[Any]:
    """Staging, sessions and good sessions of the run's days, in one pass.

    Earlier days are built too that were landed, or corrected, since they were built, or built with
    other settings: of the window where the run is for a single day, of the lateness window in any
    case, so that models learn from sessions of one kind. So are deliveries of the
    lateness window after the last day: one of their rows may now be a duplicate, or no longer. And
    so are those after them that were landed and not built: they may have late rows of these days.
    """
    days = sorted(date.fromisoformat(p) for p in context.partition_keys)
    settings = to_core(config, PIPELINE.sessions)
    late = timedelta(days=settings.lateness_days)
    back = max(late, timedelta(days=config.window_days)) if len(days) == 1 else late
    variables = session_variables(settings, SETTINGS.feedback, SETTINGS.time_zone)
    delivered = warehouse.delivered_days(days[0] - back, date.max, variables["built_with"])
    end = last_to_build(days[-1], late, delivered)
    others = [d for d in delivered if not d.is_built_alike and d.day not in days and d.day <= end]
    start = min([d.day for d in others] + days)
    versions = {}  # a range of days has none of its own
    if len(days) == 1:
        fingerprint = next((d.fingerprint for d in delivered if d.day == days[0]), "")
        versions = _versions(context, fingerprint, settings)
    for event in dbt.build(context, variables, (start, end)):
        if isinstance(event, dg.Output) and versions:
            version = versions[context.asset_key_for_output(event.output_name)]
            yield dg.Output(
                None,
                output_name=event.output_name,
                metadata=event.metadata,
                data_version=dg.DataVersion(version),
            )
        else:
            yield event
    for other in others:
        record_day(context, other.day, _versions(context, other.fingerprint, settings))


def last_to_build(last: date, late: timedelta, delivered: Sequence[DeliveredDay]) -> date:
    """The last delivery that a build up to a day reads.

    Args:
        last: The last day that is asked for.
        late: So much later than its day a row may be delivered.
        delivered: Days of the log, oldest first.
    """
    end = last + late
    for other in delivered:
        if end < other.day <= end + late and not other.is_built:
            end = other.day + late
    return end


def _versions(
    context: dg.AssetExecutionContext, fingerprint: str, settings: SessionConfig
) -> dict[dg.AssetKey, str]:
    """Data versions of a day's tables: of what was delivered of it, the settings and the SQL.

    The same whichever run built the day: what depends on it is out of date only if one of them
    changed.
    """
    return {
        spec.key: hashlib.sha256(
            f"{fingerprint} {settings} {SETTINGS.feedback} {spec.code_version}".encode()
        ).hexdigest()[:16]
        for spec in context.assets_def.specs
        if spec.key in context.selected_asset_keys
    }


@dg.asset_check(asset=dg.AssetKey("rejected_events"), blocking=True, pool=POOL_WAREHOUSE)
def rejected_share_below_threshold(
    context: dg.AssetCheckExecutionContext, config: RejectionLaunchpad, warehouse: Warehouse
) -> dg.AssetCheckResult:
    """Too many rejected rows mean that the format of the log changed."""
    days = checked_days(context)
    with warehouse.connect(read_only=True) as connection:
        reasons = log_quality.rejections(connection, *days)
        rejected = {k: v for k, v in reasons.items() if k not in REJECTED_BY_CHOICE}
        worst = next(iter(rejected), None)
        example = log_quality.rejected_example(connection, worst, *days) if worst else ""
    chosen = sum(reasons.values()) - sum(rejected.values())
    delivered = sum(warehouse.num_delivered("raw_events", *days).values()) - chosen
    share = sum(rejected.values()) / delivered if delivered else 0.0
    return dg.AssetCheckResult(
        passed=share <= config.max_rejected_share,
        description=_explain(share, config.max_rejected_share, rejected, example),
        metadata={
            "rejected share": share,
            "threshold": config.max_rejected_share,
            "rows delivered": delivered + chosen,
            "rows rejected": sum(rejected.values()),
            "rows left out by a setting": chosen,
            "reasons": dg.MetadataValue.table(
                [dg.TableRecord({"reason": k, "rows": v}) for k, v in reasons.items()],
                schema=dg.TableSchema(
                    [dg.TableColumn("reason", "string"), dg.TableColumn("rows", "int")]
                ),
            ),
        },
    )


@dg.asset_check(asset=dg.AssetKey("sessions"), pool=POOL_WAREHOUSE)
def order_of_sessions_is_known(
    context: dg.AssetCheckExecutionContext, config: OrderLaunchpad, warehouse: Warehouse
) -> dg.AssetCheckResult:
    """Items that share one time have no order: baskets, and times cut to the day."""
    with warehouse.connect(read_only=True) as connection:
        ties = log_quality.count_ties(connection, *checked_days(context))
    share = ties.tied_events / ties.events if ties.events else 0.0
    unordered = ties.unordered_sessions / ties.sessions if ties.sessions else 0.0
    declared = config.session_order != "auto"
    description = (
        f"{share:.1%} of the events share their time with another one of the user. {unordered:.1%} "
        "of the sessions count as unordered: their targets are a seeded sample of their items. "
        "Declare what they are with stages.sessions.session_order: none for baskets, time where "
        "the delivered order is the true one"
    )
    return dg.AssetCheckResult(
        passed=declared or share <= config.max_tied_share,
        severity=dg.AssetCheckSeverity.WARN,
        description=description if share else None,
        metadata={
            "share of tied events": share,
            "threshold": config.max_tied_share,
            "share of unordered sessions": unordered,
            "session_order": config.session_order,
        },
    )


@dg.asset_check(asset=dg.AssetKey("sessions"), pool=POOL_WAREHOUSE)
def no_account_dominates_a_day(
    context: dg.AssetCheckExecutionContext, warehouse: Warehouse
) -> dg.AssetCheckResult:
    """A bot or a test account distorts popularity, metrics and models."""
    with warehouse.connect(read_only=True) as connection:
        busy, _ = log_quality.busy_accounts(connection, *checked_days(context))
    worst = busy[0] if busy else None
    return dg.AssetCheckResult(
        passed=worst is None,
        severity=dg.AssetCheckSeverity.WARN,
        description=worst
        and f"account {worst.user_id!r} has {worst.share:.0%} of the events of {worst.day}. Leave "
        "such days out with stages.sessions.max_events_per_user_day (make inspect proposes a "
        "limit), or keep that many events of them with over_max_events: keep_first",
        metadata={"accounts that stand out": len(busy)},
    )


def _explain(share: float, threshold: float, rejected: Mapping[str, int], example: str) -> str:
    if not rejected:
        return "no row was rejected"
    reason, rows = next(iter(rejected.items()))
    return (
        f"{share:.2%} of the rows were rejected (threshold {threshold:.2%}), most often because: "
        f"{reason} ({rows} rows), e.g. {example}. They are in the table rejected_events; fix the "
        "source or raise sessions.max_rejected_share"
    )
