"""Tables of variants pooled over seeds: alignment methods and ablations.

Shapes: S seeds, C cases (users).
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from experiments.reporting.result_tables import Provenance, ResultTable
from experiments.reporting.seed_intervals import SeededValues, seeded_rows
from experiments.variants.evaluation import FACTS, SYSTEM
from onerec.artifacts import read_json
from onerec.config import EvaluationConfig
from onerec.evaluation.metric_table import (
    Metric,
    MetricRow,
    MetricTable,
    TableColumn,
    read_case_metrics,
)
from onerec.evaluation.protocol import EvaluationProtocol
from onerec.statistics import Interval

METRICS = ("recall@10", "ndcg@10", "evaluator_reward", "training_reward", "reward_gap")
"""Metrics pooled per user. `reward_gap` is the training reward minus the evaluator's; its increase
against the reference is reward hacking."""
TOTALS = ("legal_share", "coverage@10")
"""Metrics of a whole system, averaged over seeds."""
SHOWN_FACTS = {
    "train_sessions": "train_sessions",
    "kl_to_start": "alignment_kl_to_start",
    "chosen_logp_change": "alignment_chosen_logp_change",
}
"""Training facts shown, averaged over seeds: column -> name in `facts.json`."""
PROTOCOL = ("test_day", "cases", "candidates", "reward_models")
"""Parts of the protocol that compared results must share. Tokens may differ: metrics count items,
and every variant keeps the nightly run's item rows."""


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """One variant with one seed.

    Attributes:
        variant: Its name.
        seed: Its seed.
        directory: Directory that `evaluate_variant` wrote.
        seconds: Time it took, if known.
    """

    variant: str
    seed: int
    directory: Path
    seconds: float | None = None


def pooled(results: Iterable[VariantResult]) -> dict[str, SeededValues]:
    """Per-user values of every variant, a row per seed, in the order of the results.

    Raises:
        ValueError: Two results were measured on different cases; the message has the remedy.
    """
    by_variant: dict[str, list[VariantResult]] = {}
    for result in results:
        by_variant.setdefault(result.variant, []).append(result)
    everything = [result for group in by_variant.values() for result in group]
    _check_same_protocol(everything)
    return {name: _seeded(group) for name, group in by_variant.items()}


def comparison(
    results: Sequence[VariantResult],
    reference: str,
    name: str,
    day: date,
    provenance: Provenance,
    evaluation: EvaluationConfig,
) -> ResultTable:
    """A table of variants against a reference variant.

    Args:
        results: Results of every variant and seed.
        reference: The variant that the others are compared with.
        name: File name of the table.
        day: The nightly run's test day.
        provenance: Data, settings and commit.
        evaluation: Confidence, resamples and seed of the intervals.

    Raises:
        ValueError: The reference has no result, or results are not comparable.
    """
    known = dict.fromkeys(result.variant for result in results)
    if reference not in known:
        raise ValueError(
            f"reference={reference!r}: there is no result of it, only of {', '.join(known)}; make "
            "its partition first"
        )
    systems = pooled(results)
    rows = seeded_rows(
        systems,
        [Metric(name) for name in METRICS],
        minus=(reference,),
        samples=evaluation.bootstrap_samples,
        confidence=evaluation.confidence,
        seed=evaluation.seed,
    )
    rows += [row for name in systems for row in _training_facts(name, results)]
    columns = _columns(rows, reference)
    compared = (TableColumn(m, reference=reference) for m in ("recall@10", "evaluator_reward"))
    return ResultTable(
        name=name,
        title=name.replace("_", " ").capitalize(),
        text=f"The nightly run of {day} with one change at a time, on the same cases and by the "
        f"same reward models; differences are to {reference}, paired by user and seed. Brackets "
        "resample users and seeds.",
        metrics=MetricTable(tuple(rows)),
        provenance=provenance,
        costs={name: system.cost for name, system in systems.items()},
        columns=columns,
        pictured=[column for column in compared if column in columns],
        findings=significant_differences(rows, reference),
    )


