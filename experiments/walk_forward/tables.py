"""Every system of several nightly runs on the days after them, pooled over users.

A user active on several days counts once, with the mean of those days: the bootstrap resamples
users, because the days of one user are correlated. Rewards of a day are by that day's reward
models.

Shapes: U users, D days.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.reporting.result_tables import Provenance, ResultTable, TrainingCost
from onerec.config import (
    BASELINES,
    BY_PROBABILITY,
    CHAMPION,
    SERVED,
    WITH_REWARD,
    EvaluationConfig,
    without_recency,
)
from onerec.config.feedback import VIDEO_SIGNALS
from onerec.evaluation.metric_table import (
    CaseValues,
    Metric,
    MetricRow,
    MetricTable,
    TableColumn,
    read_case_metrics,
)
from onerec.statistics import bootstrap_means

RANKING = (
    *(Metric(f"{m}@{k}") for m in ("recall", "ndcg", "hit_rate", "mrr") for k in (5, 10, 20)),
    Metric("diversity@10"),
    Metric("novelty@10"),
)
"""Metrics of the first table; those that the nightly runs lack are left out."""
TOWERS = tuple(signal.name for signal in VIDEO_SIGNALS)
"""Titles of columns; for signals of other logs only the scalar rewards are shown."""
REWARDS = tuple(
    metric
    for model in ("evaluator", "training")
    for metric in (
        Metric(f"{model}_reward"),
        *(Metric(f"{model}_{kind}", tower) for tower in TOWERS for kind in ("mean", "max")),
    )
)
"""Metrics of the second table, in the form of the paper's Table 1, by each reward model."""
HEADLINE = Metric("recall@10")
COMPARED = (HEADLINE, *map(Metric, ("ndcg@10", "evaluator_reward", "training_reward")))
"""Metrics with paired differences between systems."""


def pooled_users(nights: Mapping[str, Path]) -> tuple[dict[str, CaseValues], int]:
    """Values per user of all systems but the champion, which is another model each day.

    Args:
        nights: Directory of the `offline_metrics` artifact by day.

    Returns:
        By system, (U,) values by metric; and the number of cases of all days, at least U.

    Raises:
        ValueError: There is no nightly run, or a system was measured on some days only.
    """
    if not nights:
        raise ValueError("days: none has offline_metrics; run a nightly run first")
    tables = _with_rows_without_recency(
        {day: read_case_metrics(path, slice=None).to_pandas() for day, path in nights.items()}
    )
    systems = {
        day: [s for s in table["system"].unique() if s != CHAMPION] for day, table in tables.items()
    }
    first_day, first = next(iter(systems.items()))
    for day, found in systems.items():
        odd = sorted(set(found) ^ set(first))
        if odd:
            raise ValueError(
                f"{', '.join(odd)}: measured on {first_day} or on {day} only; make baselines and "
                "offline_metrics of both again with the same baselines, or name fewer days"
            )
    rows = pd.concat(tables.values(), ignore_index=True)
    users = rows["user_id"].astype(str)  # sorted by id, not by category
    values = rows.groupby(["system", "metric", "slice", users], observed=True)["value"].mean()
    wanted = [(s, m) for s in first for m in (*RANKING, *REWARDS) if (s, *m) in values]
    pooled: dict[str, CaseValues] = {
        system: {m: values[system, *m].to_numpy() for s, m in wanted if s == system}
        for system in first
    }
    num_cases = sum(table["user_id"].nunique() for table in tables.values())
    return pooled, num_cases


