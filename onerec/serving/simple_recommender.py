"""Recommendations by a simple system, which serves where no model is significantly better.

Its bundle is a directory with

    simple_system.json                  the system's name, n, and settings of serving
    semantic_ids.parquet                the catalogue
    baselines/                          the counting baselines

Shapes: C cases, H history items, E excluded items, N items.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from onerec.artifacts import write_json
from onerec.config import SIMPLE_SYSTEMS, BeamConfig, require
from onerec.evaluation.baselines import FittedBaselines, load_baselines
from onerec.ranked_lists import RankedLists, last_items
from onerec.serving.item_id_recommender import ItemIdRecommender
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids

SIMPLE_SETTINGS = "simple_system.json"
_BASELINES = "baselines"


class SimpleRecommender(ItemIdRecommender):
    """A simple system and its catalogue; scores are those that the system sorts by.

    Attributes:
        system: Its name.
        ranker: The fitted system.
    """

    def __init__(
        self,
        system: str,
        baselines: FittedBaselines,
        semantic_ids: SemanticIds,
        *,
        history_length: int,
        config: BeamConfig | None = None,
    ) -> None:
        """Combine a fitted system with its catalogue.

        Raises:
            ValueError: `system` is no simple system, or was not fitted.
        """
        known = [name for name in SIMPLE_SYSTEMS if name in baselines.rankers]
        require(system in known, "system", system, f"use one of {', '.join(known)}")
        self.system, self.ranker = system, baselines.rankers[system]
        self.semantic_ids, self._history_length = semantic_ids, history_length
        self.config = config or BeamConfig()

    @property
    def history_length(self) -> int:
        """n, the most recent items of a history that are read."""
        return self._history_length

    @classmethod
    def load(cls, path: Path | str) -> "SimpleRecommender":
        """Load a bundle written by `write_simple_bundle`."""
        directory = Path(path)
        settings = json.loads((directory / SIMPLE_SETTINGS).read_text())
        return cls(
            settings["system"],
            load_baselines(directory / _BASELINES),
            load_semantic_ids(directory),
            history_length=settings["history_length"],
            config=BeamConfig(**settings["config"]),
        )

    @property
    def known_attributes(self) -> None:
        """It takes any and reads none, so that a client need not know what serves."""
        return None

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
        *,
        on_batch: Callable[[int, int], None] = lambda done, total: None,
    ) -> RankedLists:
        """See `Ranker.rank`; `on_batch` is called once, at the end."""
        rows = torch.from_numpy(np.ascontiguousarray(histories)).long()
        recent = last_items(rows, self.history_length).numpy()
        lists = self.ranker.rank(recent, top_k, exclude=exclude, candidates=candidates)
        on_batch(len(lists), len(lists))
        return lists


def write_simple_bundle(
    directory: Path,
    *,
    system: str,
    baselines: Path,
    semantic_ids: Path,
    history_length: int,
    config: BeamConfig,
) -> None:
    """Copy what serving a simple system needs into one directory.

    Args:
        directory: Where the bundle goes; made when absent.
        system: Its name.
        baselines: Directory of the fitted baselines; trained ones are not copied.
        semantic_ids: Directory of the catalogue that they were fitted on.
        history_length: n.
        config: Decoding settings, of which only `filter_seen` is used.

    Raises:
        ValueError: It is no simple system, or was not fitted.
    """
    fitted, ids = load_baselines(baselines), load_semantic_ids(semantic_ids)
    SimpleRecommender(system, fitted, ids, history_length=history_length, config=config)  # or raise
    (directory / _BASELINES).mkdir(parents=True, exist_ok=True)
    dataclasses.replace(fitted, learned={}).save(directory / _BASELINES)
    ids.save(directory)
    settings = {
        "system": system,
        "history_length": history_length,
        "config": dataclasses.asdict(config),
    }
    write_json(directory / SIMPLE_SETTINGS, settings)
