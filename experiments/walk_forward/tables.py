"""Every system of several nightly runs on the days after them, pooled over users.

A user counts once, with the mean of the days they were active on and of the seeds of the runs: the
bootstrap resamples users as clusters, because the days and seeds of one user are correlated.
Rewards of a day are by that day's reward models.

Shapes: U users, D days.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.reporting.result_tables import Provenance, ResultTable, TrainingCost
from onerec.config import (
    ALIGNED,
    BASELINES,
    BY_PROBABILITY,
    CHAMPION,
    PRETRAINED,
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


Nights = Mapping[str, Sequence[Path]]
"""Directories of the `offline_metrics` artifacts by day, one of every seed."""


def case_rows(nights: Nights) -> pd.DataFrame:
    """Values per case of all systems but the champion, which is another model each day.

    Returns:
        `schema.CASE_METRICS` with a column `day`; systems in the order of the first run.

    Raises:
        ValueError: There is no nightly run, or a system was measured in some of them only.
    """
    if not nights:
        raise ValueError("days: none has offline_metrics; run a nightly run first")
    tables = {
        day if number == 1 else f"{day}, seed {number}": (
            read_case_metrics(path, slice=None).to_pandas().assign(day=day)
        )
        for day, paths in nights.items()
        for number, path in enumerate(paths, 1)
    }
    tables = {
        run: table[table["system"] != CHAMPION]
        for run, table in _with_rows_without_recency(tables).items()
    }
    first_run, first = next(iter(tables.items()))
    for run, table in tables.items():
        odd = sorted(set(table["system"]) ^ set(first["system"]))
        if odd:
            raise ValueError(
                f"{', '.join(odd)}: measured on {first_run} or on {run} only; make baselines and "
                "offline_metrics of both again with the same baselines, or name fewer days"
            )
    return pd.concat(tables.values(), ignore_index=True)


def pooled_users(rows: pd.DataFrame) -> dict[str, CaseValues]:
    """Mean of every user's days and seeds: by system, (U,) values by metric.

    Args:
        rows: As of `case_rows`.
    """
    users = rows["user_id"].astype(str)  # sorted by id, not by category
    values = rows.groupby(["system", "metric", "slice", users], observed=True)["value"].mean()
    return {
        system: {
            metric: values[system, *metric].to_numpy()
            for metric in (*RANKING, *REWARDS)
            if (system, *metric) in values
        }
        for system in rows["system"].unique()
    }


def _with_rows_without_recency(nights: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Copy a system's rows to `<system>_without_recency` in runs where its prior has weight 0."""
    tables = {run: table.astype({"system": str}) for run, table in nights.items()}
    measured = {name for table in tables.values() for name in table["system"].unique()}
    for run, table in tables.items():
        found = set(table["system"])
        for system in sorted(found):
            name = without_recency(system)
            if name in measured - found:
                same = table[table["system"] == system].assign(system=name)
                tables[run] = pd.concat([tables[run], same], ignore_index=True)
    return tables


def walk_forward_tables(
    nights: Nights,
    data: str,
    provenance: Provenance,
    evaluation: EvaluationConfig,
    seconds: Mapping[str, float] | None = None,
) -> list[ResultTable]:
    """Every night by itself, ranking with differences to every baseline, and rewards.

    Args:
        nights: What was measured.
        data: Name of the data set, for the tables' names.
        provenance: Data, settings and commit.
        evaluation: Confidence, resamples and seed of the intervals.
        seconds: Time of each system on all days together, where known.
    """
    rows = case_rows(nights)
    pooled = pooled_users(rows)
    metrics = _metrics(pooled, evaluation)
    seeds = len(provenance.seeds)
    costs = {s: TrainingCost(seeds=seeds, seconds=(seconds or {}).get(s)) for s in pooled}
    num_users = len(next(iter(pooled.values()))[HEADLINE])
    num_cases = len(rows[["day", "user_id"]].drop_duplicates())
    protocol = (
        f"{len(nights)} test day(s), {', '.join(nights)}: each run's models are trained on the "
        f"days before and tested on the next. {num_cases:,} cases of {num_users:,} users, full "
        "catalogue, no seen-item filter except for by_probability and with_reward: these are dpo "
        "as it would serve, and compare with one another only. A user's days "
        f"{'and seeds ' if seeds > 1 else ''}are averaged, users are resampled."
    )
    return [
        replace(table, costs=costs)
        for table in (
            _nights_table(rows, metrics, data, protocol, provenance, evaluation),
            _ranking_table(metrics, data, protocol, provenance),
            _rewards_table(metrics, data, protocol, provenance),
        )
    ]


def _nights_table(
    rows: pd.DataFrame,
    metrics: MetricTable,
    data: str,
    protocol: str,
    provenance: Provenance,
    evaluation: EvaluationConfig,
) -> ResultTable:
    """Recall@10 of every night, and what the two models of a nightly run gain over all nights."""
    found = [row for row in metrics.rows if row.column == TableColumn(*HEADLINE)]
    days = [str(day) for day in rows["day"].unique()]
    for day in days:
        pooled = pooled_users(rows[rows["day"] == day])
        intervals = bootstrap_means(
            np.stack([values[HEADLINE] for values in pooled.values()], axis=1),
            samples=evaluation.bootstrap_samples,
            confidence=evaluation.confidence,
            seed=evaluation.seed,
        )
        column = TableColumn(HEADLINE.name, day)
        found += [MetricRow.of(s, column, i) for s, i in zip(pooled, intervals, strict=True)]
    gains = {own: TableColumn(f"{own}_minus_it") for own in (PRETRAINED, ALIGNED)}
    found += [
        MetricRow.of(row.reference, gains[row.system], row.interval)
        for row in metrics.rows
        if row.system in gains and row.metric == HEADLINE.name and row.reference is not None
    ]
    return ResultTable(
        name=f"walk_forward_{data}_nights",
        title=f"Walk-forward on {data}: Recall@10 by test day",
        text=f"The last two columns are paired differences over all nights. {protocol}",
        metrics=MetricTable(tuple(found)),
        provenance=provenance,
        columns={
            **{TableColumn(HEADLINE.name, day): day for day in days},
            TableColumn(*HEADLINE): "all",
            **{column: f"{own} minus it" for own, column in gains.items()},
        },
        pictured=[TableColumn(*HEADLINE)],
    )


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
    """Generators against the best baseline, the aligned one against the pretrained one, and lists
    by reward against those by probability."""
    found = [f"The best baseline by Recall@10 is {best}."]
    for system, other in dict.fromkeys(
        (row.system, row.reference) for row in metrics.rows if row.metric == HEADLINE.name
    ):
        own = (system, other) in ((ALIGNED, PRETRAINED), (WITH_REWARD, BY_PROBABILITY))
        if own or (other == best and not _is_baseline(system)):
            gain = metrics.find(system, HEADLINE.name, reference=other)
            found.append(
                f"{system} against {other}: {gain.significance}, {gain.text(signed=True)}."
            )
    return found
