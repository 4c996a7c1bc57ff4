"""The champion of a night: what the challenger is compared with, and what is published.

The challenger's numbers come from the night's `offline_metrics`. The incumbent, the champion of the
last night before, is measured here on the same cases, as it would have been served.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from onerec.artifacts import Artifact, ArtifactStore, read_json, write_json
from onerec.config import (
    BY_PROBABILITY,
    BY_REWARD,
    BeamConfig,
    EvaluationConfig,
    RewardConfig,
)
from onerec.evaluation.bootstrap import Interval, paired_difference
from onerec.evaluation.evaluate import HEADLINE, Night, measure
from onerec.evaluation.generators import load_incumbent
from onerec.evaluation.promotion import Decision, Evidence, decide
from onerec.reward.metrics import no_better_than_base_rate
from onerec.tokenizer.semantic_ids import load_semantic_ids

CHAMPION = "champion.json"
RECALL = f"recall@{HEADLINE}"
REWARD = "evaluator_reward"

Cases = Mapping[str, np.ndarray]
"""(C,) per name."""


def previous_champion(store: ArtifactStore, day: str) -> Artifact | None:
    """The champion artifact of the latest earlier night, if that night had a champion."""
    earlier = store.latest_until("champion", day, inclusive=False)
    if earlier is None or read_json(earlier.path / CHAMPION)["model"] is None:
        return None
    return earlier


def decide_champion(
    offline_metrics: Path,
    incumbent: Cases | None,
    config: EvaluationConfig,
    *,
    system: str = "dpo",
    weak_towers: tuple[str, ...] = (),
) -> Decision:
    """Collect the evidence and decide.

    Args:
        offline_metrics: Directory of the night's artifact: the challenger's numbers.
        incumbent: The champion's values on the same cases in the same order; None without one.
        config: Tolerance and intervals.
        system: Name of the challenger in metrics.
        weak_towers: Reward towers that count and are no better than their base rate.
    """
    metrics = read_json(offline_metrics / "metrics.json")
    challenger = read_cases(offline_metrics / "cases.parquet")

    def difference(name: str, bar: np.ndarray) -> Interval:
        return paired_difference(
            challenger[f"{system}_{name}"],
            bar,
            samples=config.bootstrap_samples,
            confidence=config.confidence,
            seed=config.seed,
        )

    bar = challenger[f"popularity_{RECALL}"] if incumbent is None else incumbent[RECALL]
    return decide(
        Evidence(
            legal_share=_number(metrics[f"{system}_legal_share"]),
            repeat_free_share=_number(metrics[f"{system}_repeat_free_share"]),
            challenger_recall=_number(metrics[f"{system}_{RECALL}"]),
            bar_recall=float(bar.mean()),
            recall_difference=difference(RECALL, bar),
            reward_difference=(
                None if incumbent is None else difference(REWARD, incumbent[REWARD])
            ),
            weak_towers=weak_towers,
            tolerance=config.recall_tolerance,
        )
    )


def reward_chooses(offline_metrics: Path, config: EvaluationConfig) -> bool:
    """Whether users get what the reward model chooses, or what is most probable.

    By reward, where that loses no more than the tolerated share of the Recall@10 that lists by
    probability have: a reward model that has learned little lists what nobody watches.

    Args:
        offline_metrics: Directory of the night's artifact.
        config: The tolerance.
    """
    metrics = read_json(offline_metrics / "metrics.json")
    chosen, usual = (_number(metrics.get(f"{s}_{RECALL}")) for s in (BY_REWARD, BY_PROBABILITY))
    return chosen >= (1 - config.recall_tolerance) * usual  # not where either is NaN


def measure_incumbent(
    night: Night, bundle: Path, decoding: BeamConfig, *, device: str = "cpu"
) -> Cases:
    """The champion's values on a night's cases.

    Args:
        night: Day D.
        bundle: Directory of the champion artifact.
        decoding: Beam and batch size.
        device: Where it runs.
    """
    system = load_incumbent(
        bundle,
        load_semantic_ids(bundle),
        night.semantic_ids,
        decoding,
        test_day=night.test_day,
        device=device,
    )
    return measure(night, system).values


def read_cases(path: Path) -> dict[str, np.ndarray]:
    """Columns of a `cases.parquet`."""
    table = pq.read_table(path)
    return {n: table.column(n).to_numpy(zero_copy_only=False) for n in table.column_names}


def weak_towers(reward_model: Path, reward: RewardConfig) -> tuple[str, ...]:
    """Towers with a weight in the scalar reward that are no better than their base rate."""
    towers = read_json(reward_model / "metrics.json")["towers"]
    weak = no_better_than_base_rate(towers)
    return tuple(tower for tower in weak if getattr(reward, f"weight_{tower}") > 0)


def describe(
    decision: Decision, challenger: Artifact, incumbent: Artifact | None
) -> dict[str, Any]:
    """What `champion.json` says.

    `model` names the checkpoint that reigns after the decision, null when there is none: the first
    challenger was refused.
    """
    contender = _named(challenger)
    standing = None if incumbent is None else read_json(incumbent.path / CHAMPION)["model"]
    return {
        **asdict(decision),
        "numbers": {k: v if math.isfinite(v) else None for k, v in decision.numbers.items()},
        "challenger": contender,
        "incumbent": None if incumbent is None else {**_named(incumbent), "model": standing},
        "model": contender if decision.promoted else standing,
    }


def keep_bundle(directory: Path, incumbent: Artifact) -> None:
    """Copy the incumbent's bundle: the champion artifact of every night is complete by itself."""
    for name in incumbent.manifest["files"]:
        if name != CHAMPION:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(incumbent.path / name, directory / name)


def write_decision(directory: Path, description: Mapping[str, Any]) -> None:
    """Write `champion.json`."""
    write_json(directory / CHAMPION, description)


def _named(artifact: Artifact) -> dict[str, str]:
    return {
        "asset": artifact.asset,
        "partition": artifact.partition,
        "version": artifact.version,
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
