"""Where things live and what they run on."""

from dataclasses import asdict
from typing import Any

from resources.settings import Settings


def resources_for(settings: Settings) -> dict[str, Any]:
    """The one dictionary of resources of an environment."""
    from resources.dbt import session_dbt_of
    from resources.stores import Artifacts, Compute, Consumers, Source
    from resources.warehouse import Warehouse

    return {
        "warehouse": Warehouse(path=str(settings.warehouse_path)),
        "artifacts": Artifacts(url=settings.artifacts_url, cache_dir=str(settings.cache_dir)),
        "dbt": session_dbt_of(settings),
        "source": Source(
            dataset=settings.dataset,
            data_dir=settings.data_dir,
            config=str(settings.config) if settings.config else None,
        ),
        "consumers": Consumers(root=str(settings.serving_dir)),
        "compute": Compute(**asdict(settings.runtime)),
    }
