"""`make tables`: the result tables, each on data and settings of its own, then one page of them.

Every table is made in a process of its own, whose home is `$ONEREC_HOME/tables/runs/<environment>`.
What is already there is not made again: a night, a partition of a grid with the same inputs,
settings and code. Killed and started again, it goes on.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from experiments.table_registry import (
    ORDER,
    QUICK,
    QUICK_VARIANTS,
    TABLES,
    Environment,
    Grid,
    Table,
)
from onerec.artifacts import ArtifactStore
from onerec_dagster.demo import demo_days
from onerec_dagster.home import prepare_home
from onerec_dagster.job_runner import (
    QUIET,
    PeakMemory,
    output_to,
    run_job,
)
from onerec_dagster.killed_runs import fail_killed_runs, lock_of_this_process
from resources.settings import CHECKOUT, Settings, load_settings

PAGE = CHECKOUT / "docs" / "results.md"


def chosen_tables(names: Sequence[str]) -> list[Table]:
    """The tables of these names, all where there is none, in the registry's order.

    Raises:
        ValueError: A name is unknown; the message lists the known ones.
    """
    known = [table.name for table in TABLES]
    for name in names:
        if name not in known:
            raise ValueError(f"TABLES={name!r}: use names out of {', '.join(known)}")
    return [table for table in TABLES if not names or table.name in names]


def quick_table(table: Table) -> Table:
    """The same table on a very small app."""
    names = [name.replace(table.environment.dataset, QUICK.dataset) for name in table.writes]
    grids = [replace(grid, seeds=(0, 1), variants=_quick_variants(grid)) for grid in table.grids]
    return replace(
        table,
        environment=QUICK,
        writes=tuple(names),
        grids=tuple(grids),
        expected="a very small app, a few minutes",
    )


def _quick_variants(grid: Grid) -> tuple[str, ...]:
    wanted = grid.variants or QUICK_VARIANTS
    return tuple(name for name in QUICK_VARIANTS if name in wanted)


def process_environment(
    environment: Environment, tables_dir: Path, environ: Mapping[str, str]
) -> dict[str, str]:
    """Environment variables of a table's process; writes the YAML file they name.

    Args:
        environment: Data and settings.
        tables_dir: Of the project's result tables; the environment's home lies inside.
        environ: Of this process.

    Raises:
        ValueError: The data set reads files and nobody says where they are.
    """
    data_dir = environ.get("ONEREC_DATA_DIR", "")
    if environment.needs_files and not data_dir:
        raise ValueError(
            f"DATA_DIR: the data set {environment.dataset} reads files; name their directory, "
            "make tables DATA_DIR=..."
        )
    mine = tables_dir / "runs" / environment.name
    mine.mkdir(parents=True, exist_ok=True)
    config = mine / "tables.yaml"
    config.write_text(yaml.safe_dump(dict(environment.settings)))
    return {
        **environ,
        "ONEREC_HOME": str(mine),
        "ONEREC_DATASET": environment.dataset,
        "ONEREC_DATA_DIR": data_dir if environment.needs_files else "",
        "ONEREC_CONFIG": str(config),
        "ONEREC_PRESET": "tiny",
        "ONEREC_TEST_DAY": environment.test_day,
        "ONEREC_ARTIFACTS": str(mine / environment.dataset / "artifacts"),
    }


def run_table(table: Table, tables_dir: Path, *, quick: bool, seeds: Sequence[int]) -> list[str]:
    """Make a table in a process of its own and take its files; returns what it wrote.

    Raises:
        ValueError: See `process_environment`.
        CalledProcessError: It failed, and said why.
    """
    environment = process_environment(table.environment, tables_dir, os.environ)
    command = [sys.executable, "-m", "experiments.make_tables", "--here", table.name]
    command += ["--quick"] if quick else []
    command += ["--seeds", *map(str, seeds)] if seeds else []
    subprocess.run(command, env=environment, check=True)
    return take_files(load_settings(environment).tables_dir, tables_dir, table.writes)


def take_files(source: Path, target: Path, names: Sequence[str]) -> list[str]:
    """Copy the files of some tables; returns the names that were found."""
    target.mkdir(parents=True, exist_ok=True)
    found = [name for name in names if (source / f"{name}.json").exists()]
    for name in found:
        for old in target.glob(f"{name}-*.svg"):
            old.unlink()
        for file in (*source.glob(f"{name}.*"), *source.glob(f"{name}-*.svg")):
            shutil.copyfile(file, target / file.name)
    return found


def test_days(environment: Environment, settings: Settings) -> list[str]:
    """The environment's test days, in order."""
    _, last = demo_days(settings)
    backwards = reversed(range(environment.days))
    days = [(last - timedelta(days=back)).isoformat() for back in backwards]
    return [day for day in days if day not in environment.left_out]


