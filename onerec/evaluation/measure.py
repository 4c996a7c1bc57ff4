"""Offline evaluation: every system on the same cases, histories and candidates.

Shapes: C cases, K places of a list, N items.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from onerec.artifacts import read_json
from onerec.evaluation import beyond_accuracy, slices
from onerec.evaluation.data import EvaluationData
from onerec.evaluation.generated_sessions import (
    GeneratedSessions,
    audit,
    lists_as_sessions,
    session_rewards,
)
from onerec.evaluation.generators import RemappedGenerator, SessionGenerator
from onerec.evaluation.metric_table import ALL, CaseValues, Metric, MetricRow, MetricTable
from onerec.evaluation.ranking_metrics import per_case_metrics
from onerec.evaluation.systems import System
from onerec.ranked_lists import RankedLists
from onerec.session_dataset.user_attributes import take_rows
from onerec.statistics import bootstrap_means, gini

HEADLINE = 10
"""The list length that tables, slices and the promotion rule speak of."""
COMPARED = (f"recall@{HEADLINE}", f"ndcg@{HEADLINE}", "evaluator_reward", "training_reward")
"""Metrics whose paired differences between systems are reported."""
REWARD_GAP = "reward_gap"
"""How much more a system gained by the reward that trained it than by the evaluator: a gap whose
interval lies above 0 is reward hacking."""
REWARD_SYSTEM = "reward"
"""The reward model's own rows: its AUC on the validation day."""


@dataclass(frozen=True)
class SystemResult:
    """One system, measured.

    Attributes:
        values: Per case.
        totals: Numbers of the system as a whole: coverage, Gini, legality.
        references: Names of the systems that it is compared with.
    """

    values: CaseValues
    totals: Mapping[str, float]
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranked:
    """What a system lists and generates for some cases.

    Attributes:
        lists: Its lists.
        sessions: Its sessions; a baseline's list counts as its one session.
    """

    lists: RankedLists
    sessions: GeneratedSessions


