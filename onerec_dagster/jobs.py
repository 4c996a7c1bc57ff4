"""The jobs: ingest, the nightly run, and the nightly run with a new codebook."""

import dagster as dg

from onerec_dagster.killed_runs import with_lock
from onerec_dagster.nights import NIGHT_TAG, earlier_nights_have_ended

# a look at the log that someone asks for, see `make inspect`
LOOK = dg.AssetSelection.assets("log_inspection")
INGEST = (
    dg.AssetSelection.groups("raw", "sessions")
    - dg.AssetSelection.assets("session_dataset")
    - dg.AssetSelection.checks(earlier_nights_have_ended)
    - LOOK
)
NIGHT = dg.AssetSelection.all() - LOOK
RETOKENIZE = dg.AssetSelection.assets("codebook")

ingest = dg.define_asset_job(
    "ingest",
    selection=INGEST,
    # DuckDB and dbt work: a process a step only adds start-up
    executor_def=with_lock(dg.in_process_executor),
    description="Logs into the warehouse, and the session SQL; a range of days is one run.",
)

nightly = dg.define_asset_job(
    "nightly",
    selection=NIGHT - RETOKENIZE,
    tags=NIGHT_TAG,
    description=(
        "Ingest -> sessions -> train -> align -> evaluate -> promote -> recommend for one day, "
        "inside the current tokenizer version."
    ),
)

weekly_retokenize = dg.define_asset_job(
    "weekly_retokenize",
    selection=NIGHT,
    tags=NIGHT_TAG,
    description=(
        "The nightly run with a new codebook: opens a tokenizer version, so models start from "
        "scratch. Also the very first run."
    ),
)

serve_degraded = dg.define_asset_job(
    "serve_degraded",
    selection=dg.AssetSelection.assets("recommendations"),
    description=(
        "Recommendations of a day whose nightly run failed: the last champion on the newest valid "
        "sessions, marked with the reason."
    ),
)

decide_champion = dg.define_asset_job(
    "decide_champion",
    selection=dg.AssetSelection.assets("champion", "recommendations"),
    description=(
        "An operator decides what serves on the newest day: the challenger that was refused, or "
        "the champion of an earlier day (`champion: by_hand`). The run records who, when and why."
    ),
)

JOBS = [ingest, nightly, weekly_retokenize, serve_degraded, decide_champion]
