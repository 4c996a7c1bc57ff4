import warnings

import dagster as dg

# Beta and preview features in use: backfill policies, windows over missing partitions
for _category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=_category)
