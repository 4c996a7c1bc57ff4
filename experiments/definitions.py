"""The second code location: comparisons, each beside its assets; no nightly run includes them."""

import warnings

import dagster as dg

# Beta and preview features in use, as in `onerec_dagster.definitions`.
for _category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=_category)

from assets.support import DAILY, SETTINGS  # noqa: E402
from experiments.ab_test import assets as ab_test  # noqa: E402
from experiments.amazon_beauty import assets as amazon_beauty  # noqa: E402
from experiments.cold_items import assets as cold_items  # noqa: E402
from experiments.freshness import assets as freshness  # noqa: E402
from experiments.nightly_artifacts import NEEDED  # noqa: E402
from experiments.reward_quality import assets as reward_quality  # noqa: E402
from experiments.variants import assets as variants  # noqa: E402
from experiments.walk_forward import assets as walk_forward  # noqa: E402
from resources import resources_for  # noqa: E402

NIGHTLY_ASSETS = [dg.AssetSpec(name, partitions_def=DAILY) for name in NEEDED]
"""Assets of the first code location that experiments read; it materialises them."""
ASSETS = dg.load_assets_from_modules(
    [variants, ab_test, amazon_beauty, cold_items, freshness, reward_quality, walk_forward]
)
RESOURCES = resources_for(SETTINGS)

defs = dg.Definitions(
    assets=[*NIGHTLY_ASSETS, *ASSETS], resources=RESOURCES, executor=dg.in_process_executor
)
