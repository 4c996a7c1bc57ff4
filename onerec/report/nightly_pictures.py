"""Pictures of a nightly run, SVG by title: its metrics, how its artifacts were made, its time."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from onerec.artifacts import ArtifactStore, read_json
from onerec.evaluation.metric_table import MetricTable
from onerec.report import pictures

HEADLINE_TITLES = {
    "recall@10": "Recall@10",
    "ndcg@10": "NDCG@10",
    "evaluator_reward": "Evaluator reward",
}
SLICE_TITLES = {
    "cold": "cold items",
    "warm": "warm items",
    "hot": "hot items",
    "short_history": "short history",
    "long_history": "long history",
}
FOUND = "share of targets found"


def metric_pictures(metrics: MetricTable, systems: Sequence[str], test_day: str) -> dict[str, str]:
    """Bars with intervals per headline metric, and Recall@10 by slice of the last system."""
    drawn = {
        title: pictures.bar_chart(
            {system: metrics.find(system, metric) for system in systems},
            f"{title}, test day {test_day}",
            FOUND if metric == "recall@10" else title,
        )
        for metric, title in HEADLINE_TITLES.items()
    }
    if systems:
        last = systems[-1]
        drawn["Recall@10 by slice"] = pictures.bar_chart(
            {title: metrics.find(last, "recall@10", slice=s) for s, title in SLICE_TITLES.items()},
            f"Recall@10 of {last} by slice",
            FOUND,
        )
    return drawn


def step_pictures(seconds: Mapping[str, float]) -> dict[str, str]:
    """Time of every step, the longest on top; nothing where no step is known."""
    if not seconds:
        return {}
    longest = sorted(seconds, key=lambda step: -seconds[step])
    bars = {step: seconds[step] for step in longest}
    return {"time": pictures.bar_chart(bars, "Time per step", "seconds")}


def artifact_pictures(store: ArtifactStore, day: str) -> dict[str, str]:
    """How the artifacts of a day were made: sessions, codes, losses, calibration.

    An artifact that the day does not have is left out.
    """
    drawn = {}
    steps = _read(store, "session_dataset", day, "stats.json").get("funnel")
    if steps:
        drawn["sessions"] = pictures.funnel(steps, "What is left of the log")
    levels = _read(store, "semantic_ids", day, "diagnostics.json").get("levels")
    if levels:
        usage = {f"level {n}": sorted(v["usage"], reverse=True) for n, v in enumerate(levels, 1)}
        drawn["codes"] = pictures.line_chart(
            usage, "Items per code", "code, most used first", "items"
        )
    for asset in ("pretrained_checkpoint", "dpo_checkpoint"):
        history = _read(store, asset, day, "history.json")
        # after a warm start the newest days alone are learned
        newest = history.get("summary", {}).get("newest_history", [])
        curves = _losses(history.get("epochs") or newest)
        if curves:
            title = f"{asset}: losses"
            drawn[title] = pictures.line_chart(curves, title, "epoch", "loss (nats)")
    for asset in ("reward_model", "evaluator_model"):
        towers = _read(store, asset, day, "metrics.json").get("towers", {})
        curves = {
            name: (tower["reliability"]["predicted"], tower["reliability"]["observed"])
            for name, tower in towers.items()
            if tower.get("reliability")
        }
        if curves:
            title = f"{asset}: calibration"
            drawn[title] = pictures.scatter(
                curves, title, "predicted rate", "observed rate", diagonal=True
            )
    return drawn


def _read(store: ArtifactStore, asset: str, day: str, name: str) -> dict[str, Any]:
    """A JSON file of an artifact; empty where there is none."""
    if day not in store.partitions(asset):
        return {}
    file = store.latest(asset, day).path / name
    return read_json(file) if file.exists() else {}


def _losses(epochs: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The losses among an epoch's numbers; lists of numbers are no curve."""
    names = [k for k, v in epochs[0].items() if re.search(r"loss|nll", k)] if epochs else []
    names = [k for k in names if not any(isinstance(row.get(k), list) for row in epochs)]
    return {k: [math.nan if row.get(k) is None else float(row[k]) for row in epochs] for k in names}
