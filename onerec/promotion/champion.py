"""The champion of a nightly run: decided by `rule.decide` from the run's metric table.

All that the decision depends on is in the `offline_metrics` artifact, so it can be recomputed
from it: the nightly run's own models, the simple systems, and the incumbent (the champion before)
on the same cases.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onerec.artifacts import Artifact, ArtifactStore, read_json, write_json
from onerec.config import (
    ALIGNED,
    CHAMPION,
    OWN_REPEATS,
    PRETRAINED,
    SERVED,
    SIMPLE_SYSTEMS,
    EvaluationConfig,
    RewardConfig,
)
from onerec.evaluation.measure import HEADLINE
from onerec.evaluation.metric_table import MetricTable
from onerec.promotion.rule import (
    DECISION,
    POPULARITY,
    Challenger,
    Decision,
    Evidence,
    IncumbentEvidence,
    choose_challenger,
)
from onerec.reward.metrics import no_better_than_base_rate
from onerec.reward.model import load_reward
from onerec.reward.scoring import tower_weights

RECALL = f"recall@{HEADLINE}"
REWARD = "evaluator_reward"
PIN_ASSET, PINNED, PIN_FILE = "champion_pin", "pinned", "pin.json"
"""An artifact of one partition: which champion an operator keeps."""


def previous_champion(store: ArtifactStore, day: str) -> Artifact | None:
    """The champion artifact of the latest day before, if its champion is a model.

    A simple system is fitted anew in every nightly run and is never an incumbent.
    """
    earlier = store.latest_until("champion", day, inclusive=False)
    if earlier is None or not is_model(read_json(earlier.path / DECISION)["model"]):
        return None
    return earlier


def previous_simple_system(store: ArtifactStore, day: str) -> str:
    """The simple system that serves where nothing is measured and no model is the champion.

    It is the champion of the latest day before, in the form that the nightly run fitted; popularity
    where that was none.
    """
    earlier = store.latest_until("champion", day, inclusive=False)
    model = read_json(earlier.path / DECISION)["model"] if earlier else None
    system = (model or {}).get("system")
    return system if system in SIMPLE_SYSTEMS else POPULARITY


def filters_seen(offline_metrics: Artifact) -> bool:
    """Whether what serves is to leave out seen items, by the decoding that was measured."""
    return offline_metrics.manifest["config"]["decoding"]["filter_seen"]


def is_model(champion: Mapping[str, str] | None) -> bool:
    """Whether the `model` of a `champion.json` is a checkpoint: no simple system, and not null."""
    return champion is not None and "system" not in champion


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


def best_simple_system(metrics: MetricTable, *, filter_seen: bool = True) -> str:
    """Name of the simple system with the highest Recall@10; the first of equals.

    Args:
        metrics: Of the nightly run.
        filter_seen: Recommendations leave out seen items: own repeats then cannot serve, and are
            no bar.

    Raises:
        ValueError: None was measured.
    """
    left_out = {OWN_REPEATS} if filter_seen else set()
    measured = [n for n in SIMPLE_SYSTEMS if n in metrics.systems(RECALL) and n not in left_out]
    if not measured:
        raise ValueError(
            f"no simple system was measured: evaluation.baselines has to name one of "
            f"{', '.join(SIMPLE_SYSTEMS)}"
        )
    return max(measured, key=lambda name: metrics.find(name, RECALL).mean)


def challenger_of(metrics: MetricTable, settings: EvaluationConfig) -> Challenger:
    """Which of the nightly run's own models is the challenger: see `choose_challenger`."""
    return choose_challenger(
        metrics.find(ALIGNED, RECALL, reference=PRETRAINED),
        pretrained_recall=metrics.find(PRETRAINED, RECALL).mean,
        tolerance=settings.aligned_recall_tolerance,
    )


