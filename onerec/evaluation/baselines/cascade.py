"""Retrieve and rank: what a generative recommender replaces.

Two retrievers, item-KNN and recent popularity, propose candidates; LightGBM's LambdaMART orders
them. The ranker learns on the validation day from retrievers and statistics of the days before it,
so that what it sees of an item never includes the watch it is to predict; then both are fitted to
the whole window for the test day.

The recency prior is added to the ranker's scores as they are. LambdaMART models the probability
that one candidate is better than another as the sigmoid of the difference of their scores, so the
scores are the log-strengths of a Bradley-Terry model: log-probabilities, up to a constant of the
user's. It reorders what was retrieved: the items watched most on the newest day are among those of
recent popularity, which has a half-life of a day.

Shapes: C cases, H history items, K candidates of a case, R candidates of all cases, F features,
N items.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from onerec.artifacts import read_json, write_json
from onerec.evaluation.baselines.item_statistics import STATISTICS, item_statistics
from onerec.evaluation.baselines.simple import (
    ItemKNN,
    Popularity,
    fit_item_knn,
    watched_indicator,
)
from onerec.evaluation.recency import NOT_CHOSEN, ChosenPrior
from onerec.ranked_lists import RankedLists, first_occurrences, is_excluded, last_items
from onerec.session_dataset.eval_users import load_eval_users
from onerec.session_dataset.interactions import load_interactions
from onerec.session_dataset.logged_exposures import LoggedExposures, load_logged_exposures
from onerec.session_dataset.reader import dates_of, read_sessions
from onerec.session_dataset.splits import LEARNED
from onerec.tokenizer.semantic_ids import SemanticIds

RETRIEVED = 100
"""Candidates of each retriever."""
FEATURES = ("similarity", "knn_place", "popular_place", "popular_weight", "history_items")
"""What is known of a candidate beside its item's statistics."""
PARAMETERS: dict[str, Any] = {
    "objective": "lambdarank",
    "lambdarank_truncation_level": 20,
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.8,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
    "metric": "ndcg",
    "eval_at": [10],
}
MAX_TREES = 300
PATIENCE = 30
"""Trees without a better NDCG@10 on the users held out before stopping."""
HELD_OUT = 5
"""Every fifth user of the validation day is held out to choose the number of trees."""


@dataclass(frozen=True)
class Retrieval:
    """The first stage as of one day.

    Attributes:
        knn: Item-KNN.
        popular: Recent popularity.
        statistics: (N, F) of the items, see `item_statistics`.
    """

    knn: ItemKNN
    popular: Popularity
    statistics: np.ndarray

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.statistics)

    def retrieve(self, history: np.ndarray, candidates: np.ndarray | None = None) -> np.ndarray:
        """(C, K) different item indices per case, -1 padded at the end; K is twice `RETRIEVED`."""
        lists = [
            r.rank(history, RETRIEVED, candidates=candidates).items
            for r in (self.knn, self.popular)
        ]
        items = torch.from_numpy(np.concatenate(lists, axis=1))
        different = items.masked_fill(~first_occurrences(items), -1)
        return last_items(different, items.shape[1]).numpy()

    def features(self, history: np.ndarray, case: np.ndarray, item: np.ndarray) -> np.ndarray:
        """(R, F) features of some (case, item) pairs, `FEATURES` and then `STATISTICS`.

        Args:
            history: (C, H) item indices, -1 padded.
            case: (R,) rows of the histories.
            item: (R,) item indices.
        """
        similar = watched_indicator(history, self.num_items) @ self.knn.similarity
        popular_place = np.empty(self.num_items)
        popular_place[np.argsort(-self.popular.weights, kind="stable")] = np.arange(self.num_items)
        similarity = np.asarray(similar[case, item]).ravel()
        columns = {
            "similarity": similarity,
            "knn_place": _places(case, similarity),
            "popular_place": popular_place[item],
            "popular_weight": self.popular.weights[item],
            "history_items": (history >= 0).sum(1)[case],
        }
        known = np.stack([columns[name] for name in FEATURES], -1)
        return np.concatenate([known, self.statistics[item]], -1)


