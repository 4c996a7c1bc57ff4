"""A nightly run's numbers for people and for programs: a text table, `metrics.json`, `report.html`.

`report.html` is one file without any outside reference; it follows the reader's light or dark
setting.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from onerec.alignment.round_gate import refusal
from onerec.artifacts import ArtifactStore, read_json, write_json
from onerec.config import ALIGNED, PRETRAINED, SYSTEMS
from onerec.evaluation.metric_table import ALL, Metric, MetricTable
from onerec.evaluation.protocol import EvaluationProtocol
from onerec.promotion.champion import what_serves
from onerec.report.nightly_pictures import (
    HEADLINE_TITLES,
    SLICE_TITLES,
    artifact_pictures,
    metric_pictures,
    step_pictures,
)

Columns = Mapping[Metric, str]
"""Title of the column of each metric."""

HEADLINES: Columns = {Metric(name): title for name, title in HEADLINE_TITLES.items()}
MORE_METRICS: Columns = {
    Metric("hit_rate@10"): "HitRate@10",
    Metric("mrr@10"): "MRR@10",
    Metric("recall@5"): "Recall@5",
    Metric("recall@20"): "Recall@20",
    Metric("training_reward"): "Training reward",
}
SLICES: Columns = {Metric("recall@10", part): title for part, title in SLICE_TITLES.items()}
BEYOND_ACCURACY: Columns = {
    Metric("diversity@10"): "Diversity@10",
    Metric("novelty@10"): "Novelty@10 (bits)",
    Metric("coverage@10"): "Coverage@10",
    Metric("gini@10"): "Gini@10",
}
GAINS: Columns = {
    Metric("training_reward"): "by the reward that trained",
    Metric("evaluator_reward"): "by the evaluator",
    Metric("reward_gap"): "gap",
}


@dataclass(frozen=True, kw_only=True)
class NightlyReport:
    """What a report is made of.

    Attributes:
        metrics: Of the `offline_metrics` artifact.
        protocol: Of the same.
        dataset: Name of the data set.
        promoted: Whether the challenger became the champion; None before the decision.
        challenger: Name in metrics of the model that was the challenger; None before the decision.
        challenger_reason: Why that one.
        refused_round: Why the alignment round was refused; the aligned checkpoint is then the
            pretrained one, and its rows would repeat that one's. Empty where it was published.
        serves: What serves if it was refused: the incumbent, or the name of a simple system.
        seconds: Time of every step.
        peak_gib: Peak memory of every step.
        peak_rss_gib: Peak memory of the whole run.
    """

    metrics: MetricTable
    protocol: EvaluationProtocol
    dataset: str = ""
    promoted: bool | None = None
    challenger: str | None = None
    challenger_reason: str = ""
    refused_round: str = ""
    serves: str = "incumbent"
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_gib: Mapping[str, float] = field(default_factory=dict)
    peak_rss_gib: float | None = None

    @property
    def shown(self) -> MetricTable:
        """The numbers that tables and pictures show: each generator once."""
        return without_aligned(self.metrics) if self.refused_round else self.metrics


def load_report(store: ArtifactStore, day: str, dataset: str, **resources: Any) -> NightlyReport:
    """The report of a nightly run that is over.

    Args:
        store: Has its artifacts.
        day: Its partition.
        dataset: Name of the data set.
        resources: `seconds`, `peak_gib` and `peak_rss_gib`, where they were measured.

    Raises:
        ArtifactMissingError: The nightly run has no metrics, or no decision.
    """
    measured = store.latest("offline_metrics", day).path
    decision = read_json(store.latest("champion", day).path / "champion.json")
    return NightlyReport(
        metrics=MetricTable.load(measured),
        protocol=EvaluationProtocol.load(measured),
        dataset=dataset,
        promoted=decision["promoted"],
        serves=what_serves(decision),
        challenger=decision.get("challenger_system"),
        challenger_reason=decision.get("challenger_reason", ""),
        refused_round=refusal(store.latest("dpo_checkpoint", day).path),
        **resources,
    )


def without_aligned(metrics: MetricTable) -> MetricTable:
    """The numbers of a day whose alignment round was refused: the aligned checkpoint is the
    pretrained one, and its rows would repeat that one's."""
    rows = (r for r in metrics.rows if ALIGNED not in (r.system, r.reference))
    return MetricTable(tuple(rows))


