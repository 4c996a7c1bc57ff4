"""Recommendations: a session for every active user, in Parquet and in the warehouse."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from assets.code_version import code_version
from assets.support import (
    DAILY,
    DAY_BY_DAY,
    POOL_WAREHOUSE,
    STAGES,
    all_but,
    launchpad,
    published,
    table_of,
    to_core,
    upstream,
)
from onerec.artifacts import Artifact, read_json
from onerec.config import BeamConfig
from resources.stores import Artifacts, Compute
from resources.warehouse import Warehouse

if TYPE_CHECKING:
    import pyarrow as pa

CODE = code_version(__name__, "recommendations")
READ = ("champion", "session_dataset", "semantic_ids", "reward_model", "baselines")
BUNDLE = "bundle"
TABLE = "recommendations.parquet"
PROGRESS_SECONDS = 15.0


class ServingLaunchpad(launchpad(STAGES.decoding, *all_but(STAGES.decoding, "candidates"))):
    """Beam search as it serves."""


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="serving",
    kinds={"pytorch", "parquet", "duckdb"},
    pool=POOL_WAREHOUSE,
    code_version=CODE,
    deps=[upstream(name) for name in READ],
)
def recommendations(
    context: dg.AssetExecutionContext,
    config: ServingLaunchpad,
    artifacts: Artifacts,
    warehouse: Warehouse,
    compute: Compute,
) -> dg.MaterializeResult:
    """One session per active user for day D + 1, made by the champion.

    Histories reach through the end of day D. While there is no champion, the most watched items are
    published under the model version `popularity`; a refused challenger never serves.
    """
    import pyarrow.parquet as pq

    from onerec.session_dataset.repeats import with_seen_items

    day, store = context.partition_key, artifacts.store
    read = {name: store.latest(name, day) for name in READ}
    settings = with_seen_items(to_core(config, STAGES.decoding), read["session_dataset"].path)
    with store.write(
        "recommendations",
        day,
        config=asdict(settings),
        upstream={name: artifact.version for name, artifact in read.items()},
        code_version=CODE,
    ) as draft:
        table = recommend(
            read,
            day,
            draft.path,
            settings,
            device=compute.torch_device(),
            on_progress=context.log.info,
        )
        pq.write_table(table, draft.path / TABLE)
        users = len(table.column("user_id").unique())
        draft.row_counts.update(rows=table.num_rows, users=users)
    warehouse.replace_partition("recommendations", date.fromisoformat(day), table)
    version = table.column("model_version")[0].as_py() if table.num_rows else "none"
    return published(
        draft.artifact,
        {
            "users": users,
            "model version": version,
            "different items": len(table.column("item_id").unique()),
            "first users": _preview(table),
        },
    )


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "every_active_user_is_served",
            asset=recommendations,
            description="Every user of the window got a full session.",
        ),
        dg.AssetCheckSpec(
            "no_item_is_repeated",
            asset=recommendations,
            description="No user is recommended an item twice.",
        ),
        dg.AssetCheckSpec(
            "every_item_is_in_the_catalogue",
            asset=recommendations,
            description="Every recommended item exists on the day.",
        ),
    ]
)
def recommendations_checks(
    context: dg.AssetCheckExecutionContext, artifacts: Artifacts
) -> Iterator[dg.AssetCheckResult]:
    """What a user would notice at once."""
    import pyarrow.parquet as pq

    from onerec.serving import audit_recommendations
    from onerec.session_dataset.reader import read_session_config

    day, store = context.partition_key, artifacts.store
    sessions = store.latest("session_dataset", day).path
    found = audit_recommendations(
        pq.read_table(store.latest("recommendations", day).path / TABLE),
        sessions,
        store.latest("semantic_ids", day).path,
        session_items=read_session_config(sessions).session_items,
    )
    for name, count in (
        ("every_active_user_is_served", found.unserved_users),
        ("no_item_is_repeated", found.repeats),
        ("every_item_is_in_the_catalogue", found.unknown_items),
    ):
        yield dg.AssetCheckResult(
            passed=count == 0,
            check_name=name,
            asset_key="recommendations",
            metadata={"violations": count, "users served": found.users},
        )


def recommend(
    read: dict[str, Artifact],
    day: str,
    directory: Path,
    config: BeamConfig,
    *,
    device: str,
    on_progress: Callable[[str], None] = lambda message: None,
) -> "pa.Table":
    """Recommendations of the day; the bundle that made them is left under `bundle/`."""
    from onerec.evaluation.baselines import load_baselines
    from onerec.serving import prepare_bundle, recommend_popular, recommend_to_all
    from onerec.session_dataset.reader import read_session_config
    from onerec.tokenizer.semantic_ids import load_semantic_ids

    reigning = read_json(read["champion"].path / "champion.json")["model"]
    tomorrow = date.fromisoformat(day) + timedelta(days=1)
    if reigning is None:
        sessions = read_session_config(read["session_dataset"].path)
        return recommend_popular(
            load_baselines(read["baselines"].path),
            load_semantic_ids(read["semantic_ids"].path),
            read["session_dataset"].path,
            history_length=sessions.history_length,
            session_items=sessions.session_items,
            serve_date=tomorrow,
            filter_seen=config.filter_seen,
        )
    prepare_bundle(
        directory / BUNDLE,
        champion=read["champion"].path,
        semantic_ids=read["semantic_ids"].path,
        reward_model=read["reward_model"].path,
        config=config,
    )
    return recommend_to_all(
        directory / BUNDLE,
        read["session_dataset"].path,
        serve_date=tomorrow,
        model_version=reigning["version"],
        filter_seen=config.filter_seen,
        device=device,
        on_batch=_every(PROGRESS_SECONDS, on_progress),
    )


def _every(seconds: float, on_progress: Callable[[str], None]) -> Callable[[int, int], None]:
    """Reports how many users are served now and then, and at the end."""
    last = time.monotonic()

    def on_batch(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= seconds:
            last = time.monotonic()
            on_progress(f"{done:,} of {total:,} users served")

    return on_batch


def _preview(table: "pa.Table") -> dg.MetadataValue:
    rows = table.slice(0, 15).select(["user_id", "rank", "item_id", "score", "reward"]).to_pylist()
    shown = [r | {name: f"{r[name]:.3f}" for name in ("score", "reward")} for r in rows]
    return table_of(shown) if shown else dg.MetadataValue.text("nobody is active")
