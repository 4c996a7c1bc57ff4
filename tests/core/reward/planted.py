"""Blocks with a planted preference: a session is liked as far as its topics match the history's."""

import numpy as np
import torch
from torch import Tensor

from onerec.session_dataset.reward_blocks import RewardBlocks, RewardThresholds

NUM_TOPICS = 6
NUM_ITEMS = 120
HISTORY = 8
ITEMS = 4


def topics_and_vectors(seed: int = 0, width: int = 16) -> tuple[Tensor, Tensor]:
    """(N,) topics and (N, Dv) unit vectors around their topic's centre."""
    order = torch.Generator().manual_seed(seed)
    topics = torch.arange(NUM_ITEMS) % NUM_TOPICS
    centres = torch.randn(NUM_TOPICS, width, generator=order)
    vectors = centres[topics] + 0.5 * torch.randn(NUM_ITEMS, width, generator=order)
    return topics, torch.nn.functional.normalize(vectors, dim=-1)


def planted_blocks(
    topics: Tensor, rows: int, seed: int, *, num_users: int = 200, num_days: int = 5
) -> RewardBlocks:
    """Users love one topic each: vtr asks for two items of it, ltr for three; wtr is noise."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, num_users, rows)
    loved = user % NUM_TOPICS
    by_topic = np.stack([np.flatnonzero(topics.numpy() == t) for t in range(NUM_TOPICS)])
    history = by_topic[loved[:, None], rng.integers(0, by_topic.shape[1], (rows, HISTORY))]
    items = rng.integers(0, NUM_ITEMS, (rows, ITEMS))
    keen = rng.random((rows, ITEMS)) < 0.4
    matching = by_topic[loved[:, None], rng.integers(0, by_topic.shape[1], (rows, ITEMS))]
    items = np.where(keen, matching, items)
    match = (topics.numpy()[items] == loved[:, None]).sum(1)
    labels = np.stack(
        [
            match + 0.5 * rng.standard_normal(rows) > 1.5,
            match >= 2,
            rng.random(rows) < 0.05,
            match > 2,
        ],
        axis=-1,
    )
    padding = np.arange(HISTORY) >= rng.integers(1, HISTORY + 1, (rows, 1))
    return RewardBlocks(
        user=torch.from_numpy(user),
        user_ids=np.array([f"user-{u:04d}" for u in range(num_users)], dtype=object),
        history=torch.from_numpy(np.where(padding, -1, history).astype(np.int32)),
        items=torch.from_numpy(items.astype(np.int32)),
        watch_seconds=torch.zeros(rows, ITEMS),
        labels=torch.from_numpy(labels.astype(np.float32)),
        session=torch.arange(rows) // 2,
        place=torch.arange(rows) % 2,
        date=np.datetime64("2026-06-01") + np.arange(rows) % num_days,
        started_at=np.datetime64("2026-06-01", "us")
        + (np.arange(rows) % num_days).astype("timedelta64[D]")
        + (np.arange(rows) % 24).astype("timedelta64[h]"),
        thresholds=RewardThresholds(mean_watch_seconds=10.0),
    )
