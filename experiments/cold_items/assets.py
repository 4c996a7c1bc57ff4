"""Recall of items that no model has seen an event of."""

import shutil
from dataclasses import asdict, replace
from typing import Any

import dagster as dg
from pydantic import Field

from assets.code_version import code_version
from assets.support import POOL_TRAINER, SETTINGS, upstream
from experiments.nightly_artifacts import NEEDED, latest_night
from experiments.table_assets import GROUP, provenance, written
from resources.stores import Artifacts, Compute, Source
from resources.warehouse import Warehouse

NAME = "cold_items_table"
CODE = code_version(__name__, NAME)
EMBEDDED = "item_embeddings"
"""Its manifest has the settings of the nightly run's item vectors."""


class ColdItemsLaunchpad(dg.Config):
    """Which items are held out."""

    share: float = Field(default=0.2, gt=0, lt=1, description="Share of the items held out")
    seed: int = Field(default=0, ge=0, description="Another seed holds other items out")


@dg.asset(
    name=NAME,
    group_name=GROUP,
    kinds={"pytorch"},
    pool=POOL_TRAINER,
    code_version=CODE,
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
    """Baselines and generators with a share of the items held out of training."""
    from experiments.cold_items.experiment import ColdItems, run_cold_items
    from experiments.cold_items.table import table_of_cold_items
    from onerec.config import EmbeddingConfig
    from onerec.datasets.vectors import usable_vectors

    store, night = artifacts.store, latest_night(artifacts.store)
    day = night.test_day.isoformat()
    embedded = store.latest(EMBEDDED, day)
    key: dict[str, Any] = {
        "config": config.model_dump(),
        "upstream": {**night.versions, EMBEDDED: embedded.version},
        "code_version": CODE,
    }
    scratch = store.scratch(NAME, day, key)
    supplied = source.open().item_vectors()
    test = ColdItems(
        night=night,
        catalogue=warehouse.catalogue(night.test_day),
        supplied=None if supplied is None else usable_vectors(supplied)[0],
        embeddings=EmbeddingConfig(**embedded.manifest["config"]),
        share=config.share,
        seed=config.seed,
        runtime=compute.runtime().on_one_device(),
        scratch=scratch,
        on_progress=context.log.info,
    )
    base = replace(night.base, training=replace(night.base.training, fresh_epochs=0))
    budget = (
        f"two generators of at most {base.training.max_epochs} epochs; the setting for new items "
        "chosen on the validation day"
    )
    made = provenance(store, [day], asdict(base), [base.training.seed], budget)
    table = table_of_cold_items(run_cold_items(test, SETTINGS.dataset), made)
    shutil.rmtree(scratch)
    return written([table], {"night": day})
