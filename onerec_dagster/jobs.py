"""The jobs a team runs."""

import dagster as dg

from assets.support import DAILY

INGEST = dg.AssetSelection.groups("raw", "sessions")
RETOKENIZE = dg.AssetSelection.assets("codebook")

ingest = dg.define_asset_job(
    "ingest",
    selection=INGEST,
    partitions_def=DAILY,
    description="Logs into the warehouse, and the session SQL; a range of days is one run.",
)

nightly = dg.define_asset_job(
    "nightly",
    selection=dg.AssetSelection.all() - RETOKENIZE,
    partitions_def=DAILY,
    description=(
        "Ingest -> sessions -> train -> align -> evaluate -> promote -> recommend for one day, "
        "inside the current tokenizer generation."
    ),
)

weekly_retokenize = dg.define_asset_job(
    "weekly_retokenize",
    selection=dg.AssetSelection.all(),
    partitions_def=DAILY,
    description=(
        "The night run with a new codebook: opens a tokenizer generation, so models start from "
        "scratch. Also the very first run."
    ),
)

JOBS = [ingest, nightly, weekly_retokenize]
