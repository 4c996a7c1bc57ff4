"""Preference data of a round, pairs or groups as its method needs: making, writing, reading.

Shapes: P rows, G sessions of a row, H history items, M items of a session.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from onerec.alignment.candidates import OnBatch, ScoreCandidates, scored_candidates
from onerec.alignment.groups import PreferenceGroups, make_groups
from onerec.alignment.pairs import (
    PreferencePairs,
    id_lists,
    load_pairs,
    make_pairs,
    padded_items,
    save_pairs,
)
from onerec.artifacts import read_json, write_json
from onerec.config import GROUP_METHODS, AlignmentConfig
from onerec.evaluation.generators import SessionGenerator
from onerec.reward.ensemble import RewardEnsemble
from onerec.schema import PREFERENCE_GROUPS
from onerec.session_dataset.generator_sessions import SessionTensors
from onerec.tokenizer.semantic_ids import SemanticIds

Preferences = PreferencePairs | PreferenceGroups


def make_preferences(
    generator: SessionGenerator,
    reward: RewardEnsemble,
    contexts: SessionTensors,
    alignment: AlignmentConfig,
    *,
    on_batch: OnBatch = lambda done, total: None,
    score: ScoreCandidates = scored_candidates,
) -> Preferences:
    """Generated sessions as `alignment.method` compares them; see `make_pairs`, `make_groups`."""
    several = alignment.method in (*GROUP_METHODS, "sdpo")
    make = make_groups if several else make_pairs
    return make(generator, reward, contexts, alignment, on_batch=on_batch, score=score)


def save_preferences(preferences: Preferences, item_ids: np.ndarray, directory: Path) -> None:
    """Write pairs (`save_pairs`), or `groups.parquet` (`schema.PREFERENCE_GROUPS`) and stats.

    Args:
        preferences: Pairs or groups.
        item_ids: (N,) ids of the item indices.
        directory: Where to.
    """
    if isinstance(preferences, PreferencePairs):
        save_pairs(preferences, item_ids, directory)
        return
    groups, (num, size) = preferences, preferences.rewards.shape
    offsets = np.arange(num + 1, dtype=np.int32) * size

    def lists(values: pa.Array) -> pa.ListArray:
        return pa.ListArray.from_arrays(offsets, values)

    columns = [
        pa.array(groups.user_ids.tolist(), pa.string()),
        id_lists(groups.history, item_ids),
        lists(id_lists(groups.sessions.flatten(0, 1), item_ids)),
        lists(pa.array(groups.rewards.double().flatten().numpy())),
        lists(pa.array(groups.logp.double().flatten().numpy())),
        id_lists(groups.targets, item_ids),
    ]
    table = pa.Table.from_arrays(columns, schema=PREFERENCE_GROUPS)
    pq.write_table(table, directory / "groups.parquet")
    write_json(directory / "stats.json", groups.stats)


def load_preferences(
    directory: Path, semantic_ids: SemanticIds, *, history_length: int, session_items: int
) -> Preferences:
    """Read what `save_preferences` wrote, against the semantic IDs it was made with.

    Raises:
        ValueError: An item is not in the catalogue.
    """
    widths = {"history_length": history_length, "session_items": session_items}
    if not (directory / "groups.parquet").exists():
        return load_pairs(directory, semantic_ids, **widths)
    table = pq.read_table(directory / "groups.parquet", schema=PREFERENCE_GROUPS)
    stats = read_json(directory / "stats.json")
    shape = (table.num_rows, stats["group_size"])

    def items(lists: Any, width: int, name: str) -> Tensor:
        return padded_items(lists, semantic_ids, width, name)

    def column(name: str) -> Any:
        return table.column(name).combine_chunks()

    def numbers(name: str) -> Tensor:
        return torch.tensor(column(name).flatten().to_numpy()).reshape(shape)

    sessions = items(column("session_item_ids").flatten(), session_items, "session_item_ids")
    return PreferenceGroups(
        user_ids=np.asarray(table.column("user_id").to_pylist(), dtype=object),
        history=items(column("history_item_ids"), history_length, "history_item_ids"),
        sessions=sessions.reshape(*shape, session_items),
        targets=items(column("target_item_ids"), session_items, "target_item_ids"),
        rewards=numbers("rewards"),
        logp=numbers("logps"),
        stats=stats,
    )


def in_wrong_order(preferences: Preferences) -> int:
    """Pairs whose chosen session has no more reward than a rejected one.

    Groups of draws have no order: theirs count when *all* of them have one reward throughout, so
    that nothing can be learned.
    """
    rewards = preferences.rewards
    if isinstance(preferences, PreferencePairs) or preferences.stats["best_first"]:
        return int((rewards[:, :1] <= rewards[:, 1:]).any(1).sum())
    alike = rewards.amax(1) == rewards.amin(1) if len(rewards) else torch.zeros(0)
    return len(rewards) if bool(alike.all()) else 0


def check_method(preferences: Preferences, config: AlignmentConfig) -> None:
    """Raise `ValueError` unless the method can learn from these preferences."""
    wanted = (
        "groups of draws"
        if config.method in GROUP_METHODS
        else "a best and several worse sessions"
        if config.method == "sdpo"
        else "pairs"
    )
    if isinstance(preferences, PreferencePairs):
        found = "pairs"
    elif preferences.stats["best_first"]:
        found = "a best and several worse sessions"
    else:
        found = "groups of draws"
    if found != wanted:
        raise ValueError(
            f"method={config.method!r} learns from {wanted}, but preference_pairs holds {found}: "
            f"materialise it again with method={config.method!r}"
        )
