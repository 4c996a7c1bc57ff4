"""The night's numbers for people and for programs: a table, `metrics.json`, `report.html`.

All three are made from one flat object, in which a metric is `name` and its interval is `name_low`
and `name_high`. `report.html` is one file without any outside reference; it follows the reader's
light or dark setting.
"""

import html
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onerec import pictures
from onerec.artifacts import ArtifactStore, read_json, write_json
from onerec.config import BASELINES, SERVED

Metrics = Mapping[str, Any]

SYSTEMS = (*BASELINES, "pretrained", "dpo", *SERVED)
"""Order of the rows; a system that is not named here follows."""

HEADLINES = {
    "recall@10": "Recall@10",
    "ndcg@10": "NDCG@10",
    "evaluator_reward": "Evaluator reward",
}
CLOSER = {
    "hit_rate@10": "HitRate@10",
    "mrr@10": "MRR@10",
    "recall@5": "Recall@5",
    "recall@20": "Recall@20",
    "training_reward": "Training reward",
}
SLICES = {
    "recall@10_cold": "cold items",
    "recall@10_warm": "warm items",
    "recall@10_hot": "hot items",
    "recall@10_short_history": "short history",
    "recall@10_long_history": "long history",
}
CHARACTER = {
    "diversity@10": "Diversity@10",
    "novelty@10": "Novelty@10 (bits)",
    "coverage@10": "Coverage@10",
    "gini@10": "Gini@10",
}
TOWERS, TRAINING_TOWERS = (
    {
        f"{evaluator}_{tower}_{part}": f"{tower} {part}"
        for tower in ("swt", "vtr", "wtr", "ltr")
        for part in ("mean", "max")
    }
    for evaluator in ("evaluator", "training")
)
GAINS = {
    "training_reward": "by the reward that trained",
    "evaluator_reward": "by the evaluator",
    "reward_gap": "gap",
}


def systems(metrics: Metrics) -> list[str]:
    """Systems that were measured, baselines first.

    Examples:
        >>> systems({"dpo_recall@10": 0.1, "popularity_recall@10": 0.05, "dpo_recall@10_low": 0.09})
        ['popularity', 'dpo']
    """
    found = [k.removesuffix("_recall@10") for k in metrics if k.endswith("_recall@10")]
    found = [s for s in found if "_minus_" not in s]
    return sorted(found, key=lambda s: (SYSTEMS.index(s) if s in SYSTEMS else len(SYSTEMS), s))


def metric_table(metrics: Metrics) -> str:
    """The headline metrics with their intervals, as text for a terminal."""
    body = [[s, *(cell(metrics, f"{s}_{m}") for m in HEADLINES)] for s in systems(metrics)]
    body += [[_sign(d), *(cell(metrics, f"{d}_{m}") for m in HEADLINES)] for d in _pairs(metrics)]
    lines = _aligned([["system", *HEADLINES.values()], *body])
    return "\n".join([*_facts(metrics), "", *lines, "", *_verdict(metrics)])


def markdown_table(metrics: Metrics, columns: Mapping[str, str] = HEADLINES) -> str:
    """Systems by metrics with intervals, as Markdown."""
    rows = [[s, *(cell(metrics, f"{s}_{m}") for m in columns)] for s in systems(metrics)]
    if columns is HEADLINES:
        rows += [[_sign(d), *(cell(metrics, f"{d}_{m}") for m in columns)] for d in _pairs(metrics)]
    head = ["system", *columns.values()]
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


def metric_pictures(metrics: Metrics) -> dict[str, str]:
    """Bars with intervals per headline metric, and Recall@10 by slice of the best system."""
    names = systems(metrics)
    drawn = {
        title: pictures.bar_chart(
            {s: _bar(metrics, f"{s}_{metric}") for s in names},
            f"{title}, test day {metrics.get('test_day', '')}",
            "share of targets found" if metric == "recall@10" else title,
        )
        for metric, title in HEADLINES.items()
    }
    if names:
        last = names[-1]
        drawn["Recall@10 by slice"] = pictures.bar_chart(
            {title: _bar(metrics, f"{last}_{key}") for key, title in SLICES.items()},
            f"Recall@10 of {last} by slice",
            "share of targets found",
        )
    return drawn


