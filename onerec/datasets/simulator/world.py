"""The simulated app's users and items: who likes what, and what there is to watch.

Users and items are drawn in blocks, one for the beginning and one per day, each from its own seed;
a block is a few dozen rows, so any day's population costs milliseconds and needs no log.
"""

# pyarrow.compute makes its functions at import, out of sight of a type checker:
# pyright: reportAttributeAccessIssue=false

from dataclasses import dataclass, fields
from functools import cache
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onerec.datasets.simulator.config import SimulatorConfig
from onerec.datasets.simulator.vocabulary import ENDINGS, OPENERS, TOPICS

NUM_TOPICS = len(TOPICS)
SUBTOPICS_PER_TOPIC = 4
STYLE_DIM = 6
TOPIC_POPULARITY_EXPONENT = 0.6

Array = np.ndarray
Block = TypeVar("Block", "SimulatedUsers", "SimulatedItems")


def generator(config: SimulatorConfig, stream: str, day: int) -> np.random.Generator:
    """Random numbers that depend on the seed, a named purpose and a day number only."""
    purpose = int.from_bytes(stream.encode(), "little")
    return np.random.default_rng([config.seed, purpose, day + 1])  # the backlog is day -1


def hash_uniform(*parts: Array | int) -> Array:
    """Uniform numbers in [0, 1) that are a pure function of broadcastable non-negative integers."""
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = (state ^ np.asarray(part).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)).astype(np.float64) / 2.0**53


@dataclass(frozen=True)
class SimulatedUsers:
    """U users, ordered by the day they joined; every array's first axis is U.

    Attributes:
        joined: Day number of the first day (0 for those already there).
        left: Day number from which the user is gone.
        activity: Probability of opening the app on a day.
        peak_hour: Hour of the day around which sessions lie.
        patience: How readily anything at all is watched, in logits.
        generosity: How readily feedback is given, in logits.
        topic_base: (U, topics) standing interest, log scale.
        topic_swing, topic_period, topic_phase: (U, topics) slow waves of the interest.
        subtopic: (U, topics, subtopics) taste within a topic, in (0, 1], best one 1.
        style: (U, style) taste that titles do not show.
        fad_length: Days a passing interest lasts.
    """

    joined: Array
    left: Array
    activity: Array
    peak_hour: Array
    patience: Array
    generosity: Array
    topic_base: Array
    topic_swing: Array
    topic_period: Array
    topic_phase: Array
    subtopic: Array
    style: Array
    fad_length: Array

    def __len__(self) -> int:
        return len(self.joined)


@dataclass(frozen=True)
class SimulatedItems:
    """N items, ordered by publication; every array's first axis is N.

    Attributes:
        published: Time of publication in days since the first day (negative: before it).
        topic, subtopic: What it is about.
        quality: How good it is for everybody, standard normal in the mean.
        duration: Seconds.
        style: (N, style) what titles do not show.
        author: Number of the author, unique across topics.
        lasting: Days in which the platform's interest in it falls to 1/e.
        seen_quality: The platform's noisy idea of its quality.
        opener, ending: Title parts.
        has_category: Whether the uploader filled in the category.
    """

    published: Array
    topic: Array
    subtopic: Array
    quality: Array
    duration: Array
    style: Array
    author: Array
    lasting: Array
    seen_quality: Array
    opener: Array
    ending: Array
    has_category: Array

    def __len__(self) -> int:
        return len(self.published)


def _join(blocks: list[Block]) -> Block:
    kind = type(blocks[0])
    names = [f.name for f in fields(kind)]
    return kind(**{n: np.concatenate([getattr(b, n) for b in blocks]) for n in names})


def _topic_popularity() -> Array:
    weight = (1.0 + np.arange(NUM_TOPICS)) ** -TOPIC_POPULARITY_EXPONENT
    # The vocabulary groups related topics; a fixed shuffle keeps that order out of popularity.
    return np.random.default_rng(1).permutation(weight / weight.sum())


