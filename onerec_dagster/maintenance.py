"""Jobs that keep the state small and clean: prune, forget, doctor, and pinning a champion.

Each is one op with configuration, so that Dagster records who started it, when and why; what it
did is in the run's log.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from pydantic import Field

from assets.support import POOL_WAREHOUSE, SETTINGS
from onerec.artifacts import ArtifactError, ArtifactStore
from onerec.artifacts.staging import left_behind, unfinished
from onerec.serving.current import VERSIONS, read_served
from onerec_dagster.doctor import examine
from onerec_dagster.killed_runs import with_lock
from onerec_dagster.prune import PruneConfig, State, remove_superseded
from resources.stores import Artifacts, Consumers
from resources.warehouse import Warehouse

LONGEST_USERS = 1000
EXECUTOR = with_lock(dg.in_process_executor)


class ForgetConfig(dg.Config):
    """Who is to be forgotten."""

    users: list[str] = Field(description="Ids of users", max_length=LONGEST_USERS)


class PinConfig(dg.Config):
    """Which champion stays."""

    day: str = Field(default="", description="The day whose champion stays; empty: none")
    reason: str = Field(default="", description="Why")


@dg.op(pool=POOL_WAREHOUSE)
def prune_state(
    context: dg.OpExecutionContext, config: PruneConfig, artifacts: Artifacts, warehouse: Warehouse
) -> None:
    """Remove what no kept nightly run depends on; with `dry_run` only list it."""
    state = State(SETTINGS, artifacts.store, warehouse, context.instance)
    for line in remove_superseded(state, config):
        context.log.info(line)


@dg.op(pool=POOL_WAREHOUSE)
def forget_users(
    context: dg.OpExecutionContext,
    config: ForgetConfig,
    artifacts: Artifacts,
    warehouse: Warehouse,
    consumers: Consumers,
) -> None:
    """Erase users from warehouse, artifacts and recommendations; say what still holds them."""
    for line in erase_everywhere(artifacts.store, warehouse, Path(consumers.root), config.users):
        context.log.info(line)


@dg.op
def examine_state(context: dg.OpExecutionContext) -> None:
    """Verify artifacts, warehouse, what consumers read, runs and disk; fails on a problem."""
    found = list(examine(SETTINGS, context.instance, context.run_id))
    for finding in found:
        context.log.info(str(finding))
    problems = [str(finding) for finding in found if finding.problem]
    if problems:
        raise dg.Failure("\n".join(problems), allow_retries=False)


@dg.op(name="pin")
def change_pin(context: dg.OpExecutionContext, config: PinConfig, artifacts: Artifacts) -> None:
    """Keep a champion whatever challengers do, or take the pin away."""
    from onerec.promotion.champion import pin_champion

    store = artifacts.store
    champion = store.latest("champion", config.day).verify() if config.day else None
    pin_champion(store, champion, config.reason)
    context.log.info(f"pinned: {config.day or 'none'}")


def erase_everywhere(
    store: ArtifactStore, warehouse: Warehouse, serving: Path, users: list[str]
) -> Iterator[str]:
    """Erase users; models that learned from them stay until they are replaced.

    Yields:
        What was erased, then what still holds the users and until when.

    Raises:
        ArtifactError: A current version is damaged. All others were erased.
    """
    from onerec.retention.erasure import erase_users

    held, problems = 0, []
    if Path(warehouse.path).exists():
        for table, rows in warehouse.erase_users(users).items():
            held += rows
            yield f"warehouse: {rows} rows of {table}"
        warehouse.compact()
    for erased in erase_users(store, users):
        held += erased.rows
        problems += [erased.problem] if erased.problem else []
        yield f"artifact {erased.asset} of {erased.partition}: {erased.rows} rows, {erased.done}"
    if not held:
        yield "nothing held rows of these users: check their ids"
    yield from _forget_set_aside(store)
    yield from _forget_served(store, warehouse, serving)
    yield from _still_held(store)
    if problems:
        raise ArtifactError("may still hold them: " + "; ".join(problems))


def _forget_set_aside(store: ArtifactStore) -> Iterator[str]:
    """Damaged versions and drafts of killed processes: whoever is in them, many are unreadable."""
    for asset, partition in store.set_aside():
        store.remove_set_aside(asset, partition)
        yield f"artifact {asset} of {partition}: what was set aside as damaged, removed"
    for path in left_behind(store.work):
        shutil.rmtree(path, ignore_errors=True)
        yield f"{path}: a draft of a killed process, removed"


def _forget_served(store: ArtifactStore, warehouse: Warehouse, serving: Path) -> Iterator[str]:
    """Consumers get the current recommendations again, without the users; others are removed."""
    import pyarrow.parquet as pq

    from assets.serving import TABLE, publish

    served = read_served(serving)
    if served is None:
        return
    made = store.latest("recommendations", served.day)
    if made.version != served.version:
        publish(made, pq.read_table(made.path / TABLE), warehouse, serving)
    current = (serving / "current").resolve().name
    for path in (serving / VERSIONS).iterdir():
        if path.name != current:
            shutil.rmtree(path, ignore_errors=True)
    yield f"consumers: recommendations of {served.day} without them, earlier versions removed"


def _still_held(store: ArtifactStore) -> Iterator[str]:
    learned = ("pretrained_checkpoint", "dpo_checkpoint", "reward_model", "champion", "baselines")
    days = {asset: store.partitions(asset) for asset in learned}
    for asset, partitions in days.items():
        if partitions:
            yield (
                f"still learned from them: {asset} of {partitions[0]} to {partitions[-1]}, until "
                "each is pruned; new ones do not, after the next weekly_retokenize (random weights)"
            )
    for path in unfinished(store.work):
        yield f"may still hold them: {path}, until what writes there ends or prune removes it"
    if str(store.work) != store.root:
        yield (
            f"may still hold them: copies in {store.work} of versions that were removed elsewhere, "
            "and caches of other machines: they may be deleted while nothing runs"
        )
    yield (
        "still holds them: the events and logs of runs (sample rows, first users of "
        "recommendations, user_examples), until prune removes those runs"
    )
    yield "still holds them: the configuration of this run, which records who was forgotten"
    yield (
        "still holds them: the source. A day that is ingested again brings them back: take them "
        "out of the delivered files first"
    )


@dg.job(name="prune", executor_def=EXECUTOR, description=prune_state.__doc__)
def prune_job() -> None:
    prune_state()


@dg.job(name="forget", executor_def=EXECUTOR, description=forget_users.__doc__)
def forget_job() -> None:
    forget_users()


@dg.job(name="doctor", executor_def=EXECUTOR, description=examine_state.__doc__)
def doctor_job() -> None:
    examine_state()


@dg.job(name="pin_champion", executor_def=EXECUTOR, description=change_pin.__doc__)
def pin_job() -> None:
    change_pin()


MAINTENANCE = [prune_job, forget_job, doctor_job, pin_job]
