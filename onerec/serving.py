"""Tomorrow's recommendations: one session for every active user.

Histories reach through the end of day D: this is serving, not training, and nothing of it is
measured on day D. Items of a user's history are left out where `decoding.filter_seen` is set.

Shapes: U users, H history items, M items of a session.
"""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onerec.config import BeamConfig
from onerec.evaluation.baselines import FittedBaselines
from onerec.ranked_lists import RankedLists
from onerec.recommender import REWARD, Recommender, write_bundle
from onerec.schema import RECOMMENDATIONS
from onerec.session_dataset.histories import active_users, load_serving_histories
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids

POPULARITY = "popularity"
"""`model_version` of recommendations made while there is no champion."""


def prepare_bundle(
    directory: Path,
    *,
    champion: Path,
    semantic_ids: Path,
    reward_model: Path,
    config: BeamConfig,
) -> bool:
    """The bundle that serves: the champion's generator with the day's catalogue and reward model.

    A champion that was published without a reward model serves by probability and gets none.

    Inside its tokenizer version a champion of an earlier day so recommends the items that came
    since. Outside of it tokens mean other items: it keeps the catalogue and the reward model that
    it was published with.

    Args:
        directory: Gets the bundle.
        champion: Directory of the champion artifact.
        semantic_ids: The day's.
        reward_model: The day's.
        config: Beam and batch size.

    Returns:
        Whether the day's catalogue is used.
    """
    own, today = load_semantic_ids(champion), load_semantic_ids(semantic_ids)
    if own.tokenizer_version == today.tokenizer_version:
        write_bundle(
            directory,
            checkpoint=champion,
            semantic_ids=semantic_ids,
            reward=reward_model if (champion / REWARD).exists() else None,
            config=config,
        )
        return True
    left_out = shutil.ignore_patterns("champion.json", "manifest.json")
    shutil.copytree(champion, directory, ignore=left_out)
    return False


def recommend_to_all(
    bundle: Path,
    session_dataset: Path,
    *,
    serve_date: date,
    model_version: str,
    filter_seen: bool,
    device: str = "cpu",
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> pa.Table:
    """One session for every user of the dataset, as `Recommender.recommend` gives it.

    Args:
        bundle: What `prepare_bundle` wrote.
        session_dataset: Directory of the artifact; its users are the active ones.
        serve_date: The day the recommendations are meant for.
        model_version: Of the checkpoint.
        filter_seen: Leave out items of the history.
        device: Where it runs.
        on_batch: Called with the users served and their total after every batch.

    Returns:
        `schema.RECOMMENDATIONS`, ordered by user and rank.
    """
    recommender = Recommender.load(bundle, device=device)
    ids, model = recommender.semantic_ids, recommender.model
    users, history = load_serving_histories(
        session_dataset, ids, history_length=model.history_length
    )
    seen = history.numpy().astype(np.int64)
    lists = recommender.rank(
        seen, model.session_items, exclude=seen if filter_seen else None, on_batch=on_batch
    )
    return _table(
        users,
        lists,
        ids,
        serve_date=serve_date,
        model_version=model_version,
    )


def recommend_popular(
    baselines: FittedBaselines,
    semantic_ids: SemanticIds,
    session_dataset: Path,
    *,
    history_length: int,
    session_items: int,
    serve_date: date,
    filter_seen: bool,
) -> pa.Table:
    """Recommendations while there is no champion: the most watched items, named as such.

    Args:
        baselines: The day's.
        semantic_ids: The day's.
        session_dataset: Directory of the artifact.
        history_length: n, items of a history.
        session_items: M.
        serve_date: The day the recommendations are meant for.
        filter_seen: Leave out items of the history.

    Returns:
        `schema.RECOMMENDATIONS` with `model_version` "popularity"; the score is the log of the
        item's share of what was watched, the reward NaN.
    """
    users, history = load_serving_histories(
        session_dataset, semantic_ids, history_length=history_length
    )
    seen = history.numpy()
    lists = baselines.popularity.rank(seen, session_items, exclude=seen if filter_seen else None)
    return _table(
        users,
        lists,
        semantic_ids,
        serve_date=serve_date,
        model_version=POPULARITY,
    )


@dataclass(frozen=True)
class ServingAudit:
    """What is wrong with a table of recommendations; nothing when all counts are zero.

    Attributes:
        users: Users that got something.
        unserved_users: Active users without a full session.
        repeats: Rows that repeat an item of the same user.
        unknown_items: Rows whose item is not in the catalogue.
    """

    users: int
    unserved_users: int
    repeats: int
    unknown_items: int


def audit_recommendations(
    table: pa.Table, session_dataset: Path, semantic_ids: Path, *, session_items: int
) -> ServingAudit:
    """Compare a table of recommendations with the active users and the catalogue.

    Args:
        table: `schema.RECOMMENDATIONS`.
        session_dataset: Its users are the active ones.
        semantic_ids: The catalogue.
        session_items: M; a full session has as many items, or the whole catalogue if it is smaller.
    """
    catalogue = load_semantic_ids(semantic_ids)
    users = table.column("user_id").combine_chunks().dictionary_encode()
    item = catalogue.index_of(table.column("item_id").combine_chunks())
    user = users.indices.to_numpy().astype(np.int64)
    known = item >= 0
    different = np.unique(user[known] * len(catalogue.item_ids) + item[known])
    full = np.bincount(user) >= min(session_items, len(catalogue.item_ids))
    served = users.dictionary
    return ServingAudit(
        users=len(served),
        unserved_users=_missing(active_users(session_dataset), served.filter(pa.array(full))),
        repeats=int(known.sum()) - len(different),
        unknown_items=int((~known).sum()),
    )


def _missing(wanted: pa.Array, there: pa.Array) -> int:
    """How many of the wanted values are missing."""
    return len(wanted) - (pc.sum(pc.is_in(wanted, value_set=there)).as_py() or 0)


def _table(
    users: np.ndarray,
    lists: RankedLists,
    semantic_ids: SemanticIds,
    *,
    serve_date: date,
    model_version: str,
) -> pa.Table:
    """A row per listed item; the reward is NaN without a reward model."""
    user, place = np.nonzero(lists.items >= 0)
    rows = len(user)
    rewards = np.full(lists.items.shape, np.nan) if lists.rewards is None else lists.rewards
    columns = {
        "user_id": pa.array(users[user], pa.string()),
        "serve_date": pa.array([serve_date], pa.date32()).take(pa.array(np.zeros(rows, np.int64))),
        "rank": (place + 1).astype(np.int32),
        "item_id": pa.array(semantic_ids.item_ids[lists.items[user, place]], pa.string()),
        "score": lists.scores[user, place].astype(np.float64),
        "reward": pa.array(rewards[user, place], from_pandas=False),
        "model_version": pa.repeat(model_version, rows),
        "tokenizer_version": pa.repeat(semantic_ids.tokenizer_version, rows),
    }
    return pa.table(columns, schema=RECOMMENDATIONS)