def _columns(rows: Sequence[MetricRow], reference: str) -> dict[TableColumn, str]:
    """Columns shown, those without rows left out."""
    sessions = TableColumn("train_sessions")
    columns = {
        TableColumn("recall@10"): "Recall@10",
        TableColumn("recall@10", reference=reference): f"Recall@10 - {reference}",
        TableColumn("evaluator_reward"): "evaluator reward",
        TableColumn("evaluator_reward", reference=reference): f"evaluator reward - {reference}",
        TableColumn("reward_gap", reference=reference): "gained by the training reward alone",
        TableColumn("kl_to_start"): "KL to the start",
        sessions: "training sessions",
        TableColumn("legal_share"): "legal",
    }
    if len({row.value for row in rows if row.column == sessions}) == 1:
        del columns[sessions]  # the same for every variant
    found = {row.column for row in rows}
    return {column: title for column, title in columns.items() if column in found}


def significant_differences(rows: Sequence[MetricRow], reference: str) -> list[str]:
    """Variants with a significant difference, in a sentence per metric."""
    found_out = []
    for metric, shown in (("recall@10", "Recall@10"), ("evaluator_reward", "evaluator reward")):
        column = TableColumn(metric, reference=reference)
        found = {row.system: row.interval for row in rows if row.column == column}
        if not found:
            continue
        sides = ("significantly above", "significantly below")
        by_side = {
            side: [name for name, gain in found.items() if gain.significance == side]
            for side in sides
        }
        listed = "; ".join(f"{side}: {', '.join(by_side[side]) or 'none'}" for side in sides)
        best = max(found, key=lambda name: found[name].mean)
        found_out.append(
            f"{shown} against {reference}: {listed}; largest difference {best} "
            f"({found[best].mean:+.4f})."
        )
    return found_out


def _training_facts(variant: str, results: Sequence[VariantResult]) -> list[MetricRow]:
    group = [result for result in results if result.variant == variant]
    tables = [MetricTable.load(result.directory) for result in group]
    facts = [read_json(result.directory / FACTS) for result in group]
    found = {name: [table.find(SYSTEM, name).mean for table in tables] for name in TOTALS}
    found |= {column: [f.get(key, np.nan) for f in facts] for column, key in SHOWN_FACTS.items()}
    known = {name: np.array(values)[~np.isnan(values)] for name, values in found.items()}
    return [
        MetricRow.of(variant, TableColumn(name), Interval(float(values.mean()), np.nan, np.nan))
        for name, values in known.items()
        if len(values)
    ]


def _seeded(group: Sequence[VariantResult]) -> SeededValues:
    directories = [r.directory for r in sorted(group, key=lambda result: result.seed)]
    values: dict[Metric, np.ndarray] = {}
    for metric in METRICS[:-1]:
        rows = (read_case_metrics(d, system=SYSTEM, metric=metric) for d in directories)
        values[Metric(metric)] = np.stack([table.column("value").to_numpy() for table in rows])
    training, evaluator = (values[Metric(f"{name}_reward")] for name in ("training", "evaluator"))
    values[Metric("reward_gap")] = training - evaluator
    seconds = [result.seconds for result in group if result.seconds is not None]
    return SeededValues(values, sum(seconds) if seconds else None)


def _check_same_protocol(results: Sequence[VariantResult]) -> None:
    first_seen: dict[str, tuple[Any, VariantResult]] = {}
    for result in results:
        protocol = asdict(EvaluationProtocol.load(result.directory))
        for part in PROTOCOL:
            first, whose = first_seen.setdefault(part, (protocol[part], result))
            if protocol[part] != first:
                raise ValueError(
                    f"{part}={protocol[part]!r} of {result.variant} (seed {result.seed}) and "
                    f"{first!r} of {whose.variant} (seed {whose.seed}): their difference is "
                    "not meaningful; make both partitions again for one day"
                )
