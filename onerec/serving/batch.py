"""Batch inference: tomorrow's recommendation list for every active user.

Histories include the newest day, because serving may use all data and is not evaluated on that day.
Items of a user's history are left out where `decoding.filter_seen` is set.

Shapes: U users, H history items.
"""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onerec.ranked_lists import RankedLists
from onerec.schema import RECOMMENDATIONS
from onerec.serving.bundle import load_bundle
from onerec.serving.recommender import Recommender
from onerec.serving.simple_recommender import SimpleRecommender
from onerec.session_dataset.histories import active_users, load_serving_histories
from onerec.session_dataset.padding import distinct
from onerec.session_dataset.user_attributes import (
    load_user_attributes,
    split_attributes,
    with_attributes,
)
from onerec.shards import ShardFunction, ShardPool, arrays_of, columns_of, map_shards
from onerec.tokenizer.semantic_ids import SemanticIds, load_semantic_ids


@dataclass(frozen=True)
class Lists:
    """What the recommendation lists are made for, and how long they are.

    Attributes:
        serve_date: The day the recommendations are meant for.
        model_version: Of the checkpoint, or the name of a simple system.
        list_length: Items per list.
    """

    serve_date: date
    model_version: str
    list_length: int


def recommend_to_all(
    bundle: Path,
    session_dataset: Path,
    wanted: Lists,
    *,
    device: str = "cpu",
    pool: ShardPool | None = None,
) -> pa.Table:
    """Make the list of every user of the dataset; it equals what the bundle's `recommend` returns.

    Args:
        bundle: What `prepare_bundle` wrote.
        session_dataset: Directory of the artifact; its users are the active ones.
        wanted: Serving day, model version and length of the lists.
        device: Torch device that the model runs on.
        pool: How users are spread over workers; this process alone if not given.

    Returns:
        `schema.RECOMMENDATIONS`, ordered by user and rank.
    """
    pool = pool or ShardPool()
    on_ray = pool.engine == "ray"
    recommender = load_bundle(bundle, device="cpu" if on_ray else device)
    users, history = load_serving_histories(
        session_dataset, recommender.semantic_ids, history_length=recommender.history_length
    )
    table = columns_of({"history": history.numpy().astype(np.int64)})
    table = table.append_column("user_id", pa.array(users, pa.string()))
    table = with_attributes(table, load_user_attributes(session_dataset, users))
    load = partial(load_list_maker, bundle, device, wanted)
    if not on_ray:
        load = partial(_list_maker, recommender, wanted)
    batch = recommender.config.batch_size
    made = list(map_shards(load, table, pool, multiple_of=batch))
    return pa.concat_tables(made) if made else RECOMMENDATIONS.empty_table()


def load_list_maker(bundle: Path, device: str, wanted: Lists) -> ShardFunction:
    """Load the bundle in a worker; returns users with histories -> `schema.RECOMMENDATIONS`."""
    return _list_maker(load_bundle(bundle, device=device), wanted)


def _list_maker(recommender: Recommender | SimpleRecommender, wanted: Lists) -> ShardFunction:
    ids = recommender.semantic_ids
    candidates = ids.candidates(wanted.serve_date)

    def lists_of(users: pa.Table) -> pa.Table:
        users, attributes = split_attributes(users)
        seen = arrays_of(users.select(["history"]))["history"]
        lists = recommender.rank(
            seen,
            wanted.list_length,
            exclude=seen if recommender.config.filter_seen else None,
            candidates=candidates,
            attributes=attributes,
        )
        names = users.column("user_id").to_numpy()
        return _table(
            names, lists, ids, serve_date=wanted.serve_date, model_version=wanted.model_version
        )

    return lists_of


@dataclass(frozen=True)
class ServingAudit:
    """Audit of a table of recommendations; it is valid when all counts but `users` are zero.

    Attributes:
        users: Users with at least one recommendation.
        unserved_users: Active users without a full list.
        repeats: Rows that repeat an item of the same user.
        unknown_items: Rows whose item may not be recommended on the serving day.
    """

    users: int
    unserved_users: int
    repeats: int
    unknown_items: int


def audit_recommendations(
    table: pa.Table,
    session_dataset: Path,
    semantic_ids: Path,
    *,
    list_length: int,
    history_length: int,
    serve_date: date,
) -> ServingAudit:
    """Compare a table of recommendations with the active users and the catalogue.

    Args:
        table: `schema.RECOMMENDATIONS`.
        session_dataset: Its users are the active ones.
        semantic_ids: The catalogue.
        serve_date: The day they are meant for; items that are no candidates on it are unknown.
        list_length: Items of a full list; fewer suffice where the catalogue without the history
            is smaller.
        history_length: n, items of a history.
    """
    catalogue = load_semantic_ids(semantic_ids)
    users = table.column("user_id").combine_chunks().dictionary_encode()
    item = catalogue.index_of(table.column("item_id").combine_chunks())
    user = users.indices.to_numpy().astype(np.int64)
    candidates = catalogue.candidates(serve_date)
    known = (item >= 0) & candidates[item]
    different = distinct(user[known] * len(catalogue.item_ids) + item[known])
    full = np.bincount(user) >= min(list_length, int(candidates.sum()) - history_length)
    served = users.dictionary
    return ServingAudit(
        users=len(served),
        unserved_users=_missing(active_users(session_dataset), served.filter(pa.array(full))),
        repeats=int(known.sum()) - len(different),
        unknown_items=int((~known).sum()),
    )


def _missing(wanted: pa.Array, there: pa.Array) -> int:
    """Number of wanted values that are not there."""
    return len(wanted) - (pc.sum(pc.is_in(wanted, value_set=there)).as_py() or 0)


def _table(
    users: np.ndarray,
    lists: RankedLists,
    semantic_ids: SemanticIds,
    *,
    serve_date: date,
    model_version: str,
) -> pa.Table:
    """A row per listed item; the reward is null where no reward model scored it."""
    user, place = np.nonzero(lists.items >= 0)
    rows = len(user)
    rewards = np.full(lists.items.shape, np.nan) if lists.rewards is None else lists.rewards
    columns = {
        "user_id": pa.array(users[user], pa.string()),
        "serve_date": pa.array([serve_date], pa.date32()).take(pa.array(np.zeros(rows, np.int64))),
        "rank": (place + 1).astype(np.int32),
        "item_id": pa.array(semantic_ids.item_ids[lists.items[user, place]], pa.string()),
        "score": lists.scores[user, place].astype(np.float64),
        "reward": pa.array(rewards[user, place], pa.float64(), from_pandas=True),  # NaN is null
        "model_version": pa.repeat(model_version, rows),
        "tokenizer_version": pa.repeat(semantic_ids.tokenizer_version, rows),
    }
    return pa.table(columns, schema=RECOMMENDATIONS)
