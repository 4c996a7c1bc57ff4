"""The simulated A/B test: fair to every policy, and able to tell a good one from a bad one."""

from dataclasses import dataclass
from datetime import date

import numpy as np
import pytest

from experiments.ab_test import traffic as serving
from experiments.ab_test.common_random_numbers import CommonNoise
from experiments.ab_test.traffic import Exposures, Policy, ReturnRule, UserState, Visitors
from onerec.config import SessionConfig
from onerec.datasets.simulated import SimulatedSource
from onerec.datasets.simulator import behaviour
from onerec.datasets.simulator.config import SimulatorConfig

FIRST = date(2026, 6, 10)
DAYS = 3
LAST = 9 + 5
"""Number of the last day that any test serves: rows for everybody who may come."""
SMALL = SimulatorConfig(initial_users=400, initial_items=300, new_items_per_day=5, repeat_days=3)
SESSIONS = SessionConfig()


@pytest.fixture(scope="module")
def source() -> SimulatedSource:
    return SimulatedSource(SMALL)


def start(source: SimulatedSource, history_length: int = 4) -> UserState:
    nothing = np.zeros(0, np.int64)
    num_users = len(source.world.users(LAST))
    return UserState.at_start(np.full((num_users, history_length), -1), *(nothing,) * 3)


def run(source: SimulatedSource, policy: Policy, known: UserState | None = None, **options):
    settings = {"first_day": FIRST, "days": DAYS, "traffic_seed": 0, "sessions": SESSIONS}
    known = known or start(source)
    return list(serving.serve_days(source.world, lambda _: policy, known, **(settings | options)))


def best_allowed(scores: np.ndarray, excluded: np.ndarray, length: int) -> np.ndarray:
    """Lists by score: the whole of what most policies need."""
    scores = scores.copy()
    row, place = np.nonzero(excluded >= 0)
    scores[row, excluded[row, place]] = -np.inf
    lists = np.argsort(-scores, axis=1, kind="stable")[:, :length]
    return np.where(np.isfinite(np.take_along_axis(scores, lists, 1)), lists, -1)


@dataclass
class Random:
    """Any published item, and a note of what it was told."""

    num_items: int
    seed: int = 0

    def __post_init__(self) -> None:
        self.told: list[np.ndarray] = []

    def __call__(
        self, history: np.ndarray, excluded: np.ndarray, length: int, visitors: Visitors
    ) -> np.ndarray:
        self.told.append(history.copy())
        rng = np.random.default_rng([self.seed, len(self.told)])
        return best_allowed(rng.random((len(history), self.num_items)), excluded, length)


def published(source: SimulatedSource) -> int:
    return int((source.world.items(9).published <= 9).sum())


def random_policy(source: SimulatedSource, seed: int = 0) -> Random:
    return Random(published(source), seed)


def total(days: list[Exposures]) -> float:
    return float(sum(day.watch_seconds.sum() for day in days))


