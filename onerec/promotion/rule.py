"""Which system serves: challenger, incumbent or a simple system? Pure functions of numbers.

The challenger is one of the nightly run's own models (`choose_challenger`): the aligned one, unless
its Recall@10 is significantly below the pretrained one's. That comparison comes first and on its
own, so that one model a night meets the gates: testing both and serving whichever passes would
double the chance that noise passes them.

A model serves only where its Recall@10 is significantly above that of the nightly run's best simple
system (popularity, recent popularity, item-KNN; own repeats where seen items may be served). The
challenger is promoted when every gate passes:

1. every generated semantic ID is legal, and no session repeats an item;
2. every number of the decision is finite;
3. its Recall@10 is significantly above the best simple system's;
4. with an incumbent: its Recall@10 is not below the incumbent's by more than the tolerated share;
   and a significant loss, however small, has to be offset by a significant gain of evaluator reward
   (otherwise a series of promotions could lose a little each time);
5. with an incumbent: a significant loss of evaluator reward has to be offset by a significant gain
   of Recall@10, as a pretrained challenger of today may have it over an aligned incumbent.

If it is refused, the incumbent stays where it passes gate 3 itself; otherwise the simple system
serves under its own name, and the next nightly run has no incumbent.

"Significantly" means that the paired bootstrap interval of the difference excludes 0. A reward
tower that is no better than its base rate is a warning, and so is a reward of one signal: both are
little evidence.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from onerec.config import ALIGNED, PRETRAINED
from onerec.statistics import NO_VALUE, Interval

DECISION = "champion.json"
"""The file that holds a nightly run's decision."""
POPULARITY = "popularity"
"""The simple system that serves where none was measured."""
Serves = Literal["challenger", "incumbent", "simple system"]


@dataclass(frozen=True, kw_only=True)
class Challenger:
    """Which of a nightly run's own models is its challenger.

    Attributes:
        system: Its name in metrics.
        reason: Why this one, with the figures.
        difference: Recall@10 of the aligned model minus the pretrained one's, paired; NaN where it
            was not measured.
    """

    system: str = ALIGNED
    reason: str = ""
    difference: Interval = NO_VALUE


def choose_challenger(
    difference: Interval, *, pretrained_recall: float, tolerance: float
) -> Challenger:
    """The aligned model, unless it loses Recall@10 significantly.

    Args:
        difference: Recall@10 of the aligned model minus the pretrained one's, paired.
        pretrained_recall: Recall@10 of the pretrained one.
        tolerance: Share of it that the aligned one may significantly lose.

    Examples:
        >>> loss = Interval(-0.0062, -0.0104, -0.0021)
        >>> choose_challenger(loss, pretrained_recall=0.0932, tolerance=0.0).system
        'pretrained'
        >>> choose_challenger(loss, pretrained_recall=0.0932, tolerance=0.05).system
        'dpo'
    """
    if math.isnan(difference.mean):
        return Challenger(reason="the aligned model; it was not compared with the pretrained one")
    beyond = f" by more than the tolerated {tolerance:.0%} of it" if tolerance else ""
    figures = f"{pretrained_recall:.4f}{beyond} (difference {difference.text(signed=True)})"
    if difference.high < -tolerance * pretrained_recall:
        system, found = PRETRAINED, "the pretrained model: the aligned one's Recall@10 is"
    else:
        system, found = ALIGNED, "the aligned model: its Recall@10 is not"
    reason = f"{found} significantly below the pretrained one's {figures}"
    return Challenger(system=system, reason=reason, difference=difference)


@dataclass(frozen=True, kw_only=True)
class IncumbentEvidence:
    """What was measured of the champion before, on the same cases.

    Attributes:
        recall: Recall@10.
        recall_difference: Challenger minus incumbent, paired.
        reward_difference: The same by the evaluator.
        above_simple: Recall@10 of the incumbent minus the best simple system's, paired.
    """

    recall: float
    recall_difference: Interval
    reward_difference: Interval
    above_simple: Interval


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the decision depends on, measured on the same cases of day D.

    Attributes:
        legal_share: Of the challenger's generated sessions.
        repeat_free_share: Of the challenger's generated sessions.
        challenger_recall: Recall@10.
        simple_system: Name of the simple system with the highest Recall@10.
        simple_recall: Its Recall@10.
        above_simple: Recall@10 of the challenger minus the simple system's, paired.
        incumbent: The champion before; None where there is none.
        weak_towers: Reward towers that count in the reward and are no better than their base rate.
        signals: Signals that the scalar reward is made of; not known where empty.
        challenger: Which model the challenger is.
        tolerance: Share of the incumbent's Recall@10 that may be lost.
    """

    legal_share: float
    repeat_free_share: float
    challenger_recall: float
    simple_system: str
    simple_recall: float
    above_simple: Interval
    incumbent: IncumbentEvidence | None = None
    weak_towers: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    challenger: Challenger = field(default_factory=Challenger)
    tolerance: float = 0.10


@dataclass(frozen=True)
class Decision:
    """The decision of the promotion rule.

    Attributes:
        serves: What serves.
        simple_system: Name of the simple system that was the bar.
        reasons: Why the challenger was refused, one sentence per failed gate; then why the
            incumbent does not stay. Empty when the challenger is promoted.
        gates: Name of each gate, and whether the challenger passed it.
        warnings: What does not decide but should be known.
        numbers: The evidence, flat.
        challenger_system: Name in metrics of the nightly run's own model that is the challenger.
        challenger_reason: Why that one, with the figures.
    """

    serves: Serves
    simple_system: str
    reasons: list[str]
    gates: dict[str, bool]
    warnings: list[str]
    numbers: dict[str, float]
    challenger_system: str = ALIGNED
    challenger_reason: str = ""

    @property
    def promoted(self) -> bool:
        """Whether the challenger becomes the champion."""
        return self.serves == "challenger"


def decide(evidence: Evidence) -> Decision:
    """Apply the gates of this module's description."""
    e, numbers = evidence, _numbers(evidence)
    checked = [*_gates_of_generation(e, numbers), _gate_of_simple(e), *_gates_of_incumbent(e)]
    reasons = [reason for _, passed, reason in checked if not passed]
    serves: Serves = "challenger"
    if reasons:
        serves = "simple system"
        if e.incumbent is not None and e.incumbent.above_simple.low > 0:
            serves = "incumbent"
        elif e.incumbent is not None:
            reasons.append(
                f"the incumbent's Recall@10 {e.incumbent.recall:.4f} is not significantly above "
                f"{_simple(e, e.incumbent.above_simple)}"
            )
    return Decision(
        serves=serves,
        simple_system=e.simple_system,
        reasons=reasons,
        gates={name: passed for name, passed, _ in checked},
        warnings=_warnings(e),
        numbers=numbers,
        challenger_system=e.challenger.system,
        challenger_reason=e.challenger.reason,
    )


