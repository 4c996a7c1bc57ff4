"""Two reward models on disjoint users: one trains the generator, the other evaluates it."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.code_version import code_version
from assets.support import (
    CORRECTABLE,
    DAILY,
    DAY_BY_DAY,
    PIPELINE,
    POOL_TRAINER,
    all_but,
    launchpad,
    published,
    to_core,
    upstream,
)
from assets.training_process import run_training
from onerec.artifacts import read_json
from resources.stores import Artifacts, Compute

if TYPE_CHECKING:
    from onerec.reward.training import RewardPart

LEARNED_FROM = ("session_dataset", "semantic_ids")
CODE = code_version(__name__, "reward_model", "evaluator_model")


class RewardLaunchpad(launchpad(PIPELINE.reward, *all_but(PIPELINE.reward, "evaluator_d_model"))):
    """Sizes, training, and the weights of the scalar reward."""


ONLY_REWARD_MODEL = ("d_model", "ensemble_size", "ensemble_caution")


class EvaluatorLaunchpad(launchpad(PIPELINE.reward, *all_but(PIPELINE.reward, *ONLY_REWARD_MODEL))):
    """The same for the evaluator, which is one model of a width of its own."""


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="models",
    kinds={"pytorch"},
    pool=POOL_TRAINER,
    code_version=CODE,
    deps=[CORRECTABLE, *map(upstream, LEARNED_FROM)],
)
def reward_model(
    context: dg.AssetExecutionContext,
    config: RewardLaunchpad,
    artifacts: Artifacts,
    compute: Compute,
) -> dg.MaterializeResult:
    """R(u, S) with a tower per signal, from its users' sessions; chooses the preference pairs."""
    return _train("reward", context, config, artifacts, compute)


@dg.asset(
    partitions_def=DAILY,
    backfill_policy=DAY_BY_DAY,
    group_name="models",
    kinds={"pytorch"},
    pool=POOL_TRAINER,
    code_version=CODE,
    deps=[CORRECTABLE, *map(upstream, LEARNED_FROM)],
)
def evaluator_model(
    context: dg.AssetExecutionContext,
    config: EvaluatorLaunchpad,
    artifacts: Artifacts,
    compute: Compute,
) -> dg.MaterializeResult:
    """A second reward model of other users, seed and width: it measures, and trains nothing."""
    return _train("evaluator", context, config, artifacts, compute)


def _train(
    part: "RewardPart",
    context: dg.AssetExecutionContext,
    config: dg.Config,
    artifacts: Artifacts,
    compute: Compute,
) -> dg.MaterializeResult:
    from onerec.reward.job import RewardJob

    day, name, settings = context.partition_key, f"{part}_model", to_core(config, PIPELINE.reward)
    read = {n: artifacts.store.latest(n, day) for n in LEARNED_FROM}
    job = RewardJob(
        session_dataset=read["session_dataset"].path,
        semantic_ids=read["semantic_ids"].path,
        part=part,
        reward=settings,
        runtime=compute.runtime(),
    )
    key: dict[str, Any] = {
        "config": asdict(settings),
        "upstream": {n: a.version for n, a in read.items()},
        "code_version": CODE,
    }
    scratch = artifacts.store.scratch(name, day, key)
    with artifacts.store.write(name, day, seed=settings.seed, **key) as draft:
        run_training(context, job, out_dir=draft.path, scratch=scratch)
        metrics = read_json(draft.path / "metrics.json")
        draft.row_counts["rows"] = metrics["train_blocks"]
    shutil.rmtree(scratch)
    return published(draft.artifact, _pictures(metrics))


def _pictures(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metadata: curves, calibration, and the numbers of each tower."""
    from onerec.report.pictures import line_chart, scatter, svg_markdown

    towers, epochs = metrics["towers"], metrics["epochs"]
    losses = {
        label: [float("nan") if e[key] is None else e[key] for e in epochs]
        for label, key in (("training", "train_loss"), ("validation", "valid_loss"))
    }
    curves = {
        f"{name} (AUC {m['auc']:.3f})" if m["auc"] is not None else name: (
            m["reliability"]["predicted"],
            m["reliability"]["observed"],
        )
        for name, m in towers.items()
        if m["reliability"]
    }
    shown = ("auc", "gauc", "pcoc", "auc_missing", "log_loss", "base_log_loss", "base_rate", "ece")
    numbers = {f"{t} {k}": m[k] for t, m in towers.items() for k in shown if m[k] is not None}
    shown = ("expected", "observed", "pcoc", "correlation", "gauc")
    numbers |= {
        f"{name} {k}": m[k]
        for name, m in metrics["expectations"].items()
        for k in shown
        if m[k] is not None
    }
    loss = line_chart(losses, "Reward loss", "epoch", "L_RM")
    calibration = scatter(curves, "Calibration", "predicted", "observed", diagonal=True)
    return {
        "loss": dg.MetadataValue.md(svg_markdown(loss)),
        "calibration": dg.MetadataValue.md(svg_markdown(calibration)),
        "best epoch": metrics["best_epoch"],
        "training users": metrics["train_users"],
        "scalar reward": " + ".join(metrics["scalar_reward"]),
        "share of LightGBM": _shares(metrics),
        "facts of items": ", ".join(metrics["item_facts"]) or "none",
        "facts of users": ", ".join(metrics["user_facts"]) or "none",
        "no such signal": ", ".join(metrics["missing_signals"]) or "none: all are there",
        **numbers,
    }


def _shares(metrics: dict[str, Any]) -> str:
    shares = (metrics["boosting"] or {}).get("shares", {})
    return ", ".join(f"{name} {share:g}" for name, share in shares.items()) or "none"


def _checks_of(asset: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    name = asset.key.to_user_string()

    @dg.multi_asset_check(
        name=f"{name}_checks",
        specs=[
            dg.AssetCheckSpec(
                "probabilities_are_finite",
                asset=asset,
                blocking=True,
                description="No probability on the validation day is NaN or inf.",
            ),
            dg.AssetCheckSpec(
                "better_than_base_rate",
                asset=asset,
                description="Each tower's log-loss on the validation day is below that of "
                "the training days' base rate.",
            ),
        ],
    )
    def checks(
        context: dg.AssetCheckExecutionContext, artifacts: Artifacts
    ) -> Iterator[dg.AssetCheckResult]:
        from onerec.artifacts import read_json
        from onerec.reward.metrics import no_better_than_base_rate

        file = artifacts.store.latest(name, context.partition_key).path / "metrics.json"
        metrics = read_json(file)
        towers = metrics["towers"]
        yield dg.AssetCheckResult(
            passed=all(
                m["finite"] for rows in (towers, metrics["towers_all_users"]) for m in rows.values()
            ),
            check_name="probabilities_are_finite",
            asset_key=asset.key,
        )
        weak = no_better_than_base_rate(towers)
        yield dg.AssetCheckResult(
            passed=not weak,
            check_name="better_than_base_rate",
            asset_key=asset.key,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={
                "no better": ", ".join(weak) or "none",
                **{
                    f"{t} log-loss below base rate": m["base_log_loss"] - m["log_loss"]
                    for t, m in towers.items()
                    if m["log_loss"] is not None
                },
            },
        )

    return checks


reward_model_checks = _checks_of(reward_model)
evaluator_model_checks = _checks_of(evaluator_model)
