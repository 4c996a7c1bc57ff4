"""A simulated A/B test: every policy under test sees the same users, visits and random numbers.

Nothing of the ground truth reaches a policy but an oracle's: it sees which items its own users
watched, and answers with lists. Who comes, when and for how long at most is drawn from the seed of
the traffic alone; what a user does with an item at a place of a visit is drawn with noise that
belongs to that place (`CommonNoise`). So two policies that show the same things measure exactly the
same.

A day's list is made in the morning and dealt to the day's visits from its top. What a user who left
early did not reach is not shown later that day. An item is shown to a user again only after
`repeat_days`, also when the log showed it before the test.

Shapes: U users, A of them on a day, S visits, E exposures, H history items, X excluded items.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Protocol

import numpy as np

from experiments.ab_test.common_random_numbers import CommonNoise
from onerec.config import SessionConfig, require
from onerec.datasets.simulator.log import (
    Visits,
    plan_visits,
    planned_exposures,
    play,
    who_comes,
)
from onerec.datasets.simulator.world import Array, SimulatedItems, SimulatedUsers, World, generator
from onerec.session_dataset.padding import first_of_each, last_of_each

BLOCK_USERS = 256
"""Users of a batch for which a policy makes lists."""
MOST_EAGER = 2.0
"""Bound of how much oftener, or more rarely, a user comes after a good or a bad day."""


@dataclass(frozen=True)
class Visitors:
    """Who comes; only oracles read it.

    Attributes:
        users: (A,) numbers of the users.
        day: Day number.
    """

    users: Array
    day: int


class Policy(Protocol):
    """What is tested: from what a user watched to what is shown next."""

    def __call__(self, history: Array, excluded: Array, length: int, visitors: Visitors) -> Array:
        """Lists for some users.

        Args:
            history: (A, H) items they watched, oldest first, -1 padded on the right.
            excluded: (A, X) items they must not get, -1 padded.
            length: Exposures that may be needed.
            visitors: Whose lists they are.

        Returns:
            (A, length) different items, best first, -1 where there are no more.
        """
        ...


@dataclass(frozen=True)
class ReturnRule:
    """How a day changes how soon a user comes again; the simulated log knows no such thing.

    A user's activity is multiplied by `exp(sensitivity * (share - usual))`, where `share` is what
    part of the exposures of their last day they watched, bounded by `MOST_EAGER`.

    Attributes:
        sensitivity: 0: a good day changes nothing.
        usual: Share at which nothing changes.
    """

    sensitivity: float
    usual: float

    def __post_init__(self) -> None:
        require(self.sensitivity >= 0, "sensitivity", self.sensitivity, "use 0 or more")
        require(0 <= self.usual <= 1, "usual", self.usual, "use a share in [0, 1]")

    def eagerness(self, share: Array) -> Array:
        """Factor of the activity after days with these shares."""
        factor = np.exp(self.sensitivity * (share - self.usual))
        return factor.clip(1.0 / MOST_EAGER, MOST_EAGER)


@dataclass(frozen=True)
class UserState:
    """What an arm of the test knows and has done by the morning of a day.

    Attributes:
        history: (U, H) positive items of each user, oldest first, -1 padded.
        user, item, day: (E,) exposures of the last `repeat_days - 1` days.
        eagerness: (U,) factor of each user's activity; 1 without a `ReturnRule`.
    """

    history: Array
    user: Array
    item: Array
    day: Array
    eagerness: Array

    @classmethod
    def at_start(cls, history: Array, user: Array, item: Array, day: Array) -> "UserState":
        """The morning of the first day, from the log: the same for every arm."""
        return cls(history, user, item, day, np.ones(len(history)))

    def excluded(self, rows: Array) -> Array:
        """(A, X) what users must not be shown, -1 padded."""
        place = np.full(len(self.history), -1)
        place[rows] = np.arange(len(rows))
        mine = place[self.user] >= 0
        row, item = place[self.user[mine]], self.item[mine]
        order = np.argsort(row, kind="stable")
        longest = int(np.bincount(row, minlength=1).max())
        return first_of_each(item[order], row[order], len(rows), longest)

    def after(self, shown: "Exposures", repeat_days: int, rule: ReturnRule | None) -> "UserState":
        """The next morning.

        Args:
            shown: The day.
            repeat_days: Of the app.
            rule: Whether a good day brings users back sooner.
        """
        width = self.history.shape[1]
        old_user, place = np.nonzero(self.history >= 0)
        positive = np.flatnonzero(shown.is_positive)
        user = np.concatenate([old_user, shown.user[positive]])
        item = np.concatenate([self.history[old_user, place], shown.item[positive]])
        order = np.argsort(user, kind="stable")  # a day's exposures are in order of time
        history = last_of_each(item[order], user[order], len(self.history), width)
        recent = self.day > shown.day - repeat_days + 1
        eagerness = self.eagerness
        if rule is not None:
            exposures = np.bincount(shown.user, minlength=len(history))
            watched = np.bincount(shown.user, shown.is_watched, minlength=len(history))
            came = exposures > 0
            eagerness = eagerness.copy()
            eagerness[came] = rule.eagerness(watched[came] / exposures[came])
        return replace(
            self,
            history=history,
            user=np.concatenate([self.user[recent], shown.user]),
            item=np.concatenate([self.item[recent], shown.item]),
            day=np.concatenate([self.day[recent], np.full(len(shown.user), shown.day)]),
            eagerness=eagerness,
        )


@dataclass(frozen=True)
class Exposures:
    """What an arm showed on a day and what came of it, in order of time.

    Attributes:
        day: Day number.
        visits: Who came, and for how long at most.
        user, item: (E,) numbers.
        session: (E,) row of the visits.
        position: (E,) place in the visit.
        watch_seconds: (E,).
        flags: (E,) booleans by name of the feedback.
        is_watched, is_positive: (E,) booleans, by the rules of the session SQL.
    """

    day: int
    visits: Visits
    user: Array
    item: Array
    session: Array
    position: Array
    watch_seconds: Array
    flags: dict[str, Array]
    is_watched: Array
    is_positive: Array


def serve_days(
    world: World,
    policy_of_day: Callable[[int], Policy],
    known: UserState,
    *,
    first_day: date,
    days: int,
    traffic_seed: int,
    sessions: SessionConfig,
    rule: ReturnRule | None = None,
) -> Iterator[Exposures]:
    """Serve some days.

    Args:
        world: The app.
        policy_of_day: Who chooses, by the number of the day.
        known: The morning of the first day, with a row for everybody who may come.
        first_day: The first day.
        days: How many.
        traffic_seed: Another seed brings other visits and random numbers.
        sessions: When an exposure is watched.
        rule: Whether a good day brings users back sooner.

    Yields:
        Each day.

    Raises:
        ValueError: The policy repeats an item, or lists an excluded or unpublished one.
    """
    start = (first_day - world.config.first_day).days
    for day in range(start, start + days):
        weekday = date.fromordinal(world.config.first_day.toordinal() + day).weekday()
        users, items = world.users(day), world.items(day)
        visits = common_visits(world, users, day, weekday, traffic_seed, known.eagerness)
        planned = np.bincount(visits.visitor, visits.length, len(visits.users)).astype(np.int64)
        lists = _lists(policy_of_day(day), known, Visitors(visits.users, day), planned)
        _check(lists, known.excluded(visits.users), items, day)
        shown = _exposures(world, users, items, visits, day, lists, traffic_seed, sessions)
        known = known.after(shown, world.config.repeat_days, rule)
        yield shown


def common_visits(
    world: World, users: SimulatedUsers, day: int, weekday: int, traffic_seed: int, eagerness: Array
) -> Visits:
    """The visits of a day; those of an arm with eager or lazy users are a subset of the same ones.

    Visits are planned for everybody who could come to any arm, and an arm has those of its users.
    """
    rng = generator(world.config, f"visits {traffic_seed}", day)
    draws = rng.random(len(users))
    could = who_comes(draws, users, day, weekday, MOST_EAGER)
    visits = plan_visits(rng, users, np.flatnonzero(could))
    comes = who_comes(draws, users, day, weekday, eagerness[: len(users)])
    return visits.of(np.flatnonzero(comes))


def is_watched(config: SessionConfig, seconds: Array, duration: Array) -> Array:
    """The rule of the session SQL: long enough, or enough of a short item."""
    return seconds >= np.minimum(config.watched_min_seconds, config.watched_min_share * duration)


def _lists(policy: Policy, known: UserState, visitors: Visitors, planned: Array) -> Array:
    """(A, longest) lists; users who need lists of like length form a batch."""
    rows = visitors.users
    lists = np.full((len(rows), int(planned.max(initial=1))), -1, np.int64)
    order = np.argsort(planned, kind="stable")
    for low in range(0, len(rows), BLOCK_USERS):
        block = order[low : low + BLOCK_USERS]
        length = int(planned[block].max())
        excluded = known.excluded(rows[block])
        some = replace(visitors, users=rows[block])
        lists[block, :length] = policy(known.history[rows[block]], excluded, length, some)
    return lists


def _check(lists: Array, excluded: Array, items: SimulatedItems, day: int) -> None:
    """Check that a policy keeps the rules of the app."""
    chosen = lists >= 0
    there = chosen & (lists < len(items))
    early = chosen & ~(there & (items.published[np.where(there, lists, 0)] <= day))
    row = np.arange(len(lists))[:, None] * (
        1 + int(max(lists.max(initial=0), excluded.max(initial=0)))
    )
    keys = (row + lists)[chosen]
    refused = np.isin(keys, (row + excluded)[excluded >= 0])
    for what, found in (
        ("items that are not published in the morning", early.any()),
        ("items shown to the same user a few days ago", refused.any()),
        ("an item twice", len(np.unique(keys)) < len(keys)),
    ):
        if found:
            raise ValueError(f"policy: day {day} lists {what}; leave them out of its lists")


def _exposures(
    world: World,
    users: SimulatedUsers,
    items: SimulatedItems,
    visits: Visits,
    day: int,
    lists: Array,
    traffic_seed: int,
    sessions: SessionConfig,
) -> Exposures:
    session, _, position = planned_exposures(visits)
    visitor = visits.visitor[session]
    place = np.arange(len(visitor)) - np.searchsorted(visitor, visitor)
    item = lists[visitor, place]
    noise = CommonNoise(
        world.config.seed,
        traffic_seed,
        day,
        visits.users[visitor],
        visits.number[session],
        position,
    )
    played = play(noise, world, users, items, visits, day, item.clip(min=0), item >= 0)
    order = np.lexsort((played.position, played.session, played.second))
    order = order[played.kept[order]]
    flags = {name: drawn[order] for name, drawn in played.flags.items()}
    seconds = np.round(played.watch[order], 2)  # as the log writes them
    watched = is_watched(sessions, seconds, items.duration[item[order]])
    liked = flags["is_like"] | flags["is_follow"] | flags["is_comment"] | flags["is_share"]
    return Exposures(
        day=day,
        visits=visits,
        user=visits.users[played.visitor[order]],
        item=item[order],
        session=session[order],
        position=position[order],
        watch_seconds=seconds,
        flags=flags,
        is_watched=watched,
        is_positive=(watched | liked) & ~flags["is_dislike"],
    )
