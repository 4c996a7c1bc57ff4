"""The jobs a team runs."""

import dagster as dg

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

JOBS = [ingest, nightly, weekly_retokenize]
