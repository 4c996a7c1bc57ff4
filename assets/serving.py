"""Recommendations: a list for every active user, in Parquet and in the warehouse."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import duckdb
import pydantic

from assets.code_version import code_version
from assets.support import (
    CORRECTABLE,
    DAILY,
    DAY_BY_DAY,
    PIPELINE,
    POOL_WAREHOUSE,
    all_but,
    launchpad,
    published,
    table_of,
    to_core,
    upstream,
)
from onerec.artifacts import Artifact, ArtifactStore, read_json
from onerec.config import BeamConfig
from resources.stores import Artifacts, Compute, Consumers
from resources.warehouse import Warehouse, WarehouseError

if TYPE_CHECKING:
    import pyarrow as pa

    from onerec.catalogue import Catalogue
    from onerec.serving.degraded import FallbackInputs

log = logging.getLogger("onerec.serving")  # Dagster shows what `onerec` logs in the run
CODE = code_version(__name__, "recommendations")
READ = ("champion", "session_dataset", "semantic_ids", "reward_model")
BUNDLE = "bundle"
TABLE = "recommendations.parquet"
UNUSABLE = (WarehouseError, duckdb.Error)
"""A warehouse that is held, damaged, or not there."""
RETRIES = dg.RetryPolicy(max_retries=3, delay=15, backoff=dg.Backoff.EXPONENTIAL)
"""A store or disk that fails for a minute must not leave consumers with an older day."""


class ListsLaunchpad(launchpad(PIPELINE.serving, "list_length")):
    """What consumers get."""


class Degraded(dg.Config):
    """Set by a run of `serve_degraded`, which makes up for a nightly run that failed."""

    reason: str = pydantic.Field(default="", description="Why the nightly run did not serve")
    sessions_until: str = pydantic.Field(
        default="", description="The newest day whose sessions are valid; the partition if empty"
    )


class ServingLaunchpad(launchpad(PIPELINE.decoding, *all_but(PIPELINE.decoding, "candidates"))):
    """Beam search as it serves."""

    serving: ListsLaunchpad = ListsLaunchpad()
    degraded: Degraded = Degraded()


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="serving",
    kinds={"pytorch", "parquet", "duckdb"},
    pool=POOL_WAREHOUSE,
    code_version=CODE,
    retry_policy=RETRIES,
    deps=[CORRECTABLE, *map(upstream, READ)],
)
def recommendations(
    context: dg.AssetExecutionContext,
    config: ServingLaunchpad,
    artifacts: Artifacts,
    warehouse: Warehouse,
    consumers: Consumers,
    compute: Compute,
) -> dg.MaterializeResult:
    """A list per active user for day D + 1, made by the champion.

    Histories reach through the end of day D. A simple system's name is its model version. In a run
    of `serve_degraded` the last champion serves on the newest valid sessions, but never in the
    place of what the day's own nightly run made. Consumers read `serving/current/`; the warehouse's
    table is for SQL beside other tables.
    """
    import pyarrow.parquet as pq

    from onerec.serving.batch import Lists, recommend_to_all
    from onerec.serving.degraded import fallback_inputs
    from onerec.session_dataset.repeats import with_seen_items

    day, store, fallback = context.partition_key, artifacts.store, None
    lists, degraded = to_core(config.serving, PIPELINE.serving), config.degraded
    if degraded.reason:
        if own := _own_recommendations(store, day):
            context.log.info("the day's own recommendations are there: they are published again")
            return _publish(own, pq.read_table(own.path / TABLE), warehouse, consumers)
        fallback = fallback_inputs(store, day, degraded.sessions_until or day)
    read = fallback.read if fallback else {name: store.latest(name, day) for name in READ}
    settings = with_seen_items(to_core(config, PIPELINE.decoding), read["session_dataset"].path)
    key = {
        "config": asdict(settings) | asdict(lists),
        "upstream": {name: artifact.version for name, artifact in read.items()},
        "code_version": CODE,
    }
    with store.write("recommendations", day, **key) as draft:
        bundle, sessions = draft.path / BUNDLE, read["session_dataset"]
        version = _write_bundle(bundle, store, warehouse, read, fallback, settings, day)
        wanted = Lists(_tomorrow(day), version, lists.list_length)
        device = compute.torch_device()
        with compute.shard_pool(store, "recommendations", day, key, context.log.info) as pool:
            table = recommend_to_all(bundle, sessions.path, wanted, device=device, pool=pool)
        pq.write_table(table, draft.path / TABLE)
        users = len(table.column("user_id").unique())
        draft.row_counts |= {"users": users, "rows": table.num_rows}
        draft.metadata |= {"degraded": degraded.reason or None}
        draft.metadata |= {"sessions_until": sessions.partition, "model_version": version}
    return _publish(draft.artifact, table, warehouse, consumers)


def _own_recommendations(store: ArtifactStore, day: str) -> Artifact | None:
    """What the day's own nightly run made, if it is undamaged.

    It may have come to its end after the run of `serve_degraded` was requested.
    """
    made = store.made_with("recommendations", day, {})
    return None if made is None or made.manifest["metadata"]["degraded"] else made


def _publish(
    artifact: Artifact, table: "pa.Table", warehouse: Warehouse, consumers: Consumers
) -> dg.MaterializeResult:
    shown = publish(artifact, table, warehouse, Path(consumers.root))
    facts = artifact.manifest["metadata"]
    return published(artifact, shown | facts | {"first users": _preview(table)})


def publish(
    artifact: Artifact, table: "pa.Table", warehouse: Warehouse, root: Path
) -> dict[str, str]:
    """Publish recommendations: the consumers' directory first, then the warehouse's table.

    A warehouse that is held or damaged does not stop the first: titles, or that table, are then
    missing.
    """
    import pyarrow as pa

    from onerec.serving.current import ServedVersion, publish_current

    day, facts = date.fromisoformat(artifact.partition), artifact.manifest["metadata"]
    shown = {"warehouse": "written"}
    try:
        titles = warehouse.titles(day)
    except UNUSABLE as error:
        titles = pa.table({"item_id": pa.array([], pa.string()), "title": []})
        shown["titles"] = str(error)
    served = ServedVersion(
        day=artifact.partition,
        serve_date=_tomorrow(artifact.partition).isoformat(),
        version=artifact.version,
        model_version=facts["model_version"],
        degraded=facts["degraded"],
    )
    bundle = artifact.path / BUNDLE
    moved = publish_current(root, served, table=table, titles=titles, bundle=bundle)
    shown["current"] = "yes" if moved else "no, a later day is"
    try:
        warehouse.replace_partition("recommendations", day, table)
    except UNUSABLE as error:
        shown["warehouse"] = str(error)
    return shown


def _tomorrow(day: str) -> date:
    return date.fromisoformat(day) + timedelta(days=1)


def _catalogue_of(warehouse: Warehouse, day: date) -> "Catalogue | None":
    """The catalogue of a day as it was landed; None where the warehouse cannot be read."""
    from onerec.catalogue import Catalogue, read_withdrawn_on

    try:
        rows = warehouse.catalogue(day)
    except UNUSABLE as error:
        log.warning("items withdrawn since the last champion are not left out: %s", error)
        return None
    item_ids = rows["item_id"].to_numpy(zero_copy_only=False)
    first_seen = rows["first_seen"].to_numpy(zero_copy_only=False).astype("datetime64[D]")
    return Catalogue(item_ids, first_seen, withdrawn_on=read_withdrawn_on(rows))


def _write_bundle(
    directory: Path,
    store: ArtifactStore,
    warehouse: Warehouse,
    read: Mapping[str, Artifact],
    fallback: "FallbackInputs | None",
    config: BeamConfig,
    day: str,
) -> str:
    """The bundle that serves; returns the model version."""
    from onerec.serving.bundle import prepare_bundle
    from onerec.serving.degraded import model_version, write_fallback_bundle
    from onerec.session_dataset.newest_watches import WatchesBefore

    serve_date = _tomorrow(day)
    if fallback is not None:
        today = _catalogue_of(warehouse, date.fromisoformat(day))
        return write_fallback_bundle(directory, store, fallback, config, serve_date, today=today)
    prepare_bundle(
        directory,
        champion=read["champion"].path,
        semantic_ids=read["semantic_ids"].path,
        reward_model=read["reward_model"].path,
        config=config,
        watches=WatchesBefore(read["session_dataset"].path, serve_date),
    )
    return model_version(read_json(read["champion"].path / "champion.json")["model"])


RECOMMENDATION_CHECKS = {
    "every_active_user_is_served": "Every user of the window got a full list.",
    "no_item_is_repeated": "No user is recommended an item twice.",
    "every_item_is_in_the_catalogue": "Every recommended item is in the day's catalogue: none "
    "was withdrawn.",
    "made_by_its_own_nightly_run": "Not degraded: the nightly run of the day came to its end and "
    "serves.",
}


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(name, asset=recommendations, description=description)
        for name, description in RECOMMENDATION_CHECKS.items()
    ]
)
def recommendations_checks(
    context: dg.AssetCheckExecutionContext, artifacts: Artifacts
) -> Iterator[dg.AssetCheckResult]:
    """Lists are complete, without duplicates, and made by the day's own nightly run."""
    import pyarrow.parquet as pq

    from onerec.serving.batch import audit_recommendations
    from onerec.session_dataset.reader import read_session_config

    day, store = context.partition_key, artifacts.store
    made = store.latest("recommendations", day)
    degraded = made.manifest["metadata"]["degraded"]
    sessions = store.latest("session_dataset", made.manifest["metadata"]["sessions_until"]).path
    settings = read_session_config(sessions)
    found = audit_recommendations(
        pq.read_table(made.path / TABLE),
        sessions,
        made.path / BUNDLE if degraded else store.latest("semantic_ids", day).path,
        list_length=made.manifest["config"]["list_length"],
        history_length=settings.history_length,
        serve_date=_tomorrow(day),
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
    yield dg.AssetCheckResult(
        passed=degraded is None,
        check_name="made_by_its_own_nightly_run",
        asset_key="recommendations",
        severity=dg.AssetCheckSeverity.WARN,
        description=degraded,
    )


def _preview(table: "pa.Table") -> dg.MetadataValue:
    rows = table.slice(0, 15).select(["user_id", "rank", "item_id", "score", "reward"]).to_pylist()
    numbers = ("score", "reward")
    shown = [r | {n: "" if r[n] is None else f"{r[n]:.3f}" for n in numbers} for r in rows]
    return table_of(shown) if shown else dg.MetadataValue.text("no user is active")
