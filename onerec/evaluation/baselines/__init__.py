"""Baselines on the same cases, histories and candidates as the generator.

Every one is an `onerec.ranked_lists.Ranker`. `EvaluationConfig.baselines` says which ones a nightly
run measures.
"""

from onerec.evaluation.baselines.registry import (
    BaselineInputs,
    FittedBaselines,
    fit_baselines,
    fit_item_knn_prior,
    fit_learned,
    load_baselines,
)
from onerec.evaluation.baselines.simple import (
    ItemKNN,
    Popularity,
    fit_item_knn,
)

__all__ = [
    "BaselineInputs",
    "FittedBaselines",
    "ItemKNN",
    "Popularity",
    "fit_baselines",
    "fit_item_knn",
    "fit_item_knn_prior",
    "fit_learned",
    "load_baselines",
]
