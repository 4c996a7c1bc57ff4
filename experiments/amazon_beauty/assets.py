"""The Amazon Beauty table: our TIGER and our OneRec against SASRec-CE on the literature's data."""

import os
from pathlib import Path

import dagster as dg
from pydantic import Field

from assets.code_version import code_version
from assets.support import POOL_TRAINER, SETTINGS
from experiments.asset_support import GROUP, written
from resources.settings import CHECKOUT

DATA_VARIABLE = "ONEREC_AMAZON_BEAUTY"
CODE = code_version(__name__, "amazon_beauty_table")


def data_directory(given: str) -> Path:
    """Where the data is: as given, or by `ONEREC_AMAZON_BEAUTY`, or beside the checkout."""
    beside = CHECKOUT.parent / "shared" / "data" / "amazon_beauty"
    return Path(given or os.environ.get(DATA_VARIABLE) or beside).expanduser()


class AmazonBeautyConfig(dg.Config):
    """Where the data is and how long to learn."""

    data: str = Field(
        default="",
        description="Directory with sequences.txt and items.tsv; empty: $ONEREC_AMAZON_BEAUTY, or "
        "../shared/data/amazon_beauty",
    )
    epochs: int = Field(
        default=0, description="Passes over the data for every learned system; 0: the budgets'"
    )
    seed: int = Field(default=0, description="Of weights and orders")


@dg.asset(
    group_name=GROUP,
    kinds={"pytorch"},
    code_version=CODE,
    pool=POOL_TRAINER,
)
def amazon_beauty_table(
    context: dg.AssetExecutionContext, config: AmazonBeautyConfig
) -> dg.MaterializeResult:
    """Popularity, item-KNN, SASRec-CE, TIGER and OneRec by TIGER's protocol, published figures
    beside them. Two hours on one core; what a stopped run has finished is used by the next."""
    import dataclasses

    from experiments.amazon_beauty.experiment import NAME, run
    from experiments.amazon_beauty.systems import BUDGETS

    budgets = BUDGETS
    if config.epochs:
        budgets = {k: dataclasses.replace(b, epochs=config.epochs) for k, b in BUDGETS.items()}
    out = SETTINGS.home / "experiments" / f"{NAME}-{config.seed}-{config.epochs}"
    try:
        table = run(
            data_directory(config.data),
            out,
            budgets=budgets,
            seed=config.seed,
            say=context.log.info,
        )
    except ValueError as error:
        raise dg.Failure(str(error)) from error
    assert table is not None, "all systems were measured"
    return written([table])
