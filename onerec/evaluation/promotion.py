"""Does the challenger replace the champion? One pure function: a rule to be read and tested.

The challenger is promoted when every gate passes:

1. every generated semantic ID is legal, and no session repeats an item;
2. every number of the decision is finite;
3. with a champion: its Recall@10 is not below the champion's by more than the tolerated share; and
   a significant loss, however small, has to be offset by a significant gain of evaluator reward
   (otherwise every promotion in a row could give a little away);
4. with a champion: its evaluator reward is not significantly below the champion's;
5. without a champion: its Recall@10 is significantly above popularity's.

"Significantly" means that the paired bootstrap interval of the difference excludes 0. A reward
tower that is no better than its base rate is a warning, and so is a reward of one signal: both are
little evidence.
"""

import math
from dataclasses import dataclass

from onerec.statistics import Interval


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the decision rests on, measured on the same cases of day D.

    Attributes:
        legal_share: Of the challenger's generated sessions.
        repeat_free_share: Of the challenger's generated sessions.
        challenger_recall: Recall@10.
        bar_recall: The champion's Recall@10, or popularity's where there is no champion.
        recall_difference: Challenger minus bar, paired.
        reward_difference: Challenger minus champion by the evaluator, paired; None without a
            champion.
        weak_towers: Reward towers that count in the reward and are no better than their base rate.
        signals: Signals that the scalar reward is made of; not known where empty.
        tolerance: Share of the champion's Recall@10 that may be lost.
    """

    legal_share: float
    repeat_free_share: float
    challenger_recall: float
    bar_recall: float
    recall_difference: Interval
    reward_difference: Interval | None
    weak_towers: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    tolerance: float = 0.10


@dataclass(frozen=True)
class Decision:
    """The verdict.

    Attributes:
        promoted: Every gate passed.
        reasons: Why not, one sentence per failed gate; empty when promoted.
        gates: Name of each gate, and whether it passed.
        warnings: What does not decide but should be known.
        numbers: The evidence, flat.
    """

    promoted: bool
    reasons: list[str]
    gates: dict[str, bool]
    warnings: list[str]
    numbers: dict[str, float]


def decide(evidence: Evidence) -> Decision:
    """Apply the gates of this module's description."""
    e = evidence
    gates: dict[str, bool] = {}
    reasons: list[str] = []

    def gate(name: str, passed: bool, reason: str) -> None:
        gates[name] = passed
        if not passed:
            reasons.append(reason)

    numbers = _numbers(e)
    unknown = [name for name, value in numbers.items() if not math.isfinite(value)]
    gate("numbers_are_finite", not unknown, f"not finite: {', '.join(unknown)}")
    gate(
        "every_id_is_legal",
        e.legal_share == 1,
        f"only {e.legal_share:.4%} of its generated sessions are legal; all must be",
    )
    gate(
        "sessions_are_repeat_free",
        e.repeat_free_share == 1,
        f"only {e.repeat_free_share:.4%} of its generated sessions are free of repeats",
    )
    recall = f"its Recall@10 {e.challenger_recall:.4f} is"
    lost = e.recall_difference
    if e.reward_difference is None:
        gate(
            "beats_popularity",
            lost.low > 0,
            f"no champion yet, and {recall} not significantly above popularity's "
            f"{e.bar_recall:.4f} (difference {lost.text(signed=True)})",
        )
    else:
        reward = e.reward_difference.text(signed=True)
        gate(
            "recall_within_tolerance",
            lost.mean >= -e.tolerance * e.bar_recall,
            f"{recall} below the champion's {e.bar_recall:.4f} by more than the tolerated "
            f"{e.tolerance:.0%} (difference {lost.text(signed=True)})",
        )
        gate(
            "recall_loss_is_paid_for",
            not lost.high < 0 or e.reward_difference.low > 0,
            f"{recall} significantly below the champion's {e.bar_recall:.4f} "
            f"({lost.text(signed=True)}), and the evaluator's reward does not rise significantly "
            f"({reward})",
        )
        gate(
            "reward_not_below_champion",
            not e.reward_difference.high < 0,
            f"its evaluator reward is significantly below the champion's ({reward})",
        )
    return Decision(all(gates.values()), reasons, gates, _warnings(e), numbers)


def _warnings(e: Evidence) -> list[str]:
    warnings = [
        f"the {tower} tower counts in the reward but is no better than its base rate"
        for tower in e.weak_towers
    ]
    if len(e.signals) == 1:
        warnings.append(
            f"rewards rest on one signal, {e.signals[0]}: what raises it alone counts as better"
        )
    return warnings


def unmeasured() -> Decision:
    """The decision on a test day without users: nothing was measured, so the champion stays."""
    reason = "nobody watched a candidate on the test day, so nothing was measured"
    return Decision(False, [reason], {"test_day_has_users": False}, [], {})


def _numbers(e: Evidence) -> dict[str, float]:
    numbers = {
        "legal_share": e.legal_share,
        "repeat_free_share": e.repeat_free_share,
        "challenger_recall@10": e.challenger_recall,
        "bar_recall@10": e.bar_recall,
        **e.recall_difference.flat("recall@10_difference"),
    }
    if e.reward_difference is not None:
        numbers |= e.reward_difference.flat("evaluator_reward_difference")
    return numbers