def text_table(report: NightlyReport) -> str:
    """The headline metrics with their intervals, as text for a terminal."""
    lines = _aligned([["system", *HEADLINES.values()], *headline_rows(report.shown)])
    return "\n".join([*_facts(report.protocol), "", *lines, "", *_outcome(report)])


def headline_rows(metrics: MetricTable) -> list[list[str]]:
    """Systems, then paired differences, by the headline metrics."""
    return _system_rows(metrics, HEADLINES) + _pair_rows(metrics, HEADLINES)


def systems(metrics: MetricTable) -> list[str]:
    """Systems that were measured, in the order of tables; a system of another name follows."""
    found = metrics.systems("recall@10")
    return sorted(found, key=lambda s: (SYSTEMS.index(s) if s in SYSTEMS else len(SYSTEMS), s))


def metrics_json(report: NightlyReport) -> dict[str, Any]:
    """`metrics.json`: the numbers of a report as one object, for programs.

    A value is `<system>_<metric>`, of a slice `<system>_<metric>_<slice>`, a difference
    `<system>_minus_<reference>_<metric>`; its interval stands in `<name>_low` and `<name>_high`.
    `seconds` and `peak_gib` map a step to what it took. What is not finite becomes null: NaN is not
    JSON.
    """
    flat: dict[str, Any] = {}
    for row in report.metrics.rows:
        system = row.system if row.reference is None else f"{row.system}_minus_{row.reference}"
        name = "_".join([system, row.metric, *([] if row.slice == ALL else [row.slice])])
        flat |= {name: row.value} if row.low is None else row.interval.flat(name)
    flat |= {
        name: report.metrics.lowest(name)
        for name in ("legal_share", "repeat_free_share")
        if report.metrics.systems(name)
    }
    protocol = ("test_day", "users", "mean_targets", "candidate_items", "bootstrap_confidence")
    flat |= {name: getattr(report.protocol, name) for name in protocol}
    facts = {
        "seconds": dict(report.seconds),
        "peak_gib": dict(report.peak_gib),
        "dataset": report.dataset,
        "promoted": report.promoted,
        "challenger": report.challenger,
        "peak_rss_gib": report.peak_rss_gib,
    }
    flat |= {name: value for name, value in facts.items() if value is not None}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in flat.items()
    }


