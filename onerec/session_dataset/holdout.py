"""Users held out of the newest days, for whom the validation day stays unseen.

The last phase of a training learns the validation day, so models that start from its weights can no
longer be validated on that day. A share of the users, chosen by a hash of the id, is therefore left
out of that phase; later decisions (the gate of an alignment round) are measured on these users.
"""

import dataclasses
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from onerec.artifacts import MANIFEST, read_json
from onerec.catalogue import Catalogue
from onerec.config import WindowConfig
from onerec.session_dataset.newest_watches import split_day
from onerec.session_dataset.splits import LEARNED, split_users
from onerec.session_dataset.user_sequences import UserSequences, load_user_sequences

SEED = 20_220_504
"""Seed of the hash; differs from the seeds that divide users between the reward models."""


def held_out_users(directory: Path, user_ids: np.ndarray) -> np.ndarray:
    """Which users are held out of the newest days.

    Args:
        directory: Files of a `session_dataset` artifact; its manifest has the share
            (`WindowConfig.holdout_user_share`), files without a manifest have the default one.
        user_ids: (U,) ids.

    Returns:
        (U,) bool; the same for a user on every day.
    """
    manifest = directory / MANIFEST
    built_with = read_json(manifest)["config"].get("window", {}) if manifest.exists() else {}
    share = built_with.get("holdout_user_share", WindowConfig().holdout_user_share)
    return split_users(user_ids, share, SEED)


def load_newest_sequences(
    directory: Path, catalogue: Catalogue, *, days: int, splits: Sequence[str] = LEARNED
) -> tuple[UserSequences, date]:
    """Sequences for the last phase of a training: everything before the test day, except what the
    held-out users did on the validation day.

    Args:
        directory: Files of a `session_dataset` artifact; `test` is never read.
        catalogue: Items it does not know are dropped.
        days: Number of the newest days.
        splits: Splits to read; `("train",)` ends the day before the validation day.

    Returns:
        The sequences, older days included, which are the histories; and the first of the newest
        days.
    """
    sequences = load_user_sequences(directory, catalogue, splits=splits)
    known = sequences.day[~np.isnat(sequences.day)]
    last_day = known.max() if len(known) else np.datetime64(0, "D")
    kept = np.ones(len(sequences.user), dtype=bool)
    valid_day = split_day(directory, "valid") if "valid" in splits else None
    if valid_day is not None:
        last_day = np.datetime64(valid_day, "D")  # though nobody may have watched anything on it
        held_out = held_out_users(directory, sequences.user_ids)
        kept = ~(held_out[sequences.user] & (sequences.day == last_day))
    learned = dataclasses.replace(
        sequences,
        user=sequences.user[kept],
        item=sequences.item[kept],
        day=sequences.day[kept],
    )
    return learned, last_day.astype(date) - timedelta(days=days - 1)