def night_to_run(store: ArtifactStore, day: str, baselines: str, codes: Mapping[str, str]) -> str:
    """What of a day's night is missing, or was made by other code.

    Args:
        store: The store.
        day: Day D.
        baselines: Those that are asked for.
        codes: Present code version by asset; those that are not named are not compared.

    Returns:
        `night`, `baselines` (only other ones are asked for), or nothing.
    """
    from experiments.nightly_artifacts import NEEDED

    if any(day not in store.partitions(name) for name in NEEDED):
        return "night"
    made = {name: store.latest(name, day).manifest for name in NEEDED}
    if any(made[n]["code_version"] != codes[n] for n in NEEDED if n in codes):
        return "night"
    return "" if made["offline_metrics"]["config"]["baselines"] == baselines else "baselines"


def _present_codes() -> dict[str, str]:
    from onerec_dagster.definitions import defs

    specs = defs.resolve_all_asset_specs()
    return {s.key.to_user_string(): s.code_version for s in specs if s.code_version}


def run_nights(
    environment: Environment, settings: Settings, instance: dg.DagsterInstance, log: Path
) -> None:
    """Ingest and run the nights that are missing, each after the one before it."""
    store = settings.artifact_store()
    days = test_days(environment, settings)
    first, _ = demo_days(settings)
    codes = _present_codes()
    for place, day in enumerate(days):
        missing = night_to_run(store, day, settings.stages.evaluation.baselines, codes)
        if not missing:
            print(f"night of {day}: there")
            continue
        print(f"night of {day}: {missing}", flush=True)
        if missing == "baselines":
            _insist(materialize(instance, log, ["baselines", "offline_metrics"], day), log)
            continue
        if days_before := not_ingested(instance, first, date.fromisoformat(day)):
            span = {"start": days_before[0], "end": days_before[-1]}
            tags = {f"dagster/asset_partition_range_{k}": v for k, v in span.items()}
            run_job(instance, "ingest", tags, log)
        job = "first_measured_night" if place == 0 else "measured_night"
        run_job(instance, job, {"dagster/partition": day}, log)


def not_ingested(instance: dg.DagsterInstance, first: date, day: date) -> list[str]:
    """Days before a night's that have no sessions yet, in order."""
    there = instance.get_materialized_partitions(dg.AssetKey("good_sessions"))
    days = [(first + timedelta(days=n)).isoformat() for n in range((day - first).days)]
    return [before for before in days if before not in there]


def missing_results(
    grid: Grid, store: ArtifactStore, day: str, seeds: Sequence[int]
) -> Iterator[tuple[str, int, bool]]:
    """Variant, seed and whether it is missing, seed by seed so that a seed's steps are shared."""
    from experiments.nightly_artifacts import published_night
    from experiments.variants.assets import GRIDS, is_current

    base = published_night(store, day).base
    for seed in seeds or grid.seeds:
        for name, variant in GRIDS[grid.asset][1](base, seed).items():
            if not grid.variants or name in grid.variants:
                yield name, seed, not is_current(store, grid.asset, variant, day)


def run_grid(
    grid: Grid,
    settings: Settings,
    instance: dg.DagsterInstance,
    log: Path,
    day: str,
    seeds: Sequence[int],
) -> None:
    """Make the results that are missing, all in this process, each a run that the UI shows."""
    from experiments.variants.assets import GRIDS, partition_of
    from experiments.variants.comparison import SYSTEM
    from onerec.evaluation.metric_table import MetricTable

    store = settings.artifact_store()
    wanted = list(missing_results(grid, store, day, seeds))
    missing = [(name, seed) for name, seed, is_missing in wanted if is_missing]
    print(f"{grid.asset} of {day}: {len(wanted)} results, {len(missing)} to be made", flush=True)
    dimension = GRIDS[grid.asset][0]
    for number, (name, seed) in enumerate(missing, start=1):
        began = time.monotonic()
        key = dg.MultiPartitionKey({dimension: name, "seed": str(seed)})
        failed = materialize(instance, log, [grid.asset], key, {grid.asset: {"day": day}})
        if failed:  # e.g. no session is good by its criteria: the others can still be compared
            print(
                f"  {number}/{len(missing)} {name}, seed {seed}: left out, {failed[0]}", flush=True
            )
            continue
        metrics = MetricTable.load(store.latest(grid.asset, partition_of(name, seed)).path)
        recall, reward = (metrics.find(SYSTEM, m).mean for m in ("recall@10", "evaluator_reward"))
        print(
            f"  {number}/{len(missing)} {name}, seed {seed}: {time.monotonic() - began:.0f} s, "
            f"Recall@10 {recall:.4f}, evaluator reward {reward:.4f}",
            flush=True,
        )