@dataclass(frozen=True)
class Cascade:
    """Both stages; a `Ranker`. Lists end where the retrieved candidates do.

    Attributes:
        retrieval: The first stage.
        booster: LightGBM's model, the second.
        recency_prior: What `FittedBaselines.rankers` adds to its scores.
    """

    retrieval: Retrieval
    booster: Any
    recency_prior: ChosenPrior = NOT_CHOSEN

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`; excluded items are dropped after retrieval, which ranks without them
        as it did in training."""
        retrieved = self.retrieval.retrieve(histories, candidates)
        case, place = np.nonzero(retrieved >= 0)
        scores = np.full(retrieved.shape, -np.inf)
        if len(case):
            table = self.retrieval.features(histories, case, retrieved[case, place])
            scores[case, place] = self.booster.predict(table, num_threads=1)
        scores[is_excluded(retrieved, exclude)] = -np.inf
        return RankedLists.best(retrieved, scores, top_k)

    def save(self, directory: Path) -> None:
        """Write `ranker.txt`, `statistics.parquet`, `config.json` and `recency_prior.json`, not the
        retrievers."""
        directory.mkdir(parents=True, exist_ok=True)
        self.booster.save_model(str(directory / "ranker.txt"))
        columns = dict(zip(STATISTICS, self.retrieval.statistics.T, strict=True))
        pq.write_table(pa.table(columns), directory / "statistics.parquet")
        self.recency_prior.save(directory)
        gain = self.booster.feature_importance("gain").tolist()
        names = (*FEATURES, *STATISTICS)
        write_json(
            directory / "config.json",
            {
                "parameters": PARAMETERS,
                "trees": self.booster.num_trees(),
                "retrieved": RETRIEVED,
                "gain": dict(zip(names, gain, strict=True)),
            },
        )


def fit_cascade(
    directory: Path,
    semantic_ids: SemanticIds,
    candidates: np.ndarray,
    *,
    test_day: date,
    neighbours: int,
    history_length: int,
    seed: int,
) -> Cascade:
    """Fit both stages.

    Args:
        directory: Files of a `session_dataset` artifact; `test` is never read.
        semantic_ids: The catalogue.
        candidates: (N,) booleans: items that may be listed.
        test_day: Day D.
        neighbours: Of item-KNN.
        history_length: H.
        seed: Of LightGBM.

    Raises:
        ValueError: Nobody watched anything on the validation day.
    """
    validation = dates_of(read_sessions(directory, ["valid"], ["session_date"]))
    if not len(validation):
        raise ValueError(
            f"{directory}: no session validates, so the cascade's ranker has nothing to learn "
            "from; leave 'cascade' out of baselines"
        )
    valid_day = validation[0].item()
    old = semantic_ids.known_before(valid_day)
    before = _retrieval(
        directory, semantic_ids, ("train",), candidates & old, valid_day, neighbours
    )
    eval_users = load_eval_users(directory, "valid", semantic_ids, history_length=history_length)
    shown = load_logged_exposures(directory, semantic_ids, ("valid",))
    if not len(eval_users):
        raise ValueError(
            f"{valid_day}: nobody watched a known item, so the cascade's ranker has nothing to "
            "learn from; leave 'cascade' out of baselines"
        )
    user = np.searchsorted(shown.user_ids, eval_users.user_ids)
    case, item, grade = examples(before, eval_users.history, user, shown)
    booster = _fit_ranker(before.features(eval_users.history, case, item), case, grade, seed)
    now = _retrieval(directory, semantic_ids, LEARNED, candidates, test_day, neighbours)
    return Cascade(now, booster)


def load_cascade(directory: Path, knn: ItemKNN, popular: Popularity) -> Cascade:
    """Read what `Cascade.save` wrote, with the retrievers of the same day."""
    import lightgbm

    stored = read_json(directory / "config.json")
    assert stored["retrieved"] == RETRIEVED, "the ranker was trained on other candidates"
    booster = lightgbm.Booster(model_file=str(directory / "ranker.txt"))
    table = pq.read_table(directory / "statistics.parquet")
    statistics = np.stack([table.column(name).to_numpy() for name in STATISTICS], -1)
    return Cascade(Retrieval(knn, popular, statistics), booster, ChosenPrior.load(directory))


def examples(
    retrieval: Retrieval, history: np.ndarray, user: np.ndarray, shown: LoggedExposures
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the ranker learns to order: what is retrieved, graded by the day's log.

    An item that was retrieved and not shown counts as not watched. An item that was shown and not
    retrieved is left out: half of those are watched and none of the others are, so the ranker would
    learn to prefer whatever its retrievers would not have proposed.

    Args:
        retrieval: The first stage as of the day.
        history: (C, H) of the users at the beginning of the day.
        user: (C,) rows of `shown.user_ids`.
        shown: The day's exposures.

    Returns:
        Case, item and grade of every example, sorted by case; (R,) each. Of several exposures of an
        item to a user the best one counts.
    """
    retrieved = retrieval.retrieve(history)
    case, place = np.nonzero(retrieved >= 0)
    item = retrieved[case, place]
    case_of = np.full(len(shown.user_ids), -1)
    case_of[user] = np.arange(len(user))
    own = case_of[shown.user] >= 0
    keys = case_of[shown.user[own]] * retrieval.num_items + shown.item[own]
    known, row = np.unique(keys, return_inverse=True)
    best = np.zeros(len(known) + 1, dtype=np.int64)  # the last one: was not shown
    np.maximum.at(best, row, shown.relevance()[own])
    wanted = case * retrieval.num_items + item
    found = np.searchsorted(known, wanted)
    there = np.append(known, -1)[found] == wanted
    return case, item, best[np.where(there, found, len(known))]


def _fit_ranker(table: np.ndarray, case: np.ndarray, grade: np.ndarray, seed: int) -> Any:
    """Choose the number of trees on held-out users, then fit as many to all of them."""
    import lightgbm

    parameters = {**PARAMETERS, "seed": seed}

    def dataset(kept: np.ndarray) -> Any:
        return lightgbm.Dataset(
            table[kept],
            label=grade[kept],
            group=np.unique(case[kept], return_counts=True)[1],
            feature_name=[*FEATURES, *STATISTICS],
        )

    held_out = case % HELD_OUT == 0
    trial = lightgbm.train(
        parameters,
        dataset(~held_out),
        num_boost_round=MAX_TREES,
        valid_sets=[dataset(held_out)],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    everyone = dataset(np.ones(len(case), dtype=bool))
    return lightgbm.train(parameters, everyone, num_boost_round=max(1, trial.best_iteration))


def _retrieval(
    directory: Path,
    semantic_ids: SemanticIds,
    splits: tuple[str, ...],
    candidates: np.ndarray,
    as_of: date,
    neighbours: int,
) -> Retrieval:
    log = load_interactions(directory, semantic_ids, test_day=as_of, splits=splits)
    feedback = load_logged_exposures(directory, semantic_ids, splits)
    return Retrieval(
        fit_item_knn(log, candidates, neighbours=neighbours),
        Popularity(log.recent_watches, candidates),
        item_statistics(feedback, semantic_ids, as_of),
    )


def _places(case: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """(R,) place of each example among its case's by similarity, 0 for the most similar."""
    order = np.lexsort((-similarity, case))
    start = np.searchsorted(case[order], case[order])
    places = np.empty(len(case))
    places[order] = np.arange(len(case)) - start
    return places
