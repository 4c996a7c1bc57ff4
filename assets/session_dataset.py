"""The session dataset asset: the warehouse's sessions of a window, as Parquet split by day."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any

import dagster as dg

from assets.code_version import code_version
from assets.support import (
    DAILY,
    DAY_BY_DAY,
    PIPELINE,
    POOL_WAREHOUSE,
    SETTINGS,
    launchpad,
    published,
    to_core,
    upstream,
)
from onerec.artifacts import write_json
from resources.dbt import SessionDbt
from resources.stores import Artifacts, Source
from resources.warehouse import Warehouse

CODE = code_version(__name__, "session_dataset")
W = PIPELINE.window.window_days


class WindowLaunchpad(launchpad(PIPELINE.window)):
    """The window."""


class SessionDatasetLaunchpad(
    WindowLaunchpad,
    launchpad(
        PIPELINE.sessions,
        "history_length",
        "session_items",
        "good_min_watched_items",
        "good_min_watch_seconds",
        "good_min_positive_interactions",
        "good_min_positives",
        "max_volume_ratio",
        "repeats",
        "min_repeat_share",
    ),
):
    """The window, and the settings that `session_sql` built the sessions with.

    They must equal those of its run: blocking checks recount the sessions with them.
    """


OF_WINDOW = ("sessions", "good_sessions", "session_days", "session_examples", "rejected_events")
"""Tables of which the days of the window are read."""


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="sessions",
    kinds={"parquet"},
    pool=POOL_WAREHOUSE,
    code_version=CODE,
    deps=[upstream("stg_items"), *(upstream(name, first=-W) for name in OF_WINDOW)],
)
def session_dataset(
    context: dg.AssetExecutionContext,
    config: SessionDatasetLaunchpad,
    warehouse: Warehouse,
    artifacts: Artifacts,
    source: Source,
    dbt: SessionDbt,
) -> dg.MaterializeResult:
    """Sessions of the window [D - W, D]: train, valid (the last day before D with any) and test
    (D). Histories reach back as far as the warehouse does, also before the window. Attributes of
    users are those that the source has now."""
    from onerec.report.pictures import funnel, svg_markdown
    from onerec.session_dataset.item_attributes import write_item_attributes
    from onerec.session_dataset.repeats import repeat_facts
    from onerec.session_dataset.splits import SplitDays, validation_day, window
    from onerec.session_dataset.user_attributes import write_user_attributes
    from onerec.session_dataset.usual_volume import LOOKBACK_DAYS

    sessions, days = to_core(config, PIPELINE.sessions), to_core(config, PIPELINE.window)
    day = date.fromisoformat(context.partition_key)
    first, _ = window(day, days.window_days)
    attributes = source.open().user_attributes()  # first: a damaged file shall not cost the cutting
    with artifacts.store.write(
        "session_dataset",
        context.partition_key,
        config={"sessions": asdict(sessions), "window": asdict(days), **_meaning()},
        upstream={},  # no artifact: what was read is in the files, and the manifest hashes them
        code_version=CODE,
    ) as draft:
        delivered = sum(warehouse.num_delivered("raw_events", first, day).values())
        per_day = warehouse.sessions_per_day(day - timedelta(days=LOOKBACK_DAYS), day)
        valid_day = validation_day(per_day, day)
        split_days = SplitDays(first, day, valid_day)
        written = dbt.write_sessions(warehouse, draft.path, split_days, sessions)
        write_item_attributes(warehouse.catalogue(day), draft.path)
        with_attributes = write_user_attributes(attributes, draft.path)
        draft.row_counts.update(written.sessions | {"rows": sum(written.sessions.values())})
        steps = {"delivered rows": delivered, **written.funnel}
        means, seen = written.per_session(), repeat_facts(draft.path, sessions)
        stats = {"sessions": written.sessions, "funnel": steps, "per_session": means, **seen}
        stats["users_with_attributes"] = with_attributes
        stats["sessions_per_day"] = {str(d): n for d, n in per_day.items()}
        write_json(draft.path / "stats.json", stats)
    picture = dg.MetadataValue.md(svg_markdown(funnel(steps, f"Sessions of {first} to {day}")))
    return published(
        draft.artifact, {"funnel": picture, **steps, **means, **_repeat_metadata(seen)}
    )


def _meaning() -> dict[str, Any]:
    """What the log's days and events mean."""
    return {
        "time_zone": SETTINGS.time_zone,
        "feedback": SETTINGS.feedback.model_dump(mode="json"),
    }


def _repeat_metadata(found: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of what `repeat_facts` found."""
    what = "recommended too, the log repeats" if found["repeats"] else "not recommended"
    return {"repeat share of the validation day": found["repeat_share"], "seen items": what}