def test_the_same_policy_measures_exactly_the_same(source: SimulatedSource) -> None:
    first, again = run(source, random_policy(source)), run(source, random_policy(source))
    for a, b in zip(first, again, strict=True):
        for name in ("user", "item", "position", "watch_seconds", "is_positive"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    other = run(source, random_policy(source), traffic_seed=1)
    assert total(other) != total(first)
    assert len(other[0].visits.users) != len(first[0].visits.users)


def test_every_arm_has_the_same_visits_and_random_numbers(source: SimulatedSource) -> None:
    arms = [run(source, random_policy(source, seed)) for seed in (0, 1)]
    shared = 0
    for a, b in zip(*arms, strict=True):
        for name in ("users", "visitor", "number", "hour", "length"):
            np.testing.assert_array_equal(getattr(a.visits, name), getattr(b.visits, name))
        places = [
            {
                (u, s, p, i): w
                for u, s, p, i, w in zip(
                    d.user, d.session, d.position, d.item, d.watch_seconds, strict=True
                )
            }
            for d in (a, b)
        ]
        both = places[0].keys() & places[1].keys()
        shared += len(both)
        assert all(places[0][key] == places[1][key] for key in both)
        assert not np.array_equal(a.item[:100], b.item[:100])
    assert shared > 10  # by chance both arms showed a user the same item at the same place


def test_whoever_knows_the_truth_beats_chance(source: SimulatedSource) -> None:
    world, num_items = source.world, published(source)

    def oracle(history, excluded: np.ndarray, length: int, visitors: Visitors) -> np.ndarray:
        items = world.items(9)
        taste = behaviour.affinity(
            world, world.users(LAST), visitors.users, items, float(visitors.day)
        )[:, :num_items]
        seconds = behaviour.expected_watch_seconds(taste, items.duration[None, :num_items])
        return best_allowed(seconds, excluded, length)

    assert total(run(source, oracle)) > 1.5 * total(run(source, random_policy(source)))


def test_histories_are_the_arms_own_views_of_earlier_days(source: SimulatedSource) -> None:
    policy = random_policy(source)
    days = run(source, policy, start(source, history_length=3))
    assert (policy.told[0] < 0).all()
    blocks = [-(-len(day.visits.users) // serving.BLOCK_USERS) for day in days]
    asked = iter(policy.told)
    told = [np.concatenate([next(asked) for _ in range(n)]) for n in blocks]
    for number, day in enumerate(days):
        planned = np.bincount(day.visits.visitor, day.visits.length)
        order = np.argsort(planned, kind="stable")
        for row, user in zip(told[number], day.visits.users[order], strict=True):
            seen = [
                item
                for before in days[:number]
                for who, item, good in zip(
                    before.user, before.item, before.is_positive, strict=True
                )
                if who == user and good
            ]
            assert [i for i in row.tolist() if i >= 0] == seen[-3:]


def test_nothing_is_repeated_within_the_days_of_the_rule(source: SimulatedSource) -> None:
    """Also not what the log showed before the test; after `repeat_days` an item may come again."""
    everyone = np.arange(len(source.world.users(LAST)))
    known = UserState.at_start(
        np.full((len(everyone), 2), -1), everyone, 0 * everyone + 7, 0 * everyone + 8
    )
    days = run(source, random_policy(source), known, days=5)
    shown = np.concatenate(
        [np.stack([d.user, d.item, np.full(len(d.user), d.day)], 1) for d in days]
    )
    order = np.lexsort((shown[:, 2], shown[:, 1], shown[:, 0]))
    shown = shown[order]
    same = (shown[1:, :2] == shown[:-1, :2]).all(1)
    gaps = (shown[1:, 2] - shown[:-1, 2])[same]
    assert gaps.min() == SMALL.repeat_days
    seven = shown[shown[:, 1] == 7]
    assert seven[:, 2].min() >= 8 + SMALL.repeat_days


@pytest.mark.parametrize(
    ("lists", "named"),
    [  # number 349 is published in the course of the first day, later ones after it
        (lambda a, n: np.tile(np.arange(n), (a, 1)) * 0, "an item twice"),
        (lambda a, n: np.tile(np.arange(n) + 349, (a, 1)), "not published"),
    ],
)
def test_a_policy_that_breaks_the_rules_is_refused(source, lists, named) -> None:
    with pytest.raises(ValueError, match=named):
        run(source, lambda history, excluded, length, visitors: lists(len(history), length))


def test_a_short_list_shows_less(source: SimulatedSource) -> None:
    def three(history: np.ndarray, excluded: np.ndarray, length: int, visitors) -> np.ndarray:
        lists = best_allowed(np.tile(-np.arange(200.0), (len(history), 1)), excluded, length)
        lists[:, 3:] = -1
        return lists

    day = run(source, three, days=1)[0]
    counts = np.bincount(day.user)
    assert counts.max() == 3
    assert (counts[day.visits.users] > 0).mean() > 0.95


def test_good_days_bring_users_back_only_where_a_rule_says_so(source: SimulatedSource) -> None:
    policy, num = random_policy(source), published(source)
    quality = source.world.items(9).quality[:num]

    def good(history: np.ndarray, excluded: np.ndarray, length: int, visitors) -> np.ndarray:
        return best_allowed(np.tile(quality, (len(history), 1)), excluded, length)

    def bad(history: np.ndarray, excluded: np.ndarray, length: int, visitors) -> np.ndarray:
        return best_allowed(np.tile(-quality, (len(history), 1)), excluded, length)

    rule = ReturnRule(sensitivity=2.0, usual=0.5)
    came = {
        name: [len(day.visits.users) for day in run(source, arm, days=5, rule=rule)]
        for name, arm in {"good": good, "bad": bad}.items()
    }
    assert came["good"][0] == came["bad"][0]
    assert sum(came["good"]) > sum(came["bad"])
    plain = [len(day.visits.users) for day in run(source, policy, days=5)]
    assert plain == [len(day.visits.users) for day in run(source, good, days=5)]
    indifferent = ReturnRule(sensitivity=0.0, usual=0.5)
    assert plain == [len(d.visits.users) for d in run(source, bad, days=5, rule=indifferent)]


def test_shared_noise_has_the_distributions_of_a_generator() -> None:
    keys = np.arange(200_000)
    affinity, duration = np.full(len(keys), 0.5), np.full(len(keys), 30.0)
    place = np.full(len(keys), 5)
    watch, stays = behaviour.draw_watch(CommonNoise(3, keys), affinity, duration, place)
    expected = behaviour.expected_watch_seconds(affinity[:1], duration[:1], 5)[0]
    assert watch.mean() == pytest.approx(expected, rel=0.02)
    drawn = behaviour.draw_feedback(CommonNoise(4, keys), affinity, stays, np.zeros(len(keys)))
    generator = np.random.default_rng(0)
    usual = behaviour.draw_feedback(generator, affinity, stays, np.zeros(len(keys)))
    for name, values in drawn.items():
        assert values.mean() == pytest.approx(usual[name].mean(), rel=0.2)
    again, _ = behaviour.draw_watch(
        CommonNoise(3, keys[:9]), *(x[:9] for x in (affinity, duration, place))
    )
    np.testing.assert_array_equal(again, watch[:9])  # a number belongs to its key alone
