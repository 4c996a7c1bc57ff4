"""The champion of a nightly run: decided by `promotion.decide` from the run's metric table.

Everything that the decision rests on is in the `offline_metrics` artifact, so it can be recomputed
from it: the challenger, popularity, and the incumbent (the champion before) on the same cases.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onerec.artifacts import Artifact, ArtifactStore, read_json, write_json
from onerec.config import BY_PROBABILITY, BY_REWARD, CHALLENGER, CHAMPION, RewardConfig
from onerec.evaluation.measure import HEADLINE
from onerec.evaluation.metric_table import MetricTable
from onerec.evaluation.promotion import Decision, Evidence
from onerec.reward.metrics import no_better_than_base_rate
from onerec.reward.model import load_reward
from onerec.reward.scoring import tower_weights

DECISION = "champion.json"
RECALL = f"recall@{HEADLINE}"
REWARD = "evaluator_reward"


def previous_champion(store: ArtifactStore, day: str) -> Artifact | None:
    """The champion artifact of the latest day before, if that day had a champion."""
    earlier = store.latest_until("champion", day, inclusive=False)
    if earlier is None or read_json(earlier.path / DECISION)["model"] is None:
        return None
    return earlier


def check_incumbent(offline_metrics: Artifact, incumbent: Artifact | None) -> None:
    """Raise `ValueError` unless the metrics measured the incumbent, or there is none.

    In a backfill an earlier day may have got a champion since.
    """
    measured = offline_metrics.manifest["upstream"].get("champion")
    standing = None if incumbent is None else incumbent.version
    if measured != standing:
        raise ValueError(
            f"offline_metrics of {offline_metrics.partition} measured the champion {measured}, but "
            f"the champion before it is now {standing}: materialise offline_metrics of "
            f"{offline_metrics.partition} again"
        )


def evidence_of(
    metrics: MetricTable,
    *,
    tolerance: float,
    weak_towers: tuple[str, ...] = (),
    signals: tuple[str, ...] = (),
) -> Evidence:
    """What the promotion rule reads of a metric table.

    Args:
        metrics: With rows of the champion before, if there was one.
        tolerance: Share of the champion's Recall@10 that may be lost.
        weak_towers: Reward towers that count and are no better than their base rate.
        signals: Signals that the scalar reward is made of.
    """
    has_champion = CHAMPION in metrics.systems(RECALL)
    bar = CHAMPION if has_champion else "popularity"
    return Evidence(
        legal_share=metrics.find(CHALLENGER, "legal_share").mean,
        repeat_free_share=metrics.find(CHALLENGER, "repeat_free_share").mean,
        challenger_recall=metrics.find(CHALLENGER, RECALL).mean,
        bar_recall=metrics.find(bar, RECALL).mean,
        recall_difference=metrics.find(CHALLENGER, RECALL, reference=bar),
        reward_difference=(
            metrics.find(CHALLENGER, REWARD, reference=bar) if has_champion else None
        ),
        weak_towers=weak_towers,
        signals=signals,
        tolerance=tolerance,
    )


def reward_chooses(metrics: MetricTable, *, tolerance: float) -> bool:
    """Whether users get what the reward model chooses, or what is most probable.

    By reward, where that loses no more than the tolerated share of the Recall@10 that lists by
    probability have: a reward model that has learned little lists what nobody watches.
    """
    by_reward, by_probability = (metrics.find(s, RECALL).mean for s in (BY_REWARD, BY_PROBABILITY))
    return by_reward >= (1 - tolerance) * by_probability  # not where either is NaN


def weak_towers(reward_model: Path, reward: RewardConfig) -> tuple[str, ...]:
    """Towers with a weight in the scalar reward that are no better than their base rate."""
    weak = no_better_than_base_rate(read_json(reward_model / "metrics.json")["towers"])
    return tuple(tower for tower in counted_signals(reward_model, reward) if tower in weak)


def counted_signals(reward_model: Path, reward: RewardConfig) -> tuple[str, ...]:
    """Signals with a tower and a weight in the scalar reward."""
    signals = load_reward(reward_model).signals
    weights = tower_weights(reward, signals)
    return tuple(s.name for s, weight in zip(signals, weights, strict=True) if weight > 0)


def describe(
    decision: Decision, challenger: Artifact, incumbent: Artifact | None
) -> dict[str, Any]:
    """Contents of `champion.json`.

    `model` names the checkpoint that is the champion after the decision, null when there is none:
    the first challenger was refused.
    """
    candidate = _named(challenger)
    standing = None if incumbent is None else read_json(incumbent.path / DECISION)["model"]
    return {
        **asdict(decision),
        "numbers": {k: v if math.isfinite(v) else None for k, v in decision.numbers.items()},
        "challenger": candidate,
        "incumbent": None if incumbent is None else {**_named(incumbent), "model": standing},
        "model": candidate if decision.promoted else standing,
    }


def keep_bundle(directory: Path, incumbent: Artifact) -> None:
    """Copy the incumbent's bundle: the champion artifact of every day is complete by itself."""
    for name in incumbent.manifest["files"]:
        if name != DECISION:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(incumbent.path / name, directory / name)


def write_decision(directory: Path, description: Mapping[str, Any]) -> None:
    """Write `champion.json`."""
    write_json(directory / DECISION, description)


def _named(artifact: Artifact) -> dict[str, str]:
    return {
        "asset": artifact.asset,
        "partition": artifact.partition,
        "version": artifact.version,
    }
