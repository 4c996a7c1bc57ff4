"""A weight is chosen by the users of several validation days together."""

import itertools

import pytest

from onerec.evaluation.ndcg_by_weight import NOT_MEASURED, NdcgByWeight, best_of, pooled


def test_every_user_counts_alike_whatever_their_day():
    small = NdcgByWeight(100, {0.0: 0.02, 0.5: 0.06, 1.0: 0.01})
    large = NdcgByWeight(300, {0.0: 0.04, 0.5: 0.02, 1.0: 0.05})
    assert pooled([small, large]) == pytest.approx(
        {
            0.0: (100 * 0.02 + 300 * 0.04) / 400,
            0.5: (100 * 0.06 + 300 * 0.02) / 400,
            1.0: (100 * 0.01 + 300 * 0.05) / 400,
        }
    )
    assert best_of(small.ndcg) == 0.5
    assert best_of(pooled([small, large])) == 1.0
    assert pooled([small, NOT_MEASURED]) == pytest.approx(small.ndcg)
    assert pooled([NOT_MEASURED]) == pooled([]) == {}
    assert best_of({}) == 0.0


def test_one_odd_day_of_seven_does_not_move_the_weight():
    usual = NdcgByWeight(1000, {0.0: 0.050, 0.5: 0.052, 1.0: 0.051})
    odd = NdcgByWeight(1000, {0.0: 0.050, 0.5: 0.052, 1.0: 0.057})
    assert best_of(odd.ndcg) == 1.0
    for place in range(7):
        week = [usual] * place + [odd] + [usual] * (6 - place)
        assert best_of(pooled(week)) == 0.5
    assert best_of(pooled([odd] * 4 + [usual] * 3)) == 1.0


def test_the_order_of_days_does_not_matter():
    days = [NdcgByWeight(n, {0.0: 1 / n, 1.0: n / 10}) for n in (3, 5, 7)]
    for order in itertools.permutations(days):
        assert pooled(order) == pytest.approx(pooled(days))


def test_a_day_that_compared_other_weights_does_not_count():
    now, before = NdcgByWeight(10, {0.0: 0.1, 1.0: 0.2}), NdcgByWeight(10**6, {0.0: 0.9, 2.0: 0.8})
    assert pooled([now, before]) == pytest.approx(now.ndcg)


def test_models_as_they_served_choose_where_there_are_any():
    first = NdcgByWeight(10**6, {0.0: 0.9, 1.0: 0.1})
    served = NdcgByWeight(10, {0.0: 0.1, 1.0: 0.2}, as_served=True)
    again = NdcgByWeight(30, {0.0: 0.3, 1.0: 0.2}, as_served=True)
    for days in itertools.permutations([first, served, again, NOT_MEASURED]):
        assert pooled(days) == pytest.approx(pooled([served, again]))
    assert pooled([first, first]) == pytest.approx(first.ndcg)
    assert NdcgByWeight.from_json(served.as_json()) == served
    old = {"users": 10, "ndcg": {"0.0": 0.1, "1.0": 0.2}}
    assert not NdcgByWeight.from_json(old).as_served, "of a version that knew no difference"


def test_reads_what_it_writes():
    day = NdcgByWeight(7, {0.0: 0.1, 0.25: 1 / 3})
    assert NdcgByWeight.from_json(day.as_json()) == day
