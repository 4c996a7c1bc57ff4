"""`make tables`: launches what the result tables are made from, then writes one page of them.

Every environment has a home, `$ONEREC_HOME/tables/runs/<environment>-<hash of its settings>`, and
for the time of the command a Dagster UI with its daemon over it: nightly runs are its jobs,
partitions its backfills. What is there already, with the same settings and code, is not launched
again; other settings have another home.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import yaml

from experiments.backfill_launcher import Launcher, running_ui
from experiments.nightly_artifacts import NEEDED, latest_night
from experiments.reporting.results_page import assemble_page
from experiments.table_specs import (
    PAGE_ORDER,
    Environment,
    TableSpec,
    chosen_tables,
    environment_of_seed,
    quick_table,
)
from experiments.variants.stored_results import current_result
from onerec.artifacts import ArtifactError, ArtifactStore
from onerec.config import PRESETS, Runtime
from onerec.datasets import DATASETS
from resources.settings import CHECKOUT, Settings, load_settings

OF_MACHINE = (
    *(f"ONEREC_{field.name.upper()}" for field in fields(Runtime)),
    *("ONEREC_AMAZON_BEAUTY", "ONEREC_MIN_FREE_GIB", "ONEREC_STEPS_AT_ONCE"),
)
"""Variables that tables keep. Others would reach what serves: consumers, warehouse, alerts."""
PAGE = CHECKOUT / "docs" / "results.md"
PRESET = "tiny"


def home_of(environment: Environment, tables_dir: Path, data_dir: str) -> Path:
    """Where the state of an environment lives: one home for each combination of settings, defaults
    of today among them."""
    defaults = PRESETS[PRESET].override(DATASETS[environment.dataset].stages)
    settings = {
        **asdict(environment),
        "defaults": asdict(defaults),
        "data_dir": data_dir if environment.needs_files else "",
    }
    text = json.dumps(settings, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return tables_dir / "runs" / f"{environment.name}-{digest}"


def process_environment(
    environment: Environment, tables_dir: Path, environ: Mapping[str, str]
) -> dict[str, str]:
    """Environment variables of an environment's UI; writes the YAML file they name.

    Args:
        environment: Data and settings.
        tables_dir: Of the project's result tables; the environment's home lies inside.
        environ: Of this process; of its own variables those in `OF_MACHINE` are kept.

    Raises:
        ValueError: The data set reads files, and DATA_DIR is not given.
    """
    data_dir = environ.get("ONEREC_DATA_DIR", "")
    if environment.needs_files and not data_dir:
        raise ValueError(
            f"DATA_DIR: the data set {environment.dataset} reads files; name their directory, "
            "make tables DATA_DIR=..."
        )
    home = home_of(environment, tables_dir, data_dir)
    home.mkdir(parents=True, exist_ok=True)
    config = home / "tables.yaml"
    config.write_text(yaml.safe_dump(dict(environment.settings)))
    kept = {
        name: value
        for name, value in environ.items()
        if name in OF_MACHINE or not name.startswith(("ONEREC_", "DAGSTER_"))
    }
    return {
        **kept,
        "ONEREC_HOME": str(home),
        "ONEREC_DATASET": environment.dataset,
        "ONEREC_DATA_DIR": data_dir if environment.needs_files else "",
        "ONEREC_CONFIG": str(config),
        "ONEREC_PRESET": PRESET,
        "ONEREC_ARTIFACTS": str(home / environment.dataset / "artifacts"),
    }


def night_is_current(
    store: ArtifactStore, day: str, baselines: str, codes: Mapping[str, str]
) -> bool:
    """Whether a day's nightly run is published, made by the present code.

    Args:
        store: The store.
        day: Day D.
        baselines: `evaluation.baselines` of the settings.
        codes: Present code version by asset; those that are not named are not compared.
    """
    if any(day not in store.partitions(name) for name in NEEDED):
        return False
    made = {name: store.latest(name, day).manifest for name in NEEDED}
    same_code = all(made[n]["code_version"] == codes[n] for n in NEEDED if n in codes)
    return same_code and made["offline_metrics"]["config"]["baselines"] == baselines


def run_nights(ui: Launcher, days: Sequence[str], settings: Settings, store: ArtifactStore) -> None:
    """Ingest the days before, and launch the nightly runs that are missing, in order.

    They leave out what no experiment reads: promotion, recommendations, and the report.

    Raises:
        RuntimeError: A run failed.
    """
    codes, job = ui.code_versions(), "weekly_retokenize"
    first, _ = settings.partition_range()
    for day in days:
        test_day = date.fromisoformat(day)
        if night_is_current(store, day, settings.stages.evaluation.baselines, codes):
            print(f"nightly run of {day}: there", flush=True)
        else:
            print(f"nightly run of {day}", flush=True)
            if first < test_day:
                eve = test_day - timedelta(days=1)
                span = {"start": first.isoformat(), "end": eve.isoformat()}
                ingested = {f"dagster/asset_partition_range_{k}": v for k, v in span.items()}
                _run(ui, "onerec_dagster.definitions", "ingest", ingested)
            night = {"dagster/partition": day}
            _run(ui, "onerec_dagster.definitions", job, night, ui.upstream_of(NEEDED, job))
        first, job = test_day + timedelta(days=1), "nightly"


def _run(
    ui: Launcher,
    location: str,
    job: str,
    tags: Mapping[str, str],
    assets: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
) -> None:
    if not ui.run_job(location, job, tags, assets, config):
        raise RuntimeError(f"{', '.join(assets) or job} failed")


@contextmanager
def _ui(environ: Mapping[str, str], home: Path) -> Iterator[Launcher]:
    """`running_ui`; what fails in it says where to look."""
    with running_ui(environ, home) as ui:
        print(f"watch it at {ui.url}", flush=True)
        try:
            yield ui
        except (RuntimeError, ArtifactError, OSError) as error:
            where = f"make dev ONEREC_HOME={home} shows why"
            raise RuntimeError(f"{error}\n  {where}") from error


def nights_of_other_seeds(table: TableSpec, tables_dir: Path) -> list[str]:
    """Launch the nightly runs of every seed but the first; returns their artifact stores."""
    stores = []
    for seed in table.seeds[1:] if table.nights_by_seed else ():
        environment = environment_of_seed(table.environment, seed)
        environ = process_environment(environment, tables_dir, os.environ)
        settings, store = load_settings(environ), ArtifactStore(environ["ONEREC_ARTIFACTS"])
        print(f"seed {seed}", flush=True)
        with _ui(environ, settings.home) as ui:
            run_nights(ui, environment.test_days, settings, store)
        stores.append(environ["ONEREC_ARTIFACTS"])
    return stores


def missing_partitions(
    table: TableSpec, store: ArtifactStore, codes: Mapping[str, str]
) -> dict[str, list[str]]:
    """Keys by asset of the partitions that have no current result.

    Args:
        table: What is wanted.
        store: What there is.
        codes: Present code version by asset.
    """
    missing = defaultdict(list)
    night = latest_night(store) if table.variants else None
    for wanted in table.variant_partitions():
        assert night is not None
        if current_result(store, night, wanted, codes[wanted.asset]) is None:
            missing[wanted.asset].append(wanted.dagster_key)
    for asset, keys in table.partitions.items():
        there = {key: store.latest(asset, key).manifest for key in store.partitions(asset)}
        for key in keys:
            if key not in there or there[key]["code_version"] != codes[asset]:
                missing[asset].append(key)
    return dict(missing)


def make_result_table(table: TableSpec, tables_dir: Path) -> list[str]:
    """Launch what a table needs and the table, and take its files; returns what it wrote.

    Raises:
        ValueError: See `process_environment` and `running_ui`.
        RuntimeError: A run failed, or the UI did not start.
    """
    others = nights_of_other_seeds(table, tables_dir)
    environment = table.environment
    if table.nights_by_seed:
        environment = environment_of_seed(environment, table.seeds[0])
    environ = process_environment(environment, tables_dir, os.environ)
    settings, store = load_settings(environ), ArtifactStore(environ["ONEREC_ARTIFACTS"])
    config = {"ops": {table.asset: {"config": {"other_seeds": others}}}} if others else {}
    with _ui(environ, settings.home) as ui:
        run_nights(ui, table.environment.test_days, settings, store)
        missing = missing_partitions(table, store, ui.code_versions())
        if missing:
            counts = ", ".join(f"{len(keys)} of {asset}" for asset, keys in missing.items())
            print(f"backfill: {counts}", flush=True)
            ui.backfill(missing)
        _run(ui, "experiments.definitions", "__ASSET_JOB", {}, [table.asset], config)
    return take_files(settings.tables_dir, tables_dir, table.files)


def take_files(source: Path, target: Path, names: Sequence[str]) -> list[str]:
    """Copy the files of some tables; returns the names that were found."""
    target.mkdir(parents=True, exist_ok=True)
    found = [name for name in names if (source / f"{name}.parquet").exists()]
    for name in found:
        for old in target.glob(f"{name}-*.svg"):
            old.unlink()
        for file in (*source.glob(f"{name}.*"), *source.glob(f"{name}-*.svg")):
            shutil.copyfile(file, target / file.name)
    return found


def main() -> None:
    """Make the chosen tables; a failed one does not stop the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help="names; all by default")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, and no page")
    parser.add_argument("--seeds", nargs="*", type=int, default=[], help="instead of each table's")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the UI, too, as Ctrl-C does
    try:
        tables = chosen_tables(tuple(given.tables))
    except ValueError as error:
        sys.exit(f"make tables: {error}")
    if given.quick:
        tables = [quick_table(table) for table in tables if table.quick]
    if given.seeds:
        tables = [replace(table, seeds=tuple(given.seeds)) for table in tables]
    tables_dir, failed = load_settings().tables_dir, []
    for table in tables:
        print(f"\n{table.name} ({table.environment.dataset}): {table.expected}", flush=True)
        try:
            print(
                f"{table.name}: wrote {', '.join(make_result_table(table, tables_dir))}", flush=True
            )
        except (ValueError, RuntimeError) as error:
            failed.append(table.name)
            print(f"{table.name} was not made: {error}", flush=True)
    if not given.quick:
        found = assemble_page(tables_dir, PAGE, PAGE_ORDER)
        print(f"\n{PAGE.relative_to(CHECKOUT)}: {', '.join(found) or 'no table yet'}")
    if failed:
        sys.exit(f"not made: {', '.join(failed)}")


if __name__ == "__main__":
    main()