def evaluate(
    data: EvaluationData,
    systems: Mapping[str, System],
    *,
    ranked: Mapping[str, Ranked] | None = None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> dict[str, SystemResult]:
    """Measure systems one after the other.

    Args:
        data: What to measure with.
        systems: By name.
        ranked: What each lists and generates for the cases; made here if not given.
        on_progress: Called with a line of text now and then.

    Raises:
        ValueError: The test day has no case.
    """
    if not len(data.user_ids):
        raise ValueError(
            f"no case on {data.test_day}: nobody watched an item that was in the catalogue before "
            "that day; ingest the day, or evaluate another one"
        )
    results = {}
    for name, system in systems.items():
        on_progress(f"{name}: {len(data.user_ids)} cases")
        results[name] = measure(data, system, None if ranked is None else ranked[name])
    return results


def rank_cases(data: EvaluationData, system: System, rows: np.ndarray) -> Ranked:
    """Rank and generate for some cases, by their row numbers."""
    histories, attributes = data.histories[rows], take_rows(data.attributes, rows)
    lists = system.ranker.rank(
        histories,
        max(data.config.lengths),
        exclude=histories if system.excludes_seen else None,
        candidates=data.candidates,
        attributes=attributes,
    )
    if isinstance(system.ranker, SessionGenerator | RemappedGenerator):
        made = system.ranker.sessions(histories, data.candidates, attributes=attributes)
        return Ranked(lists, made)
    return Ranked(lists, lists_as_sessions(lists, session_items=data.session_items))


def measure(data: EvaluationData, system: System, ranked: Ranked | None = None) -> SystemResult:
    """Rank, generate and score one system.

    Args:
        data: The cases.
        system: It.
        ranked: What it lists and generates for all cases; made here if not given.
    """
    if ranked is None:
        ranked = rank_cases(data, system, np.arange(len(data.histories)))
    lists, sessions = ranked.lists, ranked.sessions
    top = lists.items[:, :HEADLINE]
    totals = {
        f"coverage@{HEADLINE}": beyond_accuracy.coverage(top, data.candidates),
        f"gini@{HEADLINE}": gini(beyond_accuracy.exposure(top, data.candidates)),
    }
    if isinstance(system.ranker, SessionGenerator):
        audited = audit(sessions, data.semantic_ids.codes, data.candidates)
        totals["legal_share"] = audited.legal_share
        totals["repeat_free_share"] = audited.repeat_free_share
        totals["generated_sessions"] = audited.num_sessions
    values = _list_values(data, lists) | _rewards(data, sessions)
    return SystemResult(values, totals, system.references)


def _list_values(data: EvaluationData, lists: RankedLists) -> dict[Metric, np.ndarray]:
    found = per_case_metrics(lists.items, data.targets, data.config.lengths)
    top = lists.items[:, :HEADLINE]
    vectors, watches = data.vectors.numpy(), data.baselines.popularity.weights
    found[f"diversity@{HEADLINE}"] = beyond_accuracy.intra_list_distance(top, vectors)
    found[f"novelty@{HEADLINE}"] = beyond_accuracy.novelty(top, watches)
    values = {Metric(name): column for name, column in found.items()}
    headline = f"recall@{HEADLINE}"
    for name, members in slices.history_slices(data.histories).items():
        values[Metric(headline, name)] = np.where(members, found[headline], np.nan)
    for name, members in slices.item_slices(data.baselines.exposures, data.candidates).items():
        targets = slices.targets_in(data.targets, members)
        concerned = (targets >= 0).any(1)
        column = np.full(len(targets), np.nan)
        if concerned.any():
            part = per_case_metrics(lists.items[concerned], targets[concerned], (HEADLINE,))
            column[concerned] = part[headline]
        values[Metric(headline, name)] = column
    return values


def _rewards(data: EvaluationData, sessions: GeneratedSessions) -> dict[Metric, np.ndarray]:
    """Rewards of a system's sessions by every reward model."""
    histories = torch.from_numpy(data.histories)
    return {
        metric: values
        for name, model in data.reward_models.items()
        for metric, values in session_rewards(
            model, data.vectors, histories, sessions, data.reward, name=name
        ).items()
    }


def summarise(data: EvaluationData, results: Mapping[str, SystemResult]) -> MetricTable:
    """Means with intervals, paired differences with intervals, and the systems' totals.

    Args:
        data: What it was measured with.
        results: By system; those that are named as references among them.
    """
    columns: dict[tuple[str, str | None, Metric], np.ndarray] = {
        (system, None, metric): values
        for system, result in results.items()
        for metric, values in result.values.items()
    }
    columns |= {
        (system, reference, Metric(metric)): values
        for system, result in results.items()
        for reference in result.references
        for metric, values in _differences(result, results[reference]).items()
    }
    intervals = bootstrap_means(
        np.stack(list(columns.values()), axis=1),
        samples=data.config.bootstrap_samples,
        confidence=data.config.confidence,
        seed=data.config.seed,
    )
    cases = [int((~np.isnan(values)).sum()) for values in columns.values()]
    rows = [
        MetricRow(system, reference, metric.name, metric.slice, value, low, high, num_cases)
        for (system, reference, metric), (value, low, high), num_cases in zip(
            columns, intervals, cases, strict=True
        )
    ]
    rows += [
        MetricRow(system, None, name, ALL, value)
        for system, result in results.items()
        for name, value in result.totals.items()
    ]
    return MetricTable(tuple(rows))


def _differences(result: SystemResult, reference: SystemResult) -> dict[str, np.ndarray]:
    """(C,) per metric: how much more a system has than its reference."""
    gained = {n: result.values[Metric(n)] - reference.values[Metric(n)] for n in COMPARED}
    return gained | {REWARD_GAP: gained["training_reward"] - gained["evaluator_reward"]}


def nothing_measured(metrics: MetricTable) -> bool:
    """Whether a test day had no case, so that the table has the reward model's own rows alone."""
    return {row.system for row in metrics.rows} <= {REWARD_SYSTEM}


def reward_aucs(reward_model: Path) -> Iterator[MetricRow]:
    """AUC per signal (its slice) of the reward model on the validation day; bootstrap over rows.

    NaN where only one kind of row was seen.
    """
    metrics = read_json(reward_model / "metrics.json")
    towers = metrics["towers"]
    for tower in metrics.get("signals", towers):
        measured = towers[tower]
        value = np.nan if measured["auc"] is None else measured["auc"]
        low, high = measured.get("auc_interval") or (np.nan, np.nan)
        yield MetricRow(REWARD_SYSTEM, None, "auc", tower, value, low, high)
