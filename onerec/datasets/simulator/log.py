"""A day of the simulated log: visits, what an imperfect policy shows, and the users' feedback."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from onerec.datasets.simulator import behaviour
from onerec.datasets.simulator.behaviour import Draws
from onerec.datasets.simulator.world import (
    STYLE_DIM,
    Array,
    SimulatedItems,
    SimulatedUsers,
    World,
    generator,
    hash_uniform,
    item_ids,
    user_ids,
)
from onerec.schema import FEEDBACK_FLAGS

MAX_SESSIONS = 6
SHORTEST, LONGEST = 4, 20
LAG_DAYS = 4.0
"""Days of delay with which the logging policy sees interests."""
SWIPE_SECONDS = 0.8
PAUSE_HOURS = 0.75
LEAVE, LEAVE_AFTER_SWIPE = 0.02, 0.06
WEEKEND = 1.15
SECONDS_PER_DAY = 86_400
BLOCK_PAIRS = 1 << 23
"""(User, item) pairs weighed at once: bounds memory, however large the app."""


@dataclass(frozen=True)
class Visits:
    """S sessions of the A users of a day, ordered by user, then time.

    Attributes:
        users: (A,) rows of the users.
        visitor: (S,) index into `users`.
        number: (S,) 0 for a user's first session.
        hour: (S,) planned start; a session waits for the one before it to end.
        length: (S,) exposures planned.
    """

    users: Array
    visitor: Array
    number: Array
    hour: Array
    length: Array

    def of(self, users: Array) -> "Visits":
        """The visits of some of the users, a subset of `users`."""
        mine = np.isin(self.users, users)
        kept = mine[self.visitor]
        row = np.cumsum(mine) - 1
        return Visits(
            self.users[mine],
            row[self.visitor[kept]],
            self.number[kept],
            self.hour[kept],
            self.length[kept],
        )


@dataclass(frozen=True)
class Played:
    """What happened with E planned exposures, in session order.

    Attributes:
        visitor: (E,) index into the visits' users.
        session: (E,) row of the visits.
        position: (E,) place in the session.
        second: (E,) second of the day.
        watch: (E,) seconds watched.
        stays: (E,) booleans: not swiped away at once.
        flags: (E,) booleans by name of the feedback.
        kept: (E,) booleans: took place; the user had not left, there was something to show.
    """

    visitor: Array
    session: Array
    position: Array
    second: Array
    watch: Array
    stays: Array
    flags: dict[str, Array]
    kept: Array


def day_events(
    world: World, users: SimulatedUsers, items: SimulatedItems, day: int, weekday: int
) -> pa.Table:
    """Every exposure of a day.

    Args:
        world: The app.
        users: `world.users(day)`.
        items: `world.items(day)`.
        day: Days since the first one.
        weekday: 0 is Monday.

    Returns:
        Columns of `schema.EVENTS` without `event_time`'s date: times are seconds of the day in
        `second`, ordered by it.
    """
    rng = generator(world.config, "log", day)
    visits = draw_visits(rng, world, users, day, weekday)
    shown, explored, valid = choose_items(rng, world, users, items, visits, day)
    played = play(rng, world, users, items, visits, day, shown, valid)
    order = np.lexsort((played.position, played.session, played.second))
    order = order[played.kept[order]]
    columns = {
        "user_id": user_ids(visits.users[played.visitor][order]),
        "item_id": item_ids(shown[order]),
        "second": pa.array(np.round(played.second[order], 3)),
        "watch_seconds": pa.array(np.round(played.watch[order], 2)),
        **{name: pa.array(played.flags[name][order]) for name in FEEDBACK_FLAGS},
        "surface": pa.array(["feed", "explore"]).take(pa.array(explored[order].astype(np.int8))),
    }
    return pa.table(columns)


def play(
    rng: Draws,
    world: World,
    users: SimulatedUsers,
    items: SimulatedItems,
    visits: Visits,
    day: int,
    shown: Array,
    valid: Array,
) -> Played:
    """What users do with what they are shown, whichever policy chose it.

    Args:
        rng: Draws their behaviour.
        world: The app.
        users: `world.users(day)`.
        items: `world.items(day)`.
        visits: Who comes.
        day: Days since the first one.
        shown: (E,) items of the planned exposures, in session order.
        valid: (E,) whether there is anything to show.
    """
    session, starts, position = planned_exposures(visits)
    visitor = visits.visitor[session]
    affinity = _affinity_of_shown(world, users, visits.users, items, day, visitor, shown)
    watch, stays = behaviour.draw_watch(rng, affinity, items.duration[shown], position)
    flags = behaviour.draw_feedback(rng, affinity, stays, users.generosity[visits.users][visitor])
    kept = valid & (position <= _last_position(rng, stays, position, starts))
    second = _times(rng, visits, watch * kept, kept, session, starts)
    kept &= second < SECONDS_PER_DAY
    return Played(visitor, session, position, second, watch, stays, flags, kept)


def planned_exposures(visits: Visits) -> tuple[Array, Array, Array]:
    """Session of each planned exposure (E,), first exposure of each session (S,), position (E,)."""
    session = np.repeat(np.arange(len(visits.length)), visits.length)
    starts = np.cumsum(visits.length) - visits.length
    return session, starts, np.arange(len(session)) - starts[session]


def draw_visits(
    rng: np.random.Generator, world: World, users: SimulatedUsers, day: int, weekday: int
) -> Visits:
    """Who opens the app, how often, when, and for how long at most."""
    comes = who_comes(rng.random(len(users)), users, day, weekday)
    return plan_visits(rng, users, np.flatnonzero(comes))


def who_comes(
    draws: Array, users: SimulatedUsers, day: int, weekday: int, eagerness: Array | float = 1.0
) -> Array:
    """(U,) booleans: who opens the app on a day.

    Args:
        draws: (U,) uniform random numbers.
        users: Everybody.
        day: Days since the first one.
        weekday: 0 is Monday.
        eagerness: Factor of the users' activity, (U,) or one for all.
    """
    alive = (users.joined <= day) & (users.left > day)
    chance = users.activity * (WEEKEND if weekday >= 5 else 1.0) * eagerness
    comes = draws < chance
    comes |= (users.joined == day) & (day > 0)  # on the day of joining everybody comes
    return alive & comes


def plan_visits(rng: np.random.Generator, users: SimulatedUsers, rows: Array) -> Visits:
    """How often users come on a day, when, and for how long at most."""
    count = 1 + rng.poisson(0.4 + 1.6 * users.activity[rows])
    count = count.clip(max=MAX_SESSIONS)
    visitor = np.repeat(np.arange(len(rows)), count)
    number = np.arange(len(visitor)) - np.repeat(np.cumsum(count) - count, count)
    hour = (rng.normal(users.peak_hour[rows][visitor], 3.5)) % 24.0
    hour = hour[np.lexsort((hour, visitor))]
    length = (SHORTEST + rng.geometric(0.13, len(visitor)) - 1).clip(max=LONGEST)
    return Visits(rows, visitor, number, hour, length)


def choose_items(
    rng: np.random.Generator,
    world: World,
    users: SimulatedUsers,
    items: SimulatedItems,
    visits: Visits,
    day: int,
) -> tuple[Array, Array, Array]:
    """What the logging policy shows.

    The policy sees interests with a delay, estimates users and quality with errors, prefers popular
    and fresh items, and explores. A (user, item) pair is open only on every `repeat_days`-th day,
    by a hash: no user gets an item twice in a row, and no state is needed.

    Returns:
        For the E planned exposures, in session order: items, whether exploration picked them, and
        whether there was anything left to show.
    """
    owner = np.repeat(visits.visitor, visits.length)
    explored = np.zeros(len(owner), bool)
    first_hour = np.full(len(visits.users), 24.0)
    np.minimum.at(first_hour, visits.visitor, visits.hour)
    shown, valid = np.zeros(len(owner), np.int64), np.zeros(len(owner), bool)
    for block in _user_blocks(len(visits.users), len(items)):
        low, high = np.searchsorted(owner, [block.start, block.stop])
        open_items, wanted, by_chance = _open_items(
            rng, world, users, items, visits.users[block], first_hour[block], day
        )
        explored[low:high] = rng.random(high - low) < world.config.exploration
        for slots, keys in (
            (low + np.flatnonzero(~explored[low:high]), wanted),
            (low + np.flatnonzero(explored[low:high]), by_chance),
        ):
            row = owner[slots] - block.start
            place, valid[slots] = _deal(rng, keys, row)
            shown[slots] = open_items[row, place]
    return shown, explored, valid


def _open_items(
    rng: np.random.Generator,
    world: World,
    users: SimulatedUsers,
    items: SimulatedItems,
    rows: Array,
    first_hour: Array,
    day: int,
) -> tuple[Array, Array, Array]:
    """What may be shown to users today, how much the policy wants to, how exploration ranks it.

    Returns:
        (A, most open items) each: item numbers, and two keys, larger is better and -inf cannot be
        shown. No item has both keys, so that policy and exploration never show the same one.
    """
    config = world.config
    pair = hash_uniform(config.seed, 3, rows[:, None], np.arange(len(items))[None, :])
    pair *= config.repeat_days
    is_open = np.floor(pair, out=pair) == -day % config.repeat_days
    is_open &= items.published[None, :] <= day + first_hour[:, None] / 24.0
    user, item = np.nonzero(is_open)
    count = is_open.sum(1)
    place = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    aside = rng.random(len(user)) < config.exploration
    score = _policy_score(world, users, rows, items, day, user, item)
    score += rng.gumbel(size=len(aside))
    shape = (len(rows), max(int(count.max(initial=0)), 1))
    open_items = np.zeros(shape, np.int64)
    open_items[user, place] = item
    wanted, by_chance = (np.full(shape, -np.inf) for _ in range(2))
    wanted[user, place] = np.where(aside, -np.inf, score)
    by_chance[user, place] = np.where(aside, rng.random(len(aside)), -np.inf)
    return open_items, wanted, by_chance


def _user_blocks(num_users: int, num_items: int) -> Iterator[slice]:
    size = max(1, BLOCK_PAIRS // num_items)
    for low in range(0, num_users, size):
        yield slice(low, min(low + size, num_users))


def _affinity_of_shown(
    world: World,
    users: SimulatedUsers,
    rows: Array,
    items: SimulatedItems,
    day: int,
    visitor: Array,
    shown: Array,
) -> Array:
    """(E,) true affinity of exposures, ordered by visitor."""
    affinity = np.empty(len(shown))
    for block in _user_blocks(len(rows), len(items)):
        low, high = np.searchsorted(visitor, [block.start, block.stop])
        pairs = (visitor[low:high] - block.start, shown[low:high])
        affinity[low:high] = behaviour.affinity(world, users, rows[block], items, day, pairs)
    return affinity


def _deal(rng: np.random.Generator, keys: Array, owner: Array) -> tuple[Array, Array]:
    """Give every slot another item of its owner's best, in any order.

    A feed does not spend its best in the first minute.

    Args:
        rng: Order of the slots.
        keys: (A, N), larger is better, -inf cannot be shown.
        owner: (E,) row of `keys` of each slot.

    Returns:
        (E,) columns of `keys`, and whether there was one left.
    """
    count = np.bincount(owner, minlength=len(keys))
    most = int(min(count.max(initial=1), keys.shape[1]))
    best = np.argpartition(-keys, most - 1, axis=1)[:, :most]
    order = np.argsort(-np.take_along_axis(keys, best, axis=1), axis=1)
    best = np.take_along_axis(best, order, axis=1)
    slots = np.lexsort((rng.random(len(owner)), owner))
    rank = np.empty(len(owner), np.int64)
    rank[slots] = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    shown = best[owner, rank.clip(max=most - 1)]
    return shown, (rank < most) & np.isfinite(keys[owner, shown])


def _policy_score(
    world: World,
    users: SimulatedUsers,
    rows: Array,
    items: SimulatedItems,
    day: int,
    user: Array,
    item: Array,
) -> Array:
    """The policy's score of (user, item) pairs: indices into `rows` and `items`."""
    known = behaviour.taste(world, users, rows, day - LAG_DAYS)
    misjudged = 0.5 * hash_uniform(
        world.config.seed, 4, rows[:, None], np.arange(known.shape[1])[None, :]
    )
    column = items.topic * behaviour.SUBTOPICS_PER_TOPIC + items.subtopic
    style = 0.3 * (users.style[rows] @ items.style.T)[user, item] / np.sqrt(STYLE_DIM)
    age = np.maximum(day - items.published, 0.0)
    fresh = 2.0 * np.exp(-age / items.lasting)
    believed = (4.0 * known + misjudged)[user, column[item]]
    return believed + style + (0.75 * items.seen_quality)[item] + fresh[item]


def _last_position(rng: Draws, stays: Array, position: Array, starts: Array) -> Array:
    """(E,) position at which the exposure's session is left: swiping makes it likelier."""
    chance = np.where(stays, LEAVE, LEAVE_AFTER_SWIPE)
    leaves = (position >= SHORTEST - 1) & (rng.random(len(stays)) < chance)
    last = np.minimum.reduceat(np.where(leaves, position, LONGEST), starts)
    return np.repeat(last, np.diff(np.append(starts, len(position))))


def _times(
    rng: Draws,
    visits: Visits,
    watch: Array,
    kept: Array,
    session: Array,
    starts: Array,
) -> Array:
    """(E,) second of the day: sessions of a user never overlap, exposures follow one another."""
    spent = watch + kept * (SWIPE_SECONDS + rng.exponential(0.7, len(watch)))
    before = np.cumsum(spent) - spent
    offset = before - before[starts][session]
    hours = np.add.reduceat(spent, starts) / 3600.0
    begin = visits.hour.copy()
    for number in range(1, MAX_SESSIONS):
        later = np.flatnonzero(visits.number == number)
        begin[later] = np.maximum(begin[later], begin[later - 1] + hours[later - 1] + PAUSE_HOURS)
    return begin[session] * 3600.0 + offset
