"""The session dataset asset: the warehouse's sessions of a window, as Parquet split by day."""

from dataclasses import asdict
from datetime import date

import dagster as dg

from assets.code_version import code_version
from assets.sessions import SessionLaunchpad
from assets.support import (
    DAILY,
    DAY_BY_DAY,
    POOL_WAREHOUSE,
    STAGES,
    launchpad,
    published,
    upstream,
)
from onerec.artifacts import write_json
from onerec.config import SessionConfig, WindowConfig
from resources.stores import Artifacts
from resources.warehouse import Warehouse

CODE = code_version(__name__, "session_dataset")
W = STAGES.window.window_days


class SessionDatasetLaunchpad(SessionLaunchpad, launchpad(STAGES.window)):
    """The window, and the settings the sessions were built with."""


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="sessions",
    kinds={"parquet"},
    pool=POOL_WAREHOUSE,
    code_version=CODE,
    deps=[
        upstream(name, first=-W)
        for name in ("sessions", "good_sessions", "session_examples", "rejected_events")
    ],
)
def session_dataset(
    context: dg.AssetExecutionContext,
    config: SessionDatasetLaunchpad,
    warehouse: Warehouse,
    artifacts: Artifacts,
) -> dg.MaterializeResult:
    """Sessions of the window [D - W, D], good or not: train, valid (day D - 1) and test (day D).

    Histories reach back as far as the warehouse does, also before the window.
    """
    from onerec.pictures import funnel, svg_markdown
    from onerec.session_dataset.splits import window
    from onerec.session_dataset.writer import write_session_dataset

    sessions, days = split_config(config)
    day = date.fromisoformat(context.partition_key)
    first, _ = window(day, days.window_days)
    rows_read: dict[str, str] = {}
    with artifacts.store.write(
        "session_dataset",
        context.partition_key,
        config={"sessions": asdict(sessions), "window": asdict(days)},
        upstream=rows_read,  # filled below: the rows are hashed while they are written
        code_version=CODE,
    ) as draft:
        delivered = sum(warehouse.num_delivered("raw_events", first, day).values())
        with warehouse.session_examples(first, day) as batches:
            written = write_session_dataset(batches, day, draft.path)
        rows_read["session_examples"] = written.content_hash
        draft.row_counts.update(written.sessions | {"rows": sum(written.sessions.values())})
        steps = {"delivered rows": delivered, **written.funnel}
        means = written.per_session()
        stats = {"sessions": written.sessions, "funnel": steps, "per_session": means}
        write_json(draft.path / "stats.json", stats)
    picture = funnel(steps, f"Sessions of {first} to {day}")
    return published(
        draft.artifact, {"funnel": dg.MetadataValue.md(svg_markdown(picture)), **steps, **means}
    )


def split_config(config: dg.Config) -> tuple[SessionConfig, WindowConfig]:
    """The two core settings that the launchpad of this asset shows as one."""
    values = config.model_dump()
    days = WindowConfig(window_days=values.pop("window_days"))
    return SessionConfig(**values), days
