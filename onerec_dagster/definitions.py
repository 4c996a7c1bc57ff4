"""The code location: assets, checks, jobs, sensors and resources, put together."""

import os
import warnings

import dagster as dg

# SQL builds a range of days in one run, models take a run for each day: intended.
warnings.filterwarnings("ignore", message="Asset job .* materializes assets with varying")

import assets  # noqa: E402
from assets.support import SETTINGS  # noqa: E402
from onerec_dagster.asset_specs import described  # noqa: E402
from onerec_dagster.jobs import JOBS  # noqa: E402
from onerec_dagster.killed_runs import with_lock  # noqa: E402
from onerec_dagster.maintenance import MAINTENANCE  # noqa: E402
from onerec_dagster.nights import (  # noqa: E402
    earlier_nights_have_ended,
    nights_are_backfilled_by_their_job,
)
from onerec_dagster.sensors import SENSORS  # noqa: E402
from onerec_dagster.webhook import WEBHOOK, require_webhook  # noqa: E402
from resources import resources_for  # noqa: E402

# Steps are forked from a server that has the code location and the trainer's libraries loaded: a
# step starts in 0.3 s instead of 5 to 10 s and still is a process of its own, so its memory returns
# to the system. Where one step works at a time, all are in the process of the run.
PRELOADED = ["onerec_dagster.definitions", "onerec.training", "onerec.reward.training"]
EXECUTOR = dg.in_process_executor
if SETTINGS.steps_at_once > 1:
    EXECUTOR = dg.multiprocess_executor.configured(
        {
            "max_concurrent": SETTINGS.steps_at_once,
            "start_method": {"forkserver": {"preload_modules": PRELOADED}},
        }
    )


require_webhook(os.environ.get(WEBHOOK))

ASSETS = dg.load_assets_from_package_module(assets)
RESOURCES = resources_for(SETTINGS)

defs = dg.Definitions(
    assets=ASSETS,
    asset_checks=[
        *dg.load_asset_checks_from_package_module(assets),
        earlier_nights_have_ended,
        nights_are_backfilled_by_their_job,
    ],
    jobs=[*JOBS, *MAINTENANCE],
    sensors=SENSORS,
    resources=RESOURCES,
    executor=with_lock(EXECUTOR),
).map_resolved_asset_specs(func=described)
