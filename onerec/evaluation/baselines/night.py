"""The baselines of a night: fitting the ones a configuration names, writing, reading.

The counting ones are always fitted: popularity is what novelty and the promotion rule measure by,
and both retrievers of the cascade are among them.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from onerec.artifacts import read_json, write_json
from onerec.config import EvaluationConfig, TokenizerConfig
from onerec.evaluation.baselines.cascade import Cascade, fit_cascade, load_cascade
from onerec.evaluation.baselines.sequence_training import LOSSES, fit_sequence_model
from onerec.evaluation.baselines.sequences import load_windows
from onerec.evaluation.baselines.simple import (
    HALF_LIFE_DAYS,
    ItemKNN,
    Popularity,
    Ranker,
    fit_item_knn,
    fit_popularity,
)
from onerec.evaluation.baselines.tiger import TigerRanker, fit_tiger, load_tiger, tiger_codes
from onerec.evaluation.baselines.transformer import SequenceRanker, load_sequence_ranker
from onerec.evaluation.interactions import Interactions
from onerec.session_dataset.eval_users import EvalUsers, load_eval_users
from onerec.tokenizer.semantic_ids import SemanticIds

Learned = SequenceRanker | TigerRanker | Cascade
LEARNED = (*LOSSES, "tiger", "cascade")
"""Names of those that are fitted only where the settings ask for them."""


@dataclass(frozen=True)
class Baselines:
    """The baselines of a night: all that a `baselines` artifact holds.

    Attributes:
        exposures: (N,) how often each item was shown in the window.
        popularity: By watches of the window.
        popularity_recent: The same with a half-life.
        item_knn: Neighbours by co-watching.
        learned: Sequence models, TIGER and the cascade by name.
    """

    exposures: np.ndarray
    popularity: Popularity
    popularity_recent: Popularity
    item_knn: ItemKNN
    learned: Mapping[str, Learned] = field(default_factory=dict)

    @property
    def candidates(self) -> np.ndarray:
        """(N,) booleans: items of the catalogue before the test day."""
        return self.popularity.candidates

    @property
    def rankers(self) -> dict[str, Ranker]:
        """The systems under the names they have in metrics."""
        return {
            "popularity": self.popularity,
            "popularity_recent": self.popularity_recent,
            "itemknn": self.item_knn,
            **self.learned,
        }

    def facts(self) -> dict[str, int]:
        """Counts worth showing."""
        return {
            "candidate items": int(self.candidates.sum()),
            "candidates never shown": int((self.exposures[self.candidates] == 0).sum()),
            "watches": int(self.popularity.weights.sum()),
            "neighbour pairs": int(self.item_knn.similarity.nnz),
        }

    def save(self, directory: Path) -> None:
        """Write `items.parquet` (counts per item) and `neighbours.parquet` (a similarity a row).

        Each learned system has a directory of its own, and `learned.json` names them.
        """
        items = {
            "item_index": np.arange(len(self.exposures)),
            "exposures": self.exposures,
            "watches": self.popularity.weights,
            "recent_watches": self.popularity_recent.weights,
            "is_candidate": self.candidates,
        }
        pq.write_table(pa.table(items), directory / "items.parquet")
        pairs = self.item_knn.similarity.tocoo()
        neighbours = {
            "item_index": np.asarray(pairs.coords[0], dtype=np.int64),
            "neighbour_index": np.asarray(pairs.coords[1], dtype=np.int64),
            "cosine": pairs.data,
        }
        pq.write_table(pa.table(neighbours), directory / "neighbours.parquet")
        for name, system in self.learned.items():
            system.save(directory / name)
        write_json(directory / "learned.json", list(self.learned))


def fit_baselines(
    interactions: Interactions, candidates: np.ndarray, *, neighbours: int
) -> Baselines:
    """Fit the counting baselines on one window."""
    return Baselines(
        exposures=interactions.exposures(),
        popularity=fit_popularity(interactions, candidates),
        popularity_recent=fit_popularity(interactions, candidates, half_life_days=HALF_LIFE_DAYS),
        item_knn=fit_item_knn(interactions, candidates, neighbours=neighbours),
    )


def fit_learned(
    directory: Path,
    semantic_ids: SemanticIds,
    candidates: np.ndarray,
    config: EvaluationConfig,
    *,
    test_day: date,
    history_length: int,
    vectors: np.ndarray | None = None,
    on_progress: Callable[[str], None] = lambda message: None,
    on_fitted: Callable[[str, float], None] = lambda name, seconds: None,
) -> dict[str, Learned]:
    """Fit the learned systems that `config.baselines` names.

    Args:
        directory: Files of a `session_dataset` artifact; `test` is never read.
        semantic_ids: The catalogue.
        candidates: (N,) booleans: items that may be listed.
        config: Names, budget and seed.
        test_day: Day D.
        history_length: H, the same as the generator's.
        vectors: (N, Dv) item vectors, row-aligned with the catalogue; TIGER alone needs them.
        on_progress: Called with a line of text now and then.
        on_fitted: Called with a system's name and the seconds it took.
    """
    fitted: dict[str, Learned] = {}

    @cache
    def sequences() -> tuple[np.ndarray, EvalUsers]:
        windows = load_windows(directory, semantic_ids, history_length=history_length)
        asked = load_eval_users(directory, "valid", semantic_ids, history_length=history_length)
        return windows, asked

    for name in (name for name in config.systems if name in LEARNED):
        began = time.monotonic()

        def on_epoch(numbers: dict[str, float], name: str = name) -> None:
            on_progress(f"{name}: {numbers}")

        if name == "cascade":
            on_progress("cascade: retrievers, then the ranker")
            fitted[name] = fit_cascade(
                directory,
                semantic_ids,
                candidates,
                test_day=test_day,
                neighbours=config.neighbours,
                history_length=history_length,
                seed=config.seed,
            )
        elif name == "tiger":
            assert vectors is not None, "TIGER makes its semantic IDs of item vectors"
            size = semantic_ids.codebook_size
            tokenizer = TokenizerConfig(
                method="rqvae",
                num_levels=semantic_ids.num_sid_tokens - 1,
                codebook_size=size,
                seed=config.seed,
            )
            codes = tiger_codes(
                semantic_ids, vectors, candidates, tokenizer, on_progress=on_progress
            )
            fitted[name] = fit_tiger(
                *sequences(), codes, size, candidates, config, on_epoch=on_epoch
            )
        else:
            fitted[name] = fit_sequence_model(
                LOSSES[name], *sequences(), candidates, config, on_epoch=on_epoch
            )
        on_fitted(name, time.monotonic() - began)
    return fitted


def load_baselines(directory: Path) -> Baselines:
    """Read what `Baselines.save` wrote."""
    items = pq.read_table(directory / "items.parquet")
    pairs = pq.read_table(directory / "neighbours.parquet")
    watches, recent, exposures = (
        items.column(name).to_numpy() for name in ("watches", "recent_watches", "exposures")
    )
    candidates = items.column("is_candidate").to_numpy(zero_copy_only=False).astype(bool)
    row, column = (pairs.column(name).to_numpy() for name in ("item_index", "neighbour_index"))
    similarity = sp.csr_array(
        (pairs.column("cosine").to_numpy(), (row, column)), shape=(items.num_rows,) * 2
    )
    knn, popular = ItemKNN(similarity, watches, candidates), Popularity(recent, candidates)

    def learned(name: str) -> Learned:
        if name == "cascade":
            return load_cascade(directory / name, knn, popular)
        if name == "tiger":
            return load_tiger(directory / name, candidates)
        return load_sequence_ranker(directory / name, candidates)

    return Baselines(
        exposures=exposures,
        popularity=Popularity(watches, candidates),
        popularity_recent=popular,
        item_knn=knn,
        learned={name: learned(name) for name in read_json(directory / "learned.json")},
    )
