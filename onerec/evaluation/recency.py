"""The weight of the recency prior (`RecencyPrior`), chosen where nothing is measured.

The weight is chosen on the validation day with the watches of the days before it, by a model that
has not learned that day; it is then used with the watches of the validation day on the test day. A
model that learns the newest days last has learned those before the validation day when it chooses.
Where the model of the night before is there, which served on the validation day, it chooses.
What earlier nightly runs measured on their validation days counts, too (`ndcg_by_weight`).

Shapes: C cases, K places of a list, N items.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from onerec.artifacts import read_json, write_json
from onerec.catalogue import Catalogue
from onerec.evaluation.ndcg_by_weight import NOT_MEASURED, NdcgByWeight, best_of, pooled
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.model.recency_prior import RecencyPrior
from onerec.ranked_lists import RankedLists, Ranker
from onerec.session_dataset.eval_users import EvalUsers, load_eval_users
from onerec.session_dataset.newest_watches import newest_watches, split_day

PRIOR_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
"""What is tried; of equals the first."""
DEPTH = 1_000
"""Items of a baseline's list that the prior may reorder."""
MOST_CASES = 10_000
"""Users of the validation day that decide, a seeded sample beyond that. With 2,000 the noise of the
sample was larger than what weights are worth (docs/log.md, 2026-11-29)."""
CUTOFF = 10
MONITOR = f"ndcg@{CUTOFF}"
FILE = "recency_prior.json"


@dataclass(frozen=True)
class ChosenPrior(RecencyPrior):
    """A recency prior, and what the validation day measured of its weight.

    Attributes:
        measured: On that day alone; the weight may be chosen on earlier days as well.
    """

    measured: NdcgByWeight = NOT_MEASURED

    def save(self, directory: Path) -> None:
        """Write `recency_prior.json`, for models whose checkpoint has no place for it."""
        write_json(directory / FILE, asdict(self) | {"measured": self.measured.as_json()})

    @staticmethod
    def load(directory: Path) -> "ChosenPrior":
        """Read what `save` wrote; no prior where it wrote nothing."""
        file = directory / FILE
        stored: dict[str, Any] = read_json(file) if file.exists() else {}
        if "measured" in stored:  # not in artifacts of before
            stored["measured"] = NdcgByWeight.from_json(stored["measured"])
        return ChosenPrior(**stored)


NOT_CHOSEN = ChosenPrior()


@dataclass(frozen=True, kw_only=True)
class RecencyCases:
    """What the weight is chosen on.

    Attributes:
        users: Of the validation day.
        watches: (N,) of the newest days before it.
        candidates: (N,) booleans: items that may be listed.
        days: The newest days that were counted.
    """

    users: EvalUsers
    watches: np.ndarray
    candidates: np.ndarray
    days: int = 1

    def sampled(self, seed: int) -> "RecencyCases":
        """The same with at most `MOST_CASES` users."""
        if len(self.users) <= MOST_CASES:
            return self
        chosen = np.random.default_rng(seed).choice(len(self.users), MOST_CASES, replace=False)
        return replace(self, users=self.users.rows(np.sort(chosen)))


def load_recency_cases(
    directory: Path, catalogue: Catalogue, *, history_length: int, days: int
) -> RecencyCases | None:
    """The users of the validation day, and what was watched before it.

    Args:
        directory: Files of a `session_dataset` artifact; `test` is never read.
        catalogue: Items it does not know are dropped.
        history_length: H.
        days: The newest days that are counted.

    Returns:
        None where no day validates.
    """
    day = split_day(directory, "valid")
    if day is None:
        return None
    candidates = catalogue.candidates(day)
    return RecencyCases(
        users=load_eval_users(
            directory, "valid", catalogue, history_length=history_length, rankable=candidates
        ),
        watches=newest_watches(directory, catalogue, before=day, days=days),
        candidates=candidates,
        days=days,
    )


@dataclass(frozen=True)
class WithRecency:
    """A `Ranker` whose lists add a prior to the scores of another one.

    Attributes:
        ranker: Its scores are log-probabilities, up to a constant of the user's; the prior reorders
            its best `DEPTH` items.
        prior: (N,).
    """

    ranker: Ranker
    prior: np.ndarray

    def rank(
        self,
        histories: np.ndarray,
        top_k: int,
        exclude: np.ndarray | None = None,
        candidates: np.ndarray | None = None,
        attributes: pa.Table | None = None,
    ) -> RankedLists:
        """See `Ranker.rank`."""
        depth = max(min(DEPTH, len(self.prior)), top_k)
        lists = self.ranker.rank(histories, depth, exclude, candidates, attributes)
        return reordered(lists, self.prior, top_k)


def chosen_prior(
    ranker: Ranker | None,
    cases: RecencyCases,
    *,
    seed: int,
    earlier: Sequence[NdcgByWeight] = (),
    as_served: bool = False,
) -> ChosenPrior:
    """The prior whose weight is best over the users of the cases and of earlier nightly runs.

    Args:
        ranker: Has not learned the day of the cases; its scores are log-probabilities, up to a
            constant of the user's. None, or cases without a user: earlier nightly runs alone say.
        cases: What is measured.
        seed: Of the sample of users.
        earlier: What nightly runs before measured with the same settings.
        as_served: The ranker could have served lists on the day of the cases.
    """
    measured = NOT_MEASURED
    if ranker is not None and len(cases.users):
        cases = cases.sampled(seed)
        users = cases.users
        depth = min(DEPTH, len(cases.candidates))
        lists = ranker.rank(
            users.history, depth, candidates=cases.candidates, attributes=users.attributes
        )
        measured = replace(ndcg_by_weight(lists, cases), as_served=as_served)
    weight = best_of(pooled([measured, *earlier]))
    return ChosenPrior(weight=weight, days=cases.days, measured=measured)


def ndcg_by_weight(lists: RankedLists, cases: RecencyCases) -> NdcgByWeight:
    """NDCG@10 on the cases by weight of the prior.

    Args:
        lists: The best items for each user of the cases, without a prior; the scores are
            log-probabilities, up to a constant of the user's.
        cases: What is measured.
    """
    prior = np.log1p(cases.watches)
    return NdcgByWeight(
        len(cases.users),
        {
            weight: ndcg_at_10(reordered(lists, weight * prior, CUTOFF), cases)
            for weight in PRIOR_WEIGHTS
        },
    )


def ndcg_at_10(lists: RankedLists, cases: RecencyCases) -> float:
    """Mean over the cases; the lists are sorted by their scores first."""
    best = reordered(lists, np.zeros(len(cases.watches)), CUTOFF)
    return float(per_case_metrics(best.items, cases.users.targets, (CUTOFF,))[MONITOR].mean())


def reordered(lists: RankedLists, prior: np.ndarray, top_k: int) -> RankedLists:
    """The best `top_k` of each list by score plus prior (N,).

    Examples:
        >>> lists = RankedLists(np.array([[2, 0, -1]]), np.array([[-1.0, -2.0, -np.inf]]))
        >>> reordered(lists, np.array([1.5, 0.0, 0.0]), 2).items.tolist()
        [[0, 2]]
    """
    scores = lists.scores + prior[np.maximum(lists.items, 0)]
    scores = np.where(lists.items >= 0, scores, -np.inf)
    return RankedLists.best(lists.items, scores, top_k)
