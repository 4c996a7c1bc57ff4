import dataclasses
import math

import pytest

from onerec.evaluation.promotion import Evidence, decide
from onerec.statistics import Interval

FIRST_NIGHT = Evidence(
    legal_share=1.0,
    repeat_free_share=1.0,
    challenger_recall=0.12,
    bar_recall=0.05,
    recall_difference=Interval(0.07, 0.05, 0.09),
    reward_difference=None,
)
BETTER = Evidence(
    legal_share=1.0,
    repeat_free_share=1.0,
    challenger_recall=0.102,
    bar_recall=0.100,
    recall_difference=Interval(0.002, -0.003, 0.007),
    reward_difference=Interval(0.01, -0.01, 0.03),
)


@pytest.mark.parametrize("evidence", [FIRST_NIGHT, BETTER])
def test_promoted_when_every_gate_passes(evidence: Evidence) -> None:
    decision = decide(evidence)
    assert decision.promoted
    assert decision.reasons == []
    assert all(decision.gates.values())


@pytest.mark.parametrize(
    ("start", "changes", "gate"),
    [
        (BETTER, {"legal_share": 0.9999}, "every_id_is_legal"),
        (BETTER, {"repeat_free_share": 0.99}, "sessions_are_repeat_free"),
        (BETTER, {"challenger_recall": math.nan}, "numbers_are_finite"),
        (FIRST_NIGHT, {"recall_difference": Interval(0.01, -0.001, 0.02)}, "beats_popularity"),
        # 15 % of the champion's recall: more than the tolerated 10 %, whatever the reward does
        (
            BETTER,
            {
                "recall_difference": Interval(-0.015, -0.02, -0.01),
                "reward_difference": Interval(0.1, 0.05, 0.15),
            },
            "recall_within_tolerance",
        ),
        # 5 %: tolerated, but significant, and the reward does not rise significantly
        (
            BETTER,
            {"recall_difference": Interval(-0.005, -0.008, -0.001)},
            "recall_loss_is_paid_for",
        ),
        (
            BETTER,
            {"reward_difference": Interval(-0.02, -0.03, -0.01)},
            "reward_not_below_champion",
        ),
    ],
)
def test_refused_by_one_gate_that_says_why(start: Evidence, changes: dict, gate: str) -> None:
    decision = decide(dataclasses.replace(start, **changes))
    assert not decision.promoted
    assert [name for name, passed in decision.gates.items() if not passed] == [gate]
    assert len(decision.reasons) == 1


def test_a_sure_loss_of_recall_may_be_paid_for_with_reward() -> None:
    paid = dataclasses.replace(
        BETTER,
        recall_difference=Interval(-0.005, -0.008, -0.001),
        reward_difference=Interval(0.05, 0.02, 0.08),
    )
    assert decide(paid).promoted


def test_a_weak_tower_is_a_warning() -> None:
    decision = decide(dataclasses.replace(BETTER, weak_towers=("wtr",)))
    assert decision.promoted
    assert "wtr" in decision.warnings[0]


def test_a_reward_of_one_signal_is_a_warning() -> None:
    decision = decide(dataclasses.replace(BETTER, signals=("purchase",)))
    assert decision.promoted
    assert "one signal, purchase" in decision.warnings[0]
    assert not decide(dataclasses.replace(BETTER, signals=("purchase", "cart"))).warnings


def test_every_failed_gate_is_told() -> None:
    bad = dataclasses.replace(FIRST_NIGHT, legal_share=0.5, repeat_free_share=0.5)
    assert len(decide(bad).reasons) == 2
    assert "50.0000%" in decide(bad).reasons[0]
