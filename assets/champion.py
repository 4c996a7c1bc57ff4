"""The champion: which system serves after the nightly run, decided by the promotion rule."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pydantic

from assets.code_version import code_version
from assets.evaluation import CHECKPOINTS, measured_reward_weight
from assets.support import (
    CORRECTABLE,
    DAILY,
    DAY_BY_DAY,
    PIPELINE,
    launchpad,
    listed,
    published,
    table_of,
    to_core,
    upstream,
)
from onerec.artifacts import Artifact, ArtifactStore
from onerec.config import ALIGNED, CHALLENGER_SERVES, BeamConfig, EvaluationConfig, RewardConfig
from resources.stores import Artifacts

if TYPE_CHECKING:
    from onerec.evaluation.metric_table import MetricTable
    from onerec.promotion.rule import Decision

DECIDED_FROM = (
    "offline_metrics", *CHECKPOINTS.values(), "semantic_ids", "reward_model", "baselines",
)  # fmt: skip
"""What the champion is decided from and made of."""
CODE = code_version(__name__, "champion")


PROMOTED_WITH = ("recall_tolerance", "aligned_recall_tolerance")
"""Settings of the evaluation stage that decide what is promoted."""


class DecidedByHand(dg.Config):
    """Set by a run of `decide_champion`: an operator decides instead of the rule."""

    serve: str = pydantic.Field(
        default="",
        description="'challenger', or the day whose champion serves again; empty: the rule decides",
    )
    reason: str = pydantic.Field(default="", description="Why")


class PromotionLaunchpad(launchpad(PIPELINE.evaluation, *PROMOTED_WITH)):
    """The promotion rule."""

    by_hand: DecidedByHand = DecidedByHand()


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="promotion",
    kinds={"pytorch"},
    code_version=CODE,
    deps=[
        CORRECTABLE,
        *(upstream(name) for name in DECIDED_FROM),
        upstream("champion", first=-1, last=-1),
    ],
)
def champion(
    context: dg.AssetExecutionContext, config: PromotionLaunchpad, artifacts: Artifacts
) -> dg.MaterializeResult:
    """What serves: the challenger if every gate passes, else the champion before it, else the
    nightly run's best simple system.

    The challenger is the aligned model, or the pretrained one if that has significantly more
    Recall@10.

    Decided from the table of `offline_metrics` alone; a refused challenger is a success of the
    run. `champion.json` holds the decision with its numbers; beside it lies the champion's complete
    bundle for `onerec.serving.bundle.load_bundle`.
    """
    from onerec.evaluation.metric_table import MetricTable
    from onerec.promotion.champion import (
        check_incumbent,
        describe,
        previous_champion,
        serving_reward_weight,
    )

    day, settings = context.partition_key, to_core(config, PIPELINE.evaluation)
    store = artifacts.store
    read = {name: store.latest(name, day) for name in DECIDED_FROM}
    incumbent = previous_champion(store, day)
    metrics = MetricTable.load(read["offline_metrics"].path)
    check_incumbent(read["offline_metrics"], incumbent)
    decision = _decide(metrics, read, settings, _what_stays(store, day, incumbent))
    challenger = read[CHECKPOINTS[decision.challenger_system]]
    description = describe(decision, challenger, incumbent, read["baselines"])
    description["reward_weight"] = serving_reward_weight(
        metrics,
        decision.challenger_system,
        measured_reward_weight(read["offline_metrics"], read[CHECKPOINTS[ALIGNED]]),
        tolerance=settings.recall_tolerance,
    )
    description, kept = _overruled(store, config.by_hand, description, incumbent)
    versions = {name: artifact.version for name, artifact in read.items()}
    if incumbent is not None:
        versions["champion"] = incumbent.version
    with store.write(
        "champion", day, config=asdict(settings), upstream=versions, code_version=CODE
    ) as draft:
        _write_champion(draft.path, description, read, kept)
    return published(draft.artifact, _decision_metadata(description))


def _what_stays(store: ArtifactStore, day: str, incumbent: Artifact | None) -> "Decision":
    """The decision where nothing was measured."""
    from onerec.promotion.champion import previous_simple_system
    from onerec.promotion.rule import unmeasured

    simple_system = previous_simple_system(store, day)
    return unmeasured(has_incumbent=incumbent is not None, simple_system=simple_system)


def _decide(
    metrics: "MetricTable",
    read: dict[str, Artifact],
    settings: EvaluationConfig,
    stays: "Decision",
) -> "Decision":
    """The decision of the rule; `stays` where nothing was measured."""
    from onerec.evaluation.measure import nothing_measured
    from onerec.promotion.champion import (
        counted_signals,
        evidence_of,
        filters_seen,
        weak_towers,
    )
    from onerec.promotion.rule import decide

    if nothing_measured(metrics):
        return stays
    rewards = (read["reward_model"].path, RewardConfig(**read["reward_model"].manifest["config"]))
    evidence = evidence_of(
        metrics,
        settings,
        weak_towers=weak_towers(*rewards),
        signals=counted_signals(*rewards),
        filter_seen=filters_seen(read["offline_metrics"]),
    )
    return decide(evidence)


def _overruled(
    store: ArtifactStore,
    by_hand: DecidedByHand,
    description: dict[str, Any],
    incumbent: Artifact | None,
) -> tuple[dict[str, Any], Artifact | None]:
    """The decision, overruled by an operator or a pin, and the earlier champion that it keeps."""
    from onerec.promotion.champion import decided_by_hand, pinned_champion

    if by_hand.serve == CHALLENGER_SERVES:
        return decided_by_hand(description, earlier=None, reason=by_hand.reason), incumbent
    if by_hand.serve:
        earlier = store.latest("champion", by_hand.serve)
        return decided_by_hand(description, earlier=earlier, reason=by_hand.reason), earlier
    pinned = pinned_champion(store)
    if pinned is not None:
        reason = f"pinned: {pinned[1]}"
        return decided_by_hand(description, earlier=pinned[0], reason=reason), pinned[0]
    return description, incumbent


def _write_champion(
    directory: Path,
    description: dict[str, Any],
    read: dict[str, Artifact],
    kept: Artifact | None,
) -> None:
    """Write the decision, and the bundle of the champion."""
    from onerec.model.checkpoint import read_config
    from onerec.promotion.champion import keep_bundle, write_decision
    from onerec.serving.recommender import write_bundle
    from onerec.serving.simple_recommender import write_simple_bundle

    challenger = read[CHECKPOINTS[description["challenger_system"]]].path
    decoding = BeamConfig(**read["offline_metrics"].manifest["config"]["decoding"])
    if description["serves"] == CHALLENGER_SERVES:
        write_bundle(
            directory,
            checkpoint=challenger,
            semantic_ids=read["semantic_ids"].path,
            reward=read["reward_model"].path if description["reward_weight"] else None,
            reward_weight=description["reward_weight"],
            config=decoding,
        )
    elif kept is not None and description["serves"] in ("incumbent", "earlier champion"):
        keep_bundle(directory, kept)
    else:
        write_simple_bundle(
            directory,
            system=description["simple_system"],
            baselines=read["baselines"].path,
            semantic_ids=read["semantic_ids"].path,
            history_length=read_config(challenger)["history_length"],
            config=decoding,
        )
    write_decision(directory, description)


def _decision_metadata(description: dict[str, Any]) -> dict[str, Any]:
    return {
        "promoted": description["promoted"],
        "serves": description["serves"],
        "challenger": description["challenger_reason"] or description["challenger_system"],
        "decided by": description.get("by_hand", "the promotion rule"),
        "best simple system": description["simple_system"],
        "weight of the reward in the challenger's lists": description["reward_weight"],
        "reasons": listed(description["reasons"]),
        "warnings": listed(description["warnings"]),
        "gates": table_of([{"gate": n, "passed": ok} for n, ok in description["gates"].items()]),
        "numbers": listed(f"{n}: {value}" for n, value in description["numbers"].items()),
        "champion": listed(f"{n}: {value}" for n, value in (description["model"] or {}).items()),
    }