def evidence_of(
    metrics: MetricTable,
    settings: EvaluationConfig,
    *,
    weak_towers: tuple[str, ...] = (),
    signals: tuple[str, ...] = (),
    filter_seen: bool = True,
) -> Evidence:
    """What the promotion rule reads of a metric table.

    Args:
        metrics: With rows of the champion before, if there was one.
        settings: The shares of Recall@10 that may be lost.
        weak_towers: Reward towers that count and are no better than their base rate.
        signals: Signals that the scalar reward is made of.
        filter_seen: As for `best_simple_system`.
    """
    simple, incumbent = best_simple_system(metrics, filter_seen=filter_seen), None
    challenger = challenger_of(metrics, settings)
    own = challenger.system
    if CHAMPION in metrics.systems(RECALL):
        incumbent = IncumbentEvidence(
            recall=metrics.find(CHAMPION, RECALL).mean,
            recall_difference=metrics.find(own, RECALL, reference=CHAMPION),
            reward_difference=metrics.find(own, REWARD, reference=CHAMPION),
            above_simple=metrics.find(CHAMPION, RECALL, reference=simple),
        )
    return Evidence(
        legal_share=metrics.find(own, "legal_share").mean,
        repeat_free_share=metrics.find(own, "repeat_free_share").mean,
        challenger_recall=metrics.find(own, RECALL).mean,
        simple_system=simple,
        simple_recall=metrics.find(simple, RECALL).mean,
        above_simple=metrics.find(own, RECALL, reference=simple),
        incumbent=incumbent,
        weak_towers=weak_towers,
        signals=signals,
        challenger=challenger,
        tolerance=settings.recall_tolerance,
    )


def serving_reward_weight(
    metrics: MetricTable, system: str, weight: float, *, tolerance: float
) -> float:
    """How much the reward counts in what users get, beside the log-probability.

    The weight that the lists of `WITH_REWARD` were measured with, where they lose no more than the
    tolerated share of the Recall@10 that lists by log-probability have; else 0. Only the aligned
    model's lists are measured with the reward, so a pretrained one serves by log-probability.
    """
    if system != ALIGNED:
        return 0.0
    with_reward, by_probability = (metrics.find(s, RECALL).mean for s in reversed(SERVED))
    kept = with_reward >= (1 - tolerance) * by_probability  # not where either is NaN
    return weight if kept else 0.0


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
    decision: Decision, challenger: Artifact, incumbent: Artifact | None, baselines: Artifact
) -> dict[str, Any]:
    """Contents of `champion.json`.

    `model` names what is the champion after the decision: a checkpoint, or the `baselines` artifact
    with the `system` in it.
    """
    candidate = _named(challenger)
    standing = None if incumbent is None else read_json(incumbent.path / DECISION)["model"]
    simple = {**_named(baselines), "system": decision.simple_system}
    model = {"challenger": candidate, "incumbent": standing, "simple system": simple}
    return {
        **asdict(decision),
        "promoted": decision.promoted,
        "numbers": {k: v if math.isfinite(v) else None for k, v in decision.numbers.items()},
        "challenger": candidate,
        "incumbent": None if incumbent is None else {**_named(incumbent), "model": standing},
        "model": model[decision.serves],
    }


def decided_by_hand(
    description: Mapping[str, Any], *, earlier: Artifact | None, reason: str
) -> dict[str, Any]:
    """`champion.json` where an operator decided: the rule's own decision is kept in it.

    Args:
        description: What the rule decided.
        earlier: The champion artifact that serves again; None: the nightly run's challenger.
        reason: Why.
    """
    model = description["challenger"]
    if earlier is not None:
        model = read_json(earlier.path / DECISION)["model"]
    return {
        **description,
        "rule_said": description["serves"],
        "serves": "challenger" if earlier is None else "earlier champion",
        "promoted": earlier is None,
        "model": model,
        "by_hand": reason,
    }


def pinned_champion(store: ArtifactStore) -> tuple[Artifact, str] | None:
    """The champion that stays whatever challengers do, and why; None where none is pinned.

    Raises:
        ArtifactError: The pinned version is gone.
    """
    if PINNED not in store.partitions(PIN_ASSET):
        return None
    pin = read_json(store.latest(PIN_ASSET, PINNED).path / PIN_FILE)
    if pin["champion"] is None:
        return None
    return store.get("champion", *pin["champion"]), pin["reason"]


def pin_champion(store: ArtifactStore, champion: Artifact | None, reason: str) -> None:
    """Pin a champion; None takes the pin away."""
    pinned = None if champion is None else [champion.partition, champion.version]
    with store.write(PIN_ASSET, PINNED, config={}, upstream={}, code_version="1") as draft:
        write_json(draft.path / PIN_FILE, {"champion": pinned, "reason": reason})


def what_serves(description: Mapping[str, Any]) -> str:
    """What a `champion.json` says serves: a simple system by its name."""
    return (description["model"] or {}).get("system") or description["serves"]


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
