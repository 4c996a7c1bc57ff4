"""The jobs a team runs."""

import dagster as dg

# a look at the log that someone asks for, see `make inspect`
LOOK = dg.AssetSelection.assets("log_inspection")
INGEST = (
    dg.AssetSelection.groups("raw", "sessions") - dg.AssetSelection.assets("session_dataset") - LOOK
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
    description=(
        "Ingest -> sessions -> train -> align -> evaluate -> promote -> recommend for one day, "
        "inside the current tokenizer version."
    ),
)

weekly_retokenize = dg.define_asset_job(
    "weekly_retokenize",
    selection=NIGHT,
    description=(
        "The nightly run with a new codebook: opens a tokenizer version, so models start from "
        "scratch. Also the very first run."
    ),
)

JOBS = [ingest, nightly, weekly_retokenize]
