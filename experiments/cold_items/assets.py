"""Recall of items that no model has seen an event of."""

import hashlib
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, NonNegativeInt

from assets.code_version import code_version
from assets.support import POOL_TRAINER, SETTINGS, upstream
from experiments.cold_items import MOVIELENS_FILES
from experiments.nightly_artifacts import NEEDED, latest_night
from experiments.table_assets import GROUP, provenance, written
from resources.stores import Artifacts, Compute, Source
from resources.warehouse import Warehouse

if TYPE_CHECKING:
    from experiments.cold_items.experiment import ColdItems
    from experiments.reporting.result_tables import Provenance

EMBEDDED = "item_embeddings"
"""Its manifest has the settings of the nightly run's item vectors."""


class ColdItemsLaunchpad(dg.Config):
    """Which items are held out."""

    share: float = Field(default=0.2, gt=0, lt=1, description="Share of the items held out")
    seeds: list[NonNegativeInt] = Field(
        default=[0, 1, 2],
        min_length=1,
        description="Each holds other items out and trains anew; a repeated one counts once",
    )

    @property
    def distinct_seeds(self) -> list[int]:
        """The seeds, each once."""
        return list(dict.fromkeys(self.seeds))


class MovieLensLaunchpad(ColdItemsLaunchpad):
    """Which items are held out, and where the files are."""

    directory: str = Field(
        description="Has the files that examples/ratings/get_movielens.py writes"
    )


@dg.asset(
    group_name=GROUP,
    kinds={"pytorch"},
    pool=POOL_TRAINER,
    code_version=code_version(__name__, "cold_items_table"),
    deps=[*map(upstream, (*NEEDED, EMBEDDED))],
)
def cold_items_table(
    context: dg.AssetExecutionContext,
    config: ColdItemsLaunchpad,
    artifacts: Artifacts,
    warehouse: Warehouse,
    source: Source,
    compute: Compute,
) -> dg.MaterializeResult:
    """Baselines and generators with a share of the latest nightly run's items held out."""
    from experiments.cold_items.experiment import ColdItems
    from onerec.config import EmbeddingConfig
    from onerec.embeddings.supplied_vectors import usable_vectors

    store, night = artifacts.store, latest_night(artifacts.store)
    day, supplied = night.test_day.isoformat(), source.open().item_vectors()
    embedded = store.latest(EMBEDDED, day)
    read = {**night.versions, EMBEDDED: embedded.version}
    test = ColdItems(
        session_dataset=night.files["session_dataset"],
        test_day=night.test_day,
        base=night.base,
        catalogue=warehouse.catalogue(night.test_day),
        supplied=None if supplied is None else usable_vectors(supplied)[0],
        embeddings=EmbeddingConfig(**embedded.manifest["config"]),
        share=config.share,
        seed=config.seeds[0],
        runtime=compute.runtime().on_one_device(),
        scratch=store.scratch("cold_items_table", day, _key(config, read)),
        on_progress=context.log.info,
    )
    settings = asdict(replace(night.base, training=test.training))
    made = provenance(
        context.instance, store, [day], settings, config.distinct_seeds, _budget(test)
    )
    return _written(test, SETTINGS.dataset, config.distinct_seeds, made)


@dg.asset(
    group_name=GROUP,
    kinds={"pytorch"},
    pool=POOL_TRAINER,
    code_version=code_version(__name__, "cold_items_movielens_table"),
)
def cold_items_movielens_table(
    context: dg.AssetExecutionContext,
    config: MovieLensLaunchpad,
    artifacts: Artifacts,
    compute: Compute,
) -> dg.MaterializeResult:
    """The same on MovieLens-100k, each user's last liked films as days of their own."""
    from experiments.cold_items import movielens
    from experiments.cold_items.experiment import ColdItems
    from experiments.reporting.result_tables import Provenance
    from onerec.config import PRESETS
    from resources.commit import current_commit

    directory = Path(config.directory)
    read = {
        name: hashlib.sha256((directory / name).read_bytes()).hexdigest()[:16]
        for name in MOVIELENS_FILES
    }
    scratch = artifacts.store.scratch("cold_items_movielens_table", "all", _key(config, read))
    # Not the settings of the code location, which its own data set changes
    base = PRESETS[SETTINGS.preset]
    sessions, lengths = scratch / "sessions", base.sessions
    shutil.rmtree(sessions, ignore_errors=True)
    movielens.write_sessions(
        directory, sessions, history_length=lengths.history_length, targets=lengths.session_items
    )
    test = ColdItems(
        session_dataset=sessions,
        test_day=movielens.DAY,
        base=base,
        catalogue=movielens.read_items(directory),
        supplied=None,
        embeddings=base.embeddings,
        share=config.share,
        seed=config.seeds[0],
        runtime=compute.runtime().on_one_device(),
        scratch=scratch,
        on_progress=context.log.info,
    )
    made = Provenance(
        data=f"MovieLens-100k {'+'.join(read.values())}",
        config=f"{SETTINGS.preset} preset",
        seeds=config.distinct_seeds,
        budget=_budget(test),
        commit=current_commit(),
    )
    return _written(test, "movielens", config.distinct_seeds, made)


def _key(config: ColdItemsLaunchpad, read: dict[str, str]) -> dict[str, Any]:
    code = code_version("experiments.cold_items.experiment", "run_cold_items")
    return {"config": config.model_dump(), "upstream": read, "code_version": code}


def _budget(test: "ColdItems") -> str:
    return (
        f"two generators a seed, of at most {test.base.training.max_epochs} epochs; the setting "
        "for new items chosen on the validation day"
    )


def _written(
    test: "ColdItems", dataset: str, seeds: list[int], made: "Provenance"
) -> dg.MaterializeResult:
    from experiments.cold_items.experiment import run_cold_items
    from experiments.cold_items.table import pooled, table_of_cold_items

    runs = []
    for seed in seeds:
        test.on_progress(f"items held out by seed {seed}")
        one = replace(test, seed=seed, scratch=test.scratch / f"seed_{seed}")
        runs.append(run_cold_items(one, dataset))
    table = table_of_cold_items(pooled(runs), made)
    shutil.rmtree(test.scratch)
    return written([table], {"nightly run": test.test_day.isoformat()})