class World:
    """Everybody and everything up to a day.

    Args:
        config: Sizes and seed.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        self.topic_popularity = _topic_popularity()
        rng = generator(config, "authors", -1)
        shape = (NUM_TOPICS, config.authors_per_topic)
        self.author_number = rng.permutation(NUM_TOPICS * config.authors_per_topic).reshape(shape)
        self.author_quality = rng.normal(0.0, 0.6, shape)
        self.author_style = rng.normal(0.0, 0.8, (*shape, STYLE_DIM))
        self._user_block = cache(self._draw_users)
        self._item_block = cache(self._draw_items)

    def users(self, day: int) -> SimulatedUsers:
        """Everybody who joined by the end of a day (counted from the first one)."""
        return _join([self._user_block(d) for d in range(-1, day + 1)])

    def items(self, day: int) -> SimulatedItems:
        """Everything published by the end of a day."""
        return _join([self._item_block(d) for d in range(-1, day + 1)])

    def _draw_users(self, day: int) -> SimulatedUsers:
        config = self.config
        n = config.initial_users if day < 0 else config.new_users_per_day
        rng = generator(config, "users", day)
        shape = (n, NUM_TOPICS)
        # Two to six topics each, drawn by popularity without replacement (Gumbel top-k).
        rank = np.argsort(
            np.argsort(-(np.log(self.topic_popularity) + rng.gumbel(size=shape)), axis=1), axis=1
        )
        wanted = 2 + rng.binomial(4, 0.4, n)
        strength = np.where(rank < wanted[:, None], np.exp(-0.35 * rank), 0.03)
        subtopic = np.exp(1.2 * rng.normal(size=(*shape, SUBTOPICS_PER_TOPIC)))
        share = config.activity
        return SimulatedUsers(
            joined=np.full(n, max(day, 0)),
            left=max(day, 0) + 1 + rng.exponential(config.user_lifetime_days, n),
            activity=rng.beta(0.9, 0.9 * (1 - share) / share, n),
            peak_hour=np.where(
                rng.random(n) < 0.7, rng.normal(20.0, 2.0, n), rng.uniform(6, 18, n)
            ),
            patience=rng.normal(0.0, 0.4, n),
            generosity=rng.normal(0.0, 0.8, n),
            topic_base=np.log(strength),
            topic_swing=0.7 * rng.random(shape),
            topic_period=rng.uniform(20.0, 80.0, shape),
            topic_phase=rng.uniform(0.0, 2 * np.pi, shape),
            subtopic=subtopic / subtopic.max(axis=2, keepdims=True),
            style=rng.normal(size=(n, STYLE_DIM)),
            fad_length=rng.uniform(8.0, 24.0, n),
        )

    def _draw_items(self, day: int) -> SimulatedItems:
        config = self.config
        n = config.initial_items if day < 0 else config.new_items_per_day
        rng = generator(config, "items", day)
        published = (
            -np.sort(rng.exponential(45.0, n))[::-1] if day < 0 else day + np.sort(rng.random(n))
        )
        topic = rng.choice(NUM_TOPICS, n, p=self.topic_popularity)
        busy = (1.0 + np.arange(config.authors_per_topic)) ** -0.8
        author = rng.choice(config.authors_per_topic, n, p=busy / busy.sum())
        quality = self.author_quality[topic, author] + rng.normal(0.0, 0.8, n)
        return SimulatedItems(
            published=published,
            topic=topic,
            subtopic=rng.integers(0, SUBTOPICS_PER_TOPIC, n),
            quality=quality,
            duration=np.round(np.clip(rng.lognormal(np.log(24.0), 0.7, n), 5.0, 240.0), 1),
            style=self.author_style[topic, author] + 0.6 * rng.normal(size=(n, STYLE_DIM)),
            author=self.author_number[topic, author],
            lasting=np.where(rng.random(n) < 0.15, 60.0, rng.uniform(2.0, 9.0, n)),
            seen_quality=quality + rng.normal(0.0, 0.5, n),
            opener=rng.integers(0, len(OPENERS), n),
            ending=rng.integers(0, len(ENDINGS), n),
            has_category=rng.random(n) < 0.88,
        )

    def interests(self, users: SimulatedUsers, rows: Array, day: float) -> Array:
        """Interest of some users in every topic on a day, (len(rows), topics), strongest one 1.

        A slow wave per topic, and one passing fad at a time that swells and fades again.
        """
        wave = np.sin(2 * np.pi * day / users.topic_period[rows] + users.topic_phase[rows])
        interest = np.exp(users.topic_base[rows] + users.topic_swing[rows] * wave)
        progress = day / users.fad_length[rows] + hash_uniform(self.config.seed, 1, rows)
        fad = hash_uniform(self.config.seed, 2, rows, np.floor(progress).astype(np.int64) + 1_000)
        swell = 1.0 - np.abs(2.0 * (progress % 1.0) - 1.0)
        fad_topic = np.searchsorted(np.cumsum(self.topic_popularity), fad).clip(max=NUM_TOPICS - 1)
        at = np.arange(len(rows))
        interest[at, fad_topic] = np.maximum(interest[at, fad_topic], 0.8 * swell)
        return interest / interest.max(axis=1, keepdims=True)


def item_ids(numbers: Array) -> pa.Array:
    """Ids of items by their row."""
    return _ids("v", numbers)


def user_ids(numbers: Array) -> pa.Array:
    """Ids of users by their row."""
    return _ids("u", numbers)


def author_ids(numbers: Array) -> pa.Array:
    """Ids of authors by their number."""
    return _ids("a", numbers)


def numbers(ids: Any) -> Array:
    """The inverse of `item_ids` and `user_ids`: the row of each id."""
    return pc.cast(pc.utf8_slice_codeunits(pa.array(ids, pa.string()), 1), pa.int64()).to_numpy()


def _ids(prefix: str, numbers: Array) -> pa.Array:
    digits = pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), width=6, padding="0")
    return pc.binary_join_element_wise(prefix, digits, "")


def titles(items: SimulatedItems) -> pa.Array:
    """A title per item: an opener, its subtopic, an ending."""
    phrases_of_topics = [phrase for phrases in TOPICS.values() for phrase in phrases]
    subtopic = pa.array(items.topic * SUBTOPICS_PER_TOPIC + items.subtopic)
    parts = (
        pa.array(OPENERS).take(pa.array(items.opener)),
        pa.array(phrases_of_topics).take(subtopic),
        pa.array(ENDINGS).take(pa.array(items.ending)),
    )
    return pc.binary_join_element_wise(*parts, " ")


def categories(items: SimulatedItems) -> pa.Array:
    """Topic name per item, null where the uploader left it out."""
    return pa.array(list(TOPICS)).take(pa.array(items.topic, mask=~items.has_category))
