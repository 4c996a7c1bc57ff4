"""Baselines on the same cases, histories and candidates as the generator.

Every system is a `Ranker`: from histories to lists. No system filters what the user has already
seen: in evaluation the filter is off for all alike. `EvaluationConfig.baselines` says which ones a
night measures.

LightGBM is imported only where the cascade is fitted or loaded.
"""

from onerec.evaluation.baselines.night import (
    Baselines,
    fit_baselines,
    fit_learned,
    load_baselines,
)
from onerec.evaluation.baselines.simple import (
    HALF_LIFE_DAYS,
    ItemKNN,
    Popularity,
    Ranker,
    fit_item_knn,
    fit_popularity,
)

__all__ = [
    "HALF_LIFE_DAYS",
    "Baselines",
    "ItemKNN",
    "Popularity",
    "Ranker",
    "fit_baselines",
    "fit_item_knn",
    "fit_learned",
    "fit_popularity",
    "load_baselines",
]