def write_report(
    directory: Path,
    report: NightlyReport,
    *,
    store: ArtifactStore | None = None,
) -> Path:
    """Write `metrics.json` and `report.html`.

    Args:
        directory: Made if it is not there.
        report: The numbers.
        store: Holds the artifacts of the day, for the pictures of how they were made.

    Returns:
        Path of the HTML file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    numbers = metrics_json(report)
    write_json(directory / "metrics.json", numbers)
    test_day = report.protocol.test_day
    measured = systems(report.shown)  # none on a test day without users
    shown = metric_pictures(report.shown, measured, test_day) if measured else {}
    if store is not None:
        shown |= artifact_pictures(store, test_day)
    shown |= step_pictures(report.seconds)
    simulated = ["The data are simulated."] if report.dataset == "simulated" else []
    templates = Environment(loader=PackageLoader("onerec.report"), autoescape=True)
    page = templates.get_template("report.html").render(
        title=f"Nightly run, test day {test_day}",
        lines=[*simulated, *_facts(report.protocol), *_outcome(report)],
        tables=_tables(report.shown),
        pictures=shown.values(),
        numbers=numbers,
    )
    path = directory / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _tables(metrics: MetricTable) -> list[dict[str, Any]]:
    """The tables of the page; those without any number are left out."""
    own, pairs = _system_rows, _pair_rows
    tables = [
        ("Systems", HEADLINES, own, "Same cases, histories and candidates for all."),
        ("Differences", HEADLINES, pairs, "Paired over users."),
        ("More metrics", MORE_METRICS, own, "Training reward: the model that chose the pairs."),
        ("Slices of Recall@10", SLICES, own, "Cold items were not shown in the window."),
        ("Beyond accuracy", BEYOND_ACCURACY, own, ""),
        (
            "Sessions by the evaluator",
            _tower_columns(metrics, "evaluator"),
            own,
            "Mean and maximum over a case's sessions; a baseline's first items are its one.",
        ),
        (
            "Sessions by the reward model that trained the generator",
            _tower_columns(metrics, "training"),
            own,
            "Not independent evidence: what rises here and not above is reward hacking.",
        ),
        (
            "Reward gained",
            GAINS,
            pairs,
            "A gap whose confidence interval lies above 0 is reward hacking.",
        ),
    ]
    made = [
        {
            "heading": heading,
            "hint": hint,
            "columns": ["system", *columns.values()],
            "rows": rows(metrics, columns),
        }
        for heading, columns, rows, hint in tables
    ]
    return [t for t in made if any(cell != "n/a" for row in t["rows"] for cell in row[1:])]


def _tower_columns(metrics: MetricTable, reward_model: str) -> Columns:
    """Mean and maximum of every tower that a reward model has."""
    found = (row.slice for row in metrics.rows if row.metric == f"{reward_model}_mean")
    return {
        Metric(f"{reward_model}_{part}", tower): f"{tower} {part}"
        for tower in dict.fromkeys(found)
        for part in ("mean", "max")
    }


def _system_rows(metrics: MetricTable, columns: Columns) -> list[list[str]]:
    return [
        [system, *(metrics.find(system, m.name, slice=m.slice).text() for m in columns)]
        for system in systems(metrics)
    ]


def _pair_rows(metrics: MetricTable, columns: Columns) -> list[list[str]]:
    return [
        [
            f"{system} - {reference}",
            *(metrics.find(system, m.name, reference=reference).text(signed=True) for m in columns),
        ]
        for system, reference in metrics.pairs()
    ]


def _facts(protocol: EvaluationProtocol) -> list[str]:
    seen = "users come back to items: no system leaves"
    if protocol.filter_seen:
        seen = "by_probability and with_reward leave"
    interval = f"[{protocol.bootstrap_confidence:.0%} bootstrap interval over users]"
    if not protocol.users:
        interval = (
            f"no metrics: no user consumed on {protocol.test_day} an item that was known before"
        )
    return [
        f"test day {protocol.test_day}, {protocol.users:,} users, "
        f"{protocol.candidate_items:,} candidate items; {seen} out seen ones",
        interval,
    ]


def _outcome(report: NightlyReport) -> list[str]:
    metrics, lines = report.metrics, []
    if metrics.systems("legal_share"):
        lines.append(
            f"generated sessions: {metrics.lowest('legal_share'):.2%} legal, "
            f"{metrics.lowest('repeat_free_share'):.2%} free of repeats"
        )
    aucs = {
        row.slice: row.interval.text(decimals=3)
        for row in metrics.rows
        if (row.system, row.metric) == ("reward", "auc")
    }
    aucs |= dict.fromkeys(report.protocol.missing_signals, "no such signal")
    if set(aucs.values()) - {"n/a", "no such signal"}:
        lines.append("reward model AUC on the validation day [95% interval over its rows]:")
        lines.append("  " + ", ".join(f"{tower} {text}" for tower, text in aucs.items()))
    if report.protocol.scalar_reward:
        lines.append("scalar reward of a session, the sum of:")
        lines += [f"  {term}" for term in report.protocol.scalar_reward]
    if report.refused_round:
        lines.append(
            f"alignment round refused: {report.refused_round}. {ALIGNED} is the generator of "
            f"{PRETRAINED} and has no row of its own"
        )
    elif report.challenger == PRETRAINED:
        lines.append(f"the challenger is {report.challenger_reason}")
    if report.promoted is not None:
        decision = "promoted" if report.promoted else f"refused, {report.serves} serves"
        pretrained = report.refused_round or report.challenger == PRETRAINED
        which = f" (the {PRETRAINED} generator)" if pretrained else ""
        lines.append(f"challenger{which}: {decision}")
    return lines


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]