def _warnings(e: Evidence) -> list[str]:
    warnings = [
        f"the {tower} tower counts in the reward but is no better than its base rate"
        for tower in e.weak_towers
    ]
    if len(e.signals) == 1:
        warnings.append(
            f"rewards depend on one signal, {e.signals[0]}: what raises it alone counts as better"
        )
    return warnings


Gate = tuple[str, bool, str]
"""Its name, whether it is passed, and the reason if not."""


def _gates_of_generation(e: Evidence, numbers: dict[str, float]) -> list[Gate]:
    unknown = [name for name, value in numbers.items() if not math.isfinite(value)]
    return [
        ("numbers_are_finite", not unknown, f"not finite: {', '.join(unknown)}"),
        (
            "every_id_is_legal",
            e.legal_share == 1,
            f"only {e.legal_share:.4%} of its generated sessions are legal; all must be",
        ),
        (
            "sessions_are_repeat_free",
            e.repeat_free_share == 1,
            f"only {e.repeat_free_share:.4%} of its generated sessions are free of repeats",
        ),
    ]


def _gate_of_simple(e: Evidence) -> Gate:
    return (
        "beats_best_simple_system",
        e.above_simple.low > 0,
        f"its Recall@10 {e.challenger_recall:.4f} is not significantly above "
        f"{_simple(e, e.above_simple)}",
    )


def _simple(e: Evidence, difference: Interval) -> str:
    return (
        f"{e.simple_recall:.4f} of {e.simple_system}, the best simple system "
        f"(difference {difference.text(signed=True)})"
    )


def _gates_of_incumbent(e: Evidence) -> list[Gate]:
    if e.incumbent is None:
        return []
    recall = f"its Recall@10 {e.challenger_recall:.4f} is"
    lost, reward = e.incumbent.recall_difference, e.incumbent.reward_difference
    return [
        (
            "recall_within_tolerance",
            lost.mean >= -e.tolerance * e.incumbent.recall,
            f"{recall} below the incumbent's {e.incumbent.recall:.4f} by more than the tolerated "
            f"{e.tolerance:.0%} (difference {lost.text(signed=True)})",
        ),
        (
            "recall_loss_is_offset_by_reward",
            not lost.high < 0 or reward.low > 0,
            f"{recall} significantly below the incumbent's {e.incumbent.recall:.4f} "
            f"({lost.text(signed=True)}), and the evaluator's reward does not rise significantly "
            f"({reward.text(signed=True)})",
        ),
        (
            "reward_loss_is_offset_by_recall",
            not reward.high < 0 or lost.low > 0,
            "its evaluator reward is significantly below the incumbent's "
            f"({reward.text(signed=True)}), and its Recall@10 is not significantly above "
            f"({lost.text(signed=True)})",
        ),
    ]


def unmeasured(*, has_incumbent: bool, simple_system: str = POPULARITY) -> Decision:
    """The decision on a test day without users: nothing was measured, so what serves stays.

    Args:
        has_incumbent: The champion before is a model.
        simple_system: What serves otherwise: the champion before, where that is a simple system.
    """
    reason = "nobody watched a candidate on the test day, so nothing was measured"
    serves: Serves = "incumbent" if has_incumbent else "simple system"
    return Decision(serves, simple_system, [reason], {"test_day_has_users": False}, [], {})


def _numbers(e: Evidence) -> dict[str, float]:
    numbers = {
        "legal_share": e.legal_share,
        "repeat_free_share": e.repeat_free_share,
        "challenger_recall@10": e.challenger_recall,
        "simple_system_recall@10": e.simple_recall,
        **e.above_simple.flat("recall@10_above_simple_system"),
    }
    if not math.isnan(e.challenger.difference.mean):
        numbers |= e.challenger.difference.flat("aligned_minus_pretrained_recall@10")
    if e.incumbent is not None:
        numbers |= {
            "incumbent_recall@10": e.incumbent.recall,
            **e.incumbent.recall_difference.flat("recall@10_difference"),
            **e.incumbent.reward_difference.flat("evaluator_reward_difference"),
            **e.incumbent.above_simple.flat("incumbent_recall@10_above_simple_system"),
        }
    return numbers