def write_report(
    directory: Path,
    metrics: Metrics,
    *,
    store: ArtifactStore | None = None,
    day: str | None = None,
    drawn: Mapping[str, str] | None = None,
) -> Path:
    """Write `metrics.json` and `report.html`.

    Args:
        directory: Made if it is not there.
        metrics: The flat object; numbers that are not finite become null.
        store: Where the night's artifacts are, for the pictures of their making.
        day: The night's partition in the store.
        drawn: More pictures by title, SVG.

    Returns:
        Path of the HTML file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    metrics = without_nan(metrics)
    write_json(directory / "metrics.json", metrics)
    shown = {**metric_pictures(metrics), **(drawn or {})}
    if store is not None and day is not None:
        shown |= artifact_pictures(store, day)
    path = directory / "report.html"
    path.write_text(_page(metrics, shown))
    return path


def without_nan(metrics: Metrics) -> dict[str, Any]:
    """The same with null for what is not finite: NaN is not JSON."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metrics.items()
    }


def artifact_pictures(store: ArtifactStore, day: str) -> dict[str, str]:
    """How the night's artifacts were made: sessions, codes, losses, calibration.

    An artifact that the night does not have is left out.
    """

    def read(asset: str, name: str) -> dict[str, Any]:
        file = _file(store, asset, day, name)
        return read_json(file) if file else {}

    drawn = {}
    steps = read("session_dataset", "stats.json").get("funnel")
    if steps:
        drawn["sessions"] = pictures.funnel(steps, "What is left of the log")
    levels = read("semantic_ids", "diagnostics.json").get("levels")
    if levels:
        usage = {f"level {n}": sorted(v["usage"], reverse=True) for n, v in enumerate(levels, 1)}
        drawn["codes"] = pictures.line_chart(
            usage, "Items per code", "code, most used first", "items"
        )
    for asset in ("pretrained_checkpoint", "dpo_checkpoint"):
        curves = _curves(read(asset, "history.json").get("epochs") or [])
        if curves:
            title = f"{asset}: losses"
            drawn[title] = pictures.line_chart(curves, title, "epoch", "loss (nats)")
    for asset in ("reward_model", "evaluator_model"):
        towers = read(asset, "metrics.json").get("towers", {})
        curves = {
            name: (t["reliability"]["predicted"], t["reliability"]["observed"])
            for name, t in towers.items()
            if t.get("reliability")
        }
        if curves:
            title = f"{asset}: calibration"
            drawn[title] = pictures.scatter(
                curves, title, "predicted rate", "observed rate", diagonal=True
            )
    return drawn


