"""The code location of Dagster: definitions, jobs, sensors, and the operator's commands."""

import warnings

import dagster as dg

# Beta and preview features in use: backfill policies, windows over missing partitions
for _category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=_category)