def materialize(
    instance: dg.DagsterInstance,
    log: Path,
    names: Sequence[str],
    partition: str | None,
    config: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[str]:
    """Materialise some assets in this process; returns why it failed, a line per failed step."""
    import experiments.definitions
    from onerec_dagster.definitions import ASSETS, RESOURCES

    with output_to(log), lock_of_this_process(instance) as lock:
        result = dg.materialize(
            [*ASSETS, *experiments.definitions.ASSETS],  # pyright: ignore
            selection=[*names],
            partition_key=partition,
            instance=instance,
            resources=RESOURCES,
            tags=lock,
            run_config=QUIET | {"ops": {k: {"config": dict(v)} for k, v in (config or {}).items()}},
            raise_on_error=False,
        )
    errors = [
        (e.step_key, e.step_failure_data.error) for e in result.all_events if e.is_step_failure
    ]
    return [
        f"{step}: {(error.cause or error).message.strip() if error else f'see {log}'}"
        for step, error in errors
    ]


def _insist(failures: Sequence[str], log: Path) -> None:
    """Stop where the rest would make no sense."""
    if failures:
        sys.exit("\n".join([*failures, f"everything that was logged: {log}"]))


@contextmanager
def opened(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The instance of a table's home, with what killed runs held given back."""
    prepare_home(settings)
    with dg.DagsterInstance.get() as instance:
        if killed := fail_killed_runs(instance):
            print(f"{killed} earlier run(s) had been killed; this one goes on")
        yield instance


def make_here(table: Table, seeds: Sequence[int]) -> None:
    """Make one table in this process, whose environment is the table's."""
    import onerec_dagster.definitions  # noqa: F401  # before any asset: it quiets beta warnings

    settings = load_settings()
    log = settings.root / "tables.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    day = test_days(table.environment, settings)[-1]
    peak, began = PeakMemory(), time.monotonic()
    with opened(settings) as instance, peak.sampled():
        if table.nights:
            run_nights(table.environment, settings, instance, log)
        for grid in table.grids:
            run_grid(grid, settings, instance, log, day, seeds)
        for asset in table.assets:
            configured = {asset: table.asset_config[asset]} if asset in table.asset_config else {}
            _insist(materialize(instance, log, [asset], None, configured), log)
    minutes = (time.monotonic() - began) / 60
    print(f"{table.name}: {minutes:.1f} minutes, peak memory {peak.gib:.2f} GiB. In the UI:")
    print(f"  make dev with ONEREC_HOME={settings.home}")
    # what libraries say of their own leaks while the process ends is for the log
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), 2)


def main() -> None:
    """Make the tables that are asked for; a failed one does not stop the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help="names; all by default")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, and no page")
    parser.add_argument("--seeds", nargs="*", type=int, default=[], help="instead of each table's")
    parser.add_argument("--here", metavar="TABLE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        tables = chosen_tables([given.here] if given.here else given.tables)
    except ValueError as error:
        sys.exit(f"make tables: {error}")
    if given.quick:
        tables = [quick_table(table) for table in tables if table.quick]
    if given.here:
        try:
            return make_here(tables[0], given.seeds)
        except ValueError as error:  # what a user can mend: the message says how
            sys.exit(f"  {error}")
    tables_dir, failed = load_settings().tables_dir, []
    for table in tables:
        print(f"\n{table.name} ({table.environment.dataset}): {table.expected}", flush=True)
        try:
            written = run_table(table, tables_dir, quick=given.quick, seeds=given.seeds)
            print(f"{table.name}: wrote {', '.join(written)}")
        except (ValueError, subprocess.CalledProcessError) as error:
            failed.append(table.name)
            print(f"{table.name} was not made: {error}", flush=True)
    if not given.quick:
        from experiments.reporting import assemble_page

        found = assemble_page(tables_dir, PAGE, ORDER)
        print(f"\n{PAGE.relative_to(CHECKOUT)}: {', '.join(found) or 'no table yet'}")
    if failed:
        sys.exit(f"make tables: {', '.join(failed)} failed; run the command again to go on")


if __name__ == "__main__":
    main()
