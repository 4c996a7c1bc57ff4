"""Blocks with a planted preference: a session is liked as far as its topics match the history's."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from onerec.config.feedback import WATCH_SECONDS, WATCH_SHARE, Signal
from onerec.reward.boosting import Boosting, fit_booster
from onerec.session_dataset.item_attributes import ItemAttributes
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


@dataclasses.dataclass(frozen=True)
class PlantedLog:
    """Stands for an `ExposureLog` that knows how good the items are, and of users the place."""

    attributes: ItemAttributes
    good: np.ndarray
    user_ids: np.ndarray
    item_fact_names = ("good",)
    user_fact_names = ("place",)

    def item_facts(self, day: np.datetime64, counted: np.ndarray) -> np.ndarray:
        return self.good[:, None].astype(np.float32)

    def facts_of(self, blocks: RewardBlocks, counted: np.ndarray) -> tuple[Tensor, Tensor]:
        of_items = torch.from_numpy(self.good[blocks.items.numpy()][..., None]).float()
        return of_items, blocks.place[:, None].float()


def watched_blocks(topics: Tensor, rows: int, seed: int) -> RewardBlocks:
    """`planted_blocks` with a log and facts; watched as far as items are good, which is a fact."""
    of_world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    good = of_world.random(len(topics))
    durations = of_world.choice([10.0, 40.0], len(topics))
    attributes = ItemAttributes(durations, *np.full((2, len(topics)), -1))
    blocks = planted_blocks(topics, rows, seed)
    items = blocks.items.numpy()
    share = np.clip(good[items] + 0.2 * rng.standard_normal(items.shape), 0, 1)
    seconds = share * durations[items]
    labels = torch.from_numpy(np.stack([seconds.mean(1), share.mean(1)], -1)).float()
    signals = (*blocks.signals, WATCH_SECONDS, WATCH_SHARE)
    log = PlantedLog(attributes, good, blocks.user_ids)
    of_items, of_users = log.facts_of(blocks, np.ones(len(blocks.user_ids), dtype=bool))
    return dataclasses.replace(
        blocks,
        watch_seconds=torch.from_numpy(seconds).float(),
        labels=torch.cat([blocks.labels, labels], 1),
        thresholds=dataclasses.replace(blocks.thresholds, signals=signals),
        item_facts=of_items,
        user_facts=of_users,
        log=log,  # pyright: ignore
    )


def planted_trees(signals: tuple[Signal, ...], *, num_facts: int) -> Boosting:
    """Trees of noise that count a half for the first signal and nothing for the others."""
    rng = np.random.default_rng(0)
    table, labels = rng.standard_normal((400, num_facts)), rng.integers(0, 2, 400)
    booster = fit_booster(signals[0], (table, labels), (table[:0], labels[:0]), seed=0)
    nothing = len(signals) - 1
    return Boosting(signals, (0.5, *[0.0] * nothing), (booster, *[None] * nothing))