def _with_rows_without_recency(nights: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Copy a system's rows to `<system>_without_recency` on days where its prior has weight 0."""
    tables = {day: table.astype({"system": str}) for day, table in nights.items()}
    measured = {name for table in tables.values() for name in table["system"].unique()}
    for day, table in tables.items():
        found = set(table["system"])
        for system in sorted(found):
            name = without_recency(system)
            if name in measured - found:
                same = table[table["system"] == system].assign(system=name)
                tables[day] = pd.concat([tables[day], same], ignore_index=True)
    return tables


def walk_forward_tables(
    nights: Mapping[str, Path],
    data: str,
    provenance: Provenance,
    evaluation: EvaluationConfig,
    seconds: Mapping[str, float] | None = None,
) -> list[ResultTable]:
    """Ranking with differences to every baseline, and rewards by both reward models.

    Args:
        nights: Directory of the `offline_metrics` artifact by day.
        data: Name of the data set, for the tables' names.
        provenance: Data, settings and commit.
        evaluation: Confidence, resamples and seed of the intervals.
        seconds: Time of each system on all days together, where known.
    """
    pooled, num_cases = pooled_users(nights)
    metrics = _metrics(pooled, evaluation)
    costs = {system: TrainingCost(seconds=spent) for system, spent in (seconds or {}).items()}
    num_users = len(next(iter(pooled.values()))[HEADLINE])
    protocol = (
        f"{len(nights)} test day(s), {', '.join(nights)}: each run's models are trained on the "
        f"days before and tested on the next. {num_cases:,} cases of {num_users:,} users, full "
        "catalogue, no seen-item filter except for by_probability and with_reward: these are dpo "
        "as it serves, and compare with one another only. A user's days are averaged, users are "
        "resampled."
    )
    return [
        replace(table, costs=costs)
        for table in (
            _ranking_table(metrics, data, protocol, provenance),
            _rewards_table(metrics, data, protocol, provenance),
        )
    ]


def _ranking_table(
    metrics: MetricTable, data: str, protocol: str, provenance: Provenance
) -> ResultTable:
    best = best_baseline(metrics)
    gain = TableColumn(*HEADLINE, best)
    return ResultTable(
        name=f"walk_forward_{data}",
        title=f"Walk-forward on {data}",
        text=protocol,
        metrics=_only(RANKING, metrics),
        provenance=provenance,
        columns={
            TableColumn("recall@5"): "Recall@5",
            TableColumn(*HEADLINE): "Recall@10",
            gain: f"Recall@10 - {best}",
            TableColumn("recall@20"): "Recall@20",
            TableColumn("ndcg@10"): "NDCG@10",
            TableColumn("hit_rate@10"): "HitRate@10",
            TableColumn("mrr@10"): "MRR@10",
            TableColumn("diversity@10"): "diversity",
            TableColumn("novelty@10"): "novelty",
        },
        pictured=[TableColumn(*HEADLINE), gain],
        findings=_findings(metrics, best),
    )


def _rewards_table(
    metrics: MetricTable, data: str, protocol: str, provenance: Provenance
) -> ResultTable:
    towers = {
        TableColumn(f"evaluator_{kind}", tower): f"{tower} {kind}"
        for tower in TOWERS
        for kind in ("mean", "max")
    }
    return ResultTable(
        name=f"walk_forward_{data}_rewards",
        title=f"Walk-forward on {data}: rewards",
        text="Mean and best predicted feedback over a system's sessions (a baseline's list is its "
        "one session), in the shape of the paper's Table 1: by the evaluator, which no model was "
        "trained with. Beside its scalar reward stands that of the model that trained dpo: what "
        f"dpo gains by the second alone is reward hacking. {protocol}",
        metrics=_only(REWARDS, metrics),
        provenance=provenance,
        columns={
            TableColumn("evaluator_reward"): "evaluator's reward",
            TableColumn("training_reward"): "training reward",
            **towers,
        },
        pictured=[TableColumn("evaluator_reward")],
    )


def _metrics(pooled: Mapping[str, CaseValues], evaluation: EvaluationConfig) -> MetricTable:
    """Every system's metrics, and its differences to every baseline and earlier generator.

    Served lists are compared with one another only, since only they leave out seen items. All
    columns use the same resamples.
    """
    systems = list(pooled)
    named: dict[tuple[str, TableColumn], np.ndarray] = {}
    for place, system in enumerate(systems):
        named |= {
            (system, TableColumn(*metric)): values for metric, values in pooled[system].items()
        }
        others = [s for s in systems if _is_baseline(s) and s != system]
        if not _is_baseline(system):
            others += [s for s in systems[:place] if not _is_baseline(s)]
        others = [other for other in others if (other in SERVED) == (system in SERVED)]
        for other in others:
            for metric in COMPARED:
                if metric in pooled[system] and metric in pooled[other]:
                    difference = pooled[system][metric] - pooled[other][metric]
                    named[system, TableColumn(*metric, other)] = difference
    intervals = bootstrap_means(
        np.stack(list(named.values()), axis=1),
        samples=evaluation.bootstrap_samples,
        confidence=evaluation.confidence,
        seed=evaluation.seed,
    )
    return MetricTable(
        tuple(
            MetricRow.of(system, column, found)
            for (system, column), found in zip(named, intervals, strict=True)
        )
    )


def _only(wanted: Sequence[Metric], metrics: MetricTable) -> MetricTable:
    """The rows of some metrics, differences included."""
    return MetricTable(tuple(r for r in metrics.rows if Metric(r.metric, r.slice) in wanted))


def best_baseline(metrics: MetricTable) -> str:
    """The baseline of highest Recall@10."""
    baselines = filter(_is_baseline, metrics.systems(HEADLINE.name))
    return max(baselines, key=lambda name: metrics.find(name, HEADLINE.name).mean)


def _is_baseline(system: str) -> bool:
    names = {name for known in BASELINES for name in (known, without_recency(known))}
    return system in names


def _findings(metrics: MetricTable, best: str) -> list[str]:
    """Generators against the best baseline, and lists by reward against those by probability."""
    found = [f"The best baseline by Recall@10 is {best}."]
    for system, other in dict.fromkeys(
        (row.system, row.reference) for row in metrics.rows if row.metric == HEADLINE.name
    ):
        served = (system, other) == (WITH_REWARD, BY_PROBABILITY)
        if served or (other == best and not _is_baseline(system)):
            gain = metrics.find(system, HEADLINE.name, reference=other)
            found.append(
                f"{system} against {other}: {gain.significance}, {gain.text(signed=True)}."
            )
    return found