def cell(metrics: Metrics, name: str, decimals: int = 4) -> str:
    """A value with its interval.

    Examples:
        >>> cell({"x": 0.05, "x_low": 0.04, "x_high": 0.0612}, "x"), cell({"x": None}, "x")
        ('0.0500 [0.0400, 0.0612]', 'n/a')
    """
    value, low, high = (_number(metrics, f"{name}{end}") for end in ("", "_low", "_high"))
    if math.isnan(value):
        return "n/a"
    sign = "+" if "_minus_" in name else ""
    if math.isnan(low) or math.isnan(high):
        return f"{value:{sign}.{decimals}f}"
    shown = [f"{number:{sign}.{decimals}f}" for number in (value, low, high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _facts(metrics: Metrics) -> list[str]:
    parts = [f"test day {metrics.get('test_day', 'unknown')}"]
    if "users" in metrics:
        parts.append(f"{metrics['users']:,} users")
    if "candidate_items" in metrics:
        parts.append(
            f"{metrics['candidate_items']:,} candidate items; only by_* leave out seen ones"
        )
    lines = [", ".join(parts)]
    if "bootstrap_confidence" in metrics:
        lines.append(f"[{metrics['bootstrap_confidence']:.0%} bootstrap interval over users]")
    return lines


def _verdict(metrics: Metrics) -> list[str]:
    lines = []
    if "legal_share" in metrics:
        lines.append(
            f"generated sessions: {_number(metrics, 'legal_share'):.2%} legal, "
            f"{_number(metrics, 'repeat_free_share'):.2%} free of repeats"
        )
    aucs = {t: cell(metrics, f"reward_auc_{t}", 3) for t in ("swt", "vtr", "wtr", "ltr")}
    if set(aucs.values()) != {"n/a"}:
        lines.append("reward model AUC on the validation day [95% interval over its rows]:")
        lines.append("  " + ", ".join(f"{tower} {text}" for tower, text in aucs.items()))
    if "promoted" in metrics:
        verdict = "promoted" if metrics["promoted"] else "refused, the champion stays"
        lines.append(f"challenger: {verdict}")
    return lines


def _pairs(metrics: Metrics) -> list[str]:
    found = [k.removesuffix("_recall@10") for k in metrics if k.endswith("_recall@10")]
    return [d for d in found if "_minus_" in d]


def _sign(pair: str) -> str:
    return pair.replace("_minus_", " - ")


def _number(metrics: Metrics, name: str) -> float:
    value = metrics.get(name)
    return float("nan") if value is None else float(value)


def _bar(metrics: Metrics, name: str) -> tuple[float, float, float]:
    value, low, high = (_number(metrics, f"{name}{end}") for end in ("", "_low", "_high"))
    return value, low, high


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _file(store: ArtifactStore, asset: str, day: str, name: str) -> Path | None:
    if day not in store.partitions(asset):
        return None
    file = store.latest(asset, day).path / name
    return file if file.exists() else None


def _curves(epochs: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The losses among an epoch's numbers; lists of numbers are no curve."""
    names = [k for k, v in epochs[0].items() if re.search(r"loss|nll", k)] if epochs else []
    names = [k for k in names if not any(isinstance(row.get(k), list) for row in epochs)]
    return {k: [math.nan if row.get(k) is None else float(row[k]) for row in epochs] for k in names}


_CSS = """
:root { color-scheme: light dark; --ink: #1f2328; --quiet: #59636e; --line: #d1d9e0; --page: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --quiet: #9198a1; --line: #3d444d; --page: #0d1117; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
       max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
p { color: var(--quiet); max-width: 75ch; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13.5px; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line);
         white-space: nowrap; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
.pictures svg { max-width: 100%; height: auto; border-radius: 6px; background: #fff; }
"""


def _page(metrics: Metrics, shown: Mapping[str, str]) -> str:
    rows = systems(metrics)
    tables = [
        ("Systems", HEADLINES, rows, "Same cases, histories and candidates for all."),
        ("Differences", HEADLINES, _pairs(metrics), "Paired over users."),
        ("More metrics", CLOSER, rows, "Training reward: the model that chose the pairs."),
        ("Slices of Recall@10", SLICES, rows, "Cold items were not shown in the window."),
        ("What the lists are like", CHARACTER, rows, ""),
        (
            "Evaluator's view of the sessions",
            TOWERS,
            rows,
            "Mean and maximum over a case's sessions; a baseline's first items are its one.",
        ),
        (
            "The same by the reward that trained the generator",
            TRAINING_TOWERS,
            rows,
            "Not independent evidence: what rises here and not above was gained by pleasing it.",
        ),
        (
            "Reward gained, and by whose word",
            GAINS,
            _pairs(metrics),
            "A gap above zero beyond noise is reward hacking.",
        ),
    ]
    title = f"One night, test day {metrics.get('test_day', '')}"
    note = "" if metrics.get("dataset") != "simulated" else "<p>The data are simulated.</p>"
    parts = [f"<h1>{html.escape(title)}</h1>", note]
    parts += [f"<p>{html.escape(line)}</p>" for line in [*_facts(metrics), *_verdict(metrics)]]
    for heading, columns, names, hint in tables:
        if any(f"{s}_{c}" in metrics for s in names for c in columns):
            parts.append(f"<h2>{heading}</h2><p>{hint}</p>{_table(metrics, names, columns)}")
    parts.append(f'<h2>Pictures</h2><div class="pictures">{"".join(shown.values())}</div>')
    seconds = {k.removeprefix("seconds_"): v for k, v in metrics.items() if k[:8] == "seconds_"}
    if seconds:
        longest = sorted(seconds, key=lambda step: -seconds[step])
        steps = pictures.bar_chart({s: seconds[s] for s in longest}, "Time per step", "seconds")
        parts.append(f'<h2>Time</h2><div class="pictures">{steps}</div>')
    every = "".join(
        f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v))}</td></tr>"
        for k, v in sorted(metrics.items())
    )
    parts.append(f"<details><summary>Every number</summary><table>{every}</table></details>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_CSS}</style></head>\n"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _table(metrics: Metrics, names: Sequence[str], columns: Mapping[str, str]) -> str:
    head = "".join(f"<th>{html.escape(c)}</th>" for c in ("system", *columns.values()))
    body = "".join(
        f"<tr><td>{html.escape(_sign(s))}</td>"
        + "".join(f"<td>{cell(metrics, f'{s}_{c}')}</td>" for c in columns)
        + "</tr>"
        for s in names
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
