"""Where things live and what they run on."""

import os
from typing import Any

from resources.settings import Settings


def resources_for(settings: Settings) -> dict[str, Any]:
    """The one dictionary of resources of an environment.

    `ONEREC_ACCELERATOR`, `ONEREC_DEVICES`, `ONEREC_PRECISION`, `ONEREC_COMPILE` (1 compiles) and
    `ONEREC_THREADS` choose what trainings run on.
    """
    from resources.dbt import session_dbt
    from resources.stores import Artifacts, Compute, Source
    from resources.warehouse import Warehouse

    return {
        "warehouse": Warehouse(path=str(settings.warehouse_path)),
        "artifacts": Artifacts(url=settings.artifacts_url, cache_dir=str(settings.cache_dir)),
        "dbt": session_dbt(settings.root / "dbt", settings.warehouse_path),
        "source": Source(
            dataset=settings.dataset,
            data_dir=settings.data_dir,
            config=str(settings.config) if settings.config else None,
        ),
        "compute": Compute(
            accelerator=os.environ.get("ONEREC_ACCELERATOR", "auto"),
            devices=int(os.environ.get("ONEREC_DEVICES", "1")),
            strategy=os.environ.get("ONEREC_STRATEGY", "auto"),
            precision=os.environ.get("ONEREC_PRECISION", "auto"),
            compile=os.environ.get("ONEREC_COMPILE", "0") == "1",
            threads=int(os.environ.get("ONEREC_THREADS", "0")),
        ),
    }
